package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/internal/shell"
)

// serverReport is what a nats-server tells of itself: its /varz, over HTTP or
// by the system account.
type serverReport struct {
	Name      string `json:"server_name"`
	Version   string `json:"version"`
	JetStream struct {
		Config struct {
			MaxStore     int64         `json:"max_storage"`
			SyncInterval time.Duration `json:"sync_interval"` // nanoseconds
			SyncAlways   bool          `json:"sync_always"`
		} `json:"config"`
		Stats struct {
			Store    int64 `json:"storage"`
			Reserved int64 `json:"reserved_storage"`
		} `json:"stats"`
	} `json:"jetstream"`

	health serverHealth
}

// serverHealth is its /healthz: whether it has all that its streams and
// consumers hold, and those of the cluster's own log.
type serverHealth struct {
	Status string `json:"status"` // "ok" if so
	Error  string `json:"error"`
}

const (
	// reportWait bounds the question to one server, or the silence after the last answer.
	reportWait = 2 * time.Second
	// reportLimit bounds what is read of an answer.
	reportLimit = 4 << 20
)

// serverReports asks the servers that the flags name.
func (x *examination) serverReports(ctx context.Context) ([]serverReport, error) {
	var all []serverReport
	var failed error
	for _, url := range x.Monitor {
		r, err := monitorReport(ctx, url)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("--monitor %s: %w", shell.WithoutSecrets(url), err))
			continue
		}
		all = append(all, r)
	}
	if x.SystemContext != "" {
		reports, err := x.systemReports(ctx)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("--system-context %s: %w", x.SystemContext, err))
		}
		all = append(all, reports...)
	}
	return all, failed
}

// monitorReport asks one server by its monitoring port.
func monitorReport(ctx context.Context, url string) (r serverReport, err error) {
	ctx, cancel := context.WithTimeout(ctx, reportWait)
	defer cancel()
	if err = monitorAsk(ctx, url, "/varz", &r); err == nil {
		err = monitorAsk(ctx, url, "/healthz", &r.health)
	}
	return r, err
}

func monitorAsk(ctx context.Context, url, path string, to any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+path, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // it was read, or given up
	// One that is not healthy says so in the same form.
	if path != "/healthz" && resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s%s answers %s", shell.WithoutSecrets(url), path, resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, reportLimit))
	if err == nil {
		err = json.Unmarshal(body, to)
	}
	return err
}

// systemReports asks all servers, as a user of the system account.
func (x *examination) systemReports(ctx context.Context) ([]serverReport, error) {
	other := *x.app
	other.NATS, other.Context, other.Creds, other.NKey = "", x.SystemContext, "", ""
	nc, err := other.connect()
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	var all []serverReport
	at := map[string]int{} // by the server's id
	if err := systemAsk(ctx, nc, "VARZ", func(id string, data json.RawMessage) error {
		at[id] = len(all)
		all = append(all, serverReport{})
		return json.Unmarshal(data, &all[at[id]])
	}); err != nil {
		return all, err
	}
	return all, systemAsk(ctx, nc, "HEALTHZ", func(id string, data json.RawMessage) error {
		i, known := at[id]
		if !known {
			return nil // it has just come
		}
		return json.Unmarshal(data, &all[i].health)
	})
}

// systemAsk asks all servers one thing, and hands on each answer until there is silence.
func systemAsk(ctx context.Context, nc *nats.Conn, what string, each func(id string, data json.RawMessage) error) error {
	answers, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		return err
	}
	defer func() { _ = answers.Unsubscribe() }() // fails only on a closed connection
	if err := nc.PublishRequest("$SYS.REQ.SERVER.PING."+what, answers.Subject, nil); err != nil {
		return err
	}
	for n := 0; ; n++ {
		wait, cancel := context.WithTimeout(ctx, reportWait)
		m, err := answers.NextMsgWithContext(wait)
		cancel()
		if n == 0 && (err != nil || len(m.Data) == 0) {
			return errors.Join(errors.New("no server answers: is it a user of the system account?"), err)
		}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) {
			return nil // that was the last one
		}
		if err != nil {
			return err
		}
		var one struct {
			Server struct {
				ID string `json:"id"`
			} `json:"server"`
			Data json.RawMessage `json:"data"`
		}
		if err = json.Unmarshal(m.Data, &one); err == nil {
			err = each(one.Server.ID, one.Data)
		}
		if err != nil {
			return fmt.Errorf("decode a server's %s: %w", strings.ToLower(what), err)
		}
	}
}

// fullAt is the share of its storage above which a server, or an account, has
// little headroom left.
const fullAt = 0.8

// servers looks at what the servers tell of themselves.
func (x *examination) servers(ctx context.Context) error {
	if len(x.Monitor) == 0 && x.SystemContext == "" {
		const how = "the broker tells it only on its monitoring port or to its system account: give --monitor http://HOST:8222 (for each server) or --system-context NAME"
		x.say("fsync", findingUnknown, how)
		x.say("disk", findingUnknown, how)
		x.say("health", findingUnknown, how)
		return nil
	}
	reports, err := x.serverReports(ctx)
	var lazy, full, synced, room, ill, healthy []string
	for _, r := range reports {
		cfg, stats := r.JetStream.Config, r.JetStream.Stats
		if cfg.SyncAlways {
			synced = append(synced, r.Name)
		} else {
			lazy = append(lazy, fmt.Sprintf("%s syncs every %s", r.Name, short(cfg.SyncInterval)))
		}
		used := max(stats.Store, stats.Reserved)
		words := fmt.Sprintf("%s uses %s of %s", r.Name, byteSize(int(used)), byteSize(int(cfg.MaxStore)))
		if cfg.MaxStore > 0 && float64(used) > fullAt*float64(cfg.MaxStore) {
			full = append(full, words)
		} else {
			room = append(room, words)
		}
		if r.health.Status == "ok" {
			healthy = append(healthy, r.Name)
		} else {
			ill = append(ill, fmt.Sprintf("%s: %s %s", r.Name, r.health.Status, r.health.Error))
		}
		if tooOld(r.Version) {
			x.say("broker", findingWrong, fmt.Sprintf("%s runs nats-server %s: at least %d.%d is needed", r.Name, r.Version, leastServer[0], leastServer[1]))
		}
	}
	switch {
	case len(lazy) > 0 && x.replicas < 3:
		x.say("fsync", findingWrong, "an acknowledged write can be lost when the machine goes down: set sync_interval: always in the broker's jetstream block, or keep three replicas on machines of their own", lazy...)
	case len(lazy) > 0:
		x.say("fsync", findingOK, fmt.Sprintf("not after each write; with %d replicas on machines of their own no single machine's loss is a loss", x.replicas), lazy...)
	case len(synced) > 0:
		x.say("fsync", findingOK, "an acknowledged write is on the disk", synced...)
	}
	switch {
	case len(full) > 0:
		x.say("disk", findingWrong, "little headroom; a server that is full refuses submissions and events: raise max_file_store below the size of its volume, shorten --retention-days, or add storage", full...)
	case len(room) > 0:
		x.say("disk", findingOK, "there is headroom", room...)
	}
	switch {
	case len(ill) > 0:
		x.say("health", findingWrong, "not every server has all that its streams and consumers hold; one that has just been started may take minutes to catch up. Stop no other one until this is well", ill...)
	case len(healthy) > 0:
		x.say("health", findingOK, "each server has all that its streams and consumers hold", healthy...)
	}
	return err
}
