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
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+"/varz", http.NoBody)
	if err != nil {
		return r, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return r, err
	}
	defer func() { _ = resp.Body.Close() }() // it was read, or given up
	if resp.StatusCode != http.StatusOK {
		return r, fmt.Errorf("%s/varz answers %s", shell.WithoutSecrets(url), resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, reportLimit))
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	return r, err
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
	answers, err := nc.SubscribeSync(nc.NewInbox())
	if err == nil {
		err = nc.PublishRequest("$SYS.REQ.SERVER.PING.VARZ", answers.Subject, nil)
	}
	if err != nil {
		return nil, err
	}
	var all []serverReport
	for {
		wait, cancel := context.WithTimeout(ctx, reportWait)
		m, err := answers.NextMsgWithContext(wait)
		cancel()
		if len(all) == 0 && (err != nil || len(m.Data) == 0) {
			return nil, errors.Join(errors.New("no server answers: is it a user of the system account?"), err)
		}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) {
			return all, nil // that was the last one
		}
		if err != nil {
			return all, err
		}
		var one struct {
			Data serverReport `json:"data"`
		}
		if err := json.Unmarshal(m.Data, &one); err != nil {
			return all, fmt.Errorf("decode a server's report: %w", err)
		}
		all = append(all, one.Data)
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
		return nil
	}
	reports, err := x.serverReports(ctx)
	var lazy, full, synced, room []string
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
	return err
}
