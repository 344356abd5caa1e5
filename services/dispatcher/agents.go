package dispatcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

const (
	// agentsTTL is how old the defaults of an agent may be here. Whether an
	// agent is known at all is never refused from this copy.
	agentsTTL = 5 * time.Second
	// refreshTimeout is short because the first refresh holds up the start, and
	// a request that meets a broker's restart is lost.
	refreshTimeout = time.Second
	// listTTL is how old the list of known keys in a refusal may be. A flood of
	// bad submissions must not become a flood of reads of the whole bucket.
	listTTL = time.Second
	// maxListed bounds the known keys that a refusal lists.
	maxListed = 20
)

// agents is a copy of bucket agents. Its methods may be called from several goroutines.
type agents struct {
	broker *broker
	logger *slog.Logger

	mu    sync.RWMutex
	known map[string]contracts.AgentRecord // replaced or added to, under mu
	read  time.Time                        // when it was last replaced
}

func newAgents(b *broker, logger *slog.Logger) *agents {
	return &agents{broker: b, logger: logger, known: map[string]contracts.AgentRecord{}}
}

// run keeps the copy fresh until ctx ends.
func (a *agents) run(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, agentsTTL)
		if ctx.Err() == nil && a.broker.nc.IsConnected() {
			a.refresh(ctx)
		}
	}
}

// refresh reads the whole bucket. If it cannot, the copy stays as it is.
func (a *agents) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	known, err := a.readAll(ctx)
	if err != nil {
		if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
			a.logger.Warn("registered agents could not be read", "error", err)
		}
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known, a.read = known, time.Now()
}

func (a *agents) readAll(ctx context.Context) (map[string]contracts.AgentRecord, error) {
	kv, err := a.broker.js.KeyValue(ctx, contracts.BucketAgents)
	if err != nil {
		return nil, translate("open bucket agents", err)
	}
	w, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, translate("read bucket agents", err)
	}
	defer func() {
		if err := w.Stop(); err != nil {
			a.logger.Debug("watcher of bucket agents could not be stopped", "error", err)
		}
	}()
	known := map[string]contracts.AgentRecord{}
	for {
		select {
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return nil, fmt.Errorf("read bucket agents: %w: watcher ended", jsutil.ErrUnavailable)
			case e == nil: // that was all
				return known, nil
			}
			known[e.Key()] = a.decode(e.Key(), e.Value())
		case <-ctx.Done():
			return nil, fmt.Errorf("read bucket agents: %w", context.Cause(ctx))
		}
	}
}

// decode reads a record. One that cannot be read still shows that its agent is known.
func (a *agents) decode(key string, data []byte) contracts.AgentRecord {
	rec := contracts.AgentRecord{}
	if err := json.Unmarshal(data, &rec); err != nil {
		a.logger.Warn("agent's record cannot be read, defaults apply", "agent_key", key, "error", err)
		return contracts.AgentRecord{AgentKey: key}
	}
	return rec
}

// cached returns the record of key if the copy has it.
func (a *agents) cached(key string) (contracts.AgentRecord, bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	rec, ok := a.known[key]
	return rec, ok
}

// find returns the record of key, asking the bucket itself if the copy does
// not have it; false if nobody has ever registered it.
func (a *agents) find(ctx context.Context, key string) (contracts.AgentRecord, bool, error) {
	if rec, ok := a.cached(key); ok {
		return rec, true, nil
	}
	m, err := a.broker.last(ctx, contracts.StreamAgents, contracts.KVSubject(contracts.BucketAgents, key))
	switch {
	case errors.Is(err, jsutil.ErrNotFound), err == nil && deleted(m):
		return contracts.AgentRecord{}, false, nil
	case err != nil:
		return contracts.AgentRecord{}, false, fmt.Errorf("look up agent %s: %w", key, err)
	}
	rec := a.decode(key, m.Data)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known[key] = rec
	return rec, true, nil
}

// unknown is the fault of a submission whose agent nobody has ever registered.
func (a *agents) unknown(ctx context.Context, key string) contracts.Fault {
	a.mu.RLock()
	old := time.Since(a.read) > listTTL
	a.mu.RUnlock()
	if old {
		a.refresh(ctx)
	}
	a.mu.RLock()
	keys := slices.Sorted(maps.Keys(a.known))
	a.mu.RUnlock()
	text := fmt.Sprintf("%q is not known: no worker has ever registered it", key)
	switch {
	case len(keys) == 0:
		text += ", nor any other agent"
	case len(keys) <= maxListed:
		text += "; known are " + strings.Join(keys, ", ")
	default:
		text += fmt.Sprintf("; known are %s and %d more", strings.Join(keys[:maxListed], ", "), len(keys)-maxListed)
	}
	return contracts.Fault{Field: "agent_key", Message: text}
}

// complete fills in what the submission leaves to its agent, and to us.
func complete(s *contracts.Submission, rec contracts.AgentRecord) {
	if s.Priority == "" {
		s.Priority = contracts.PriorityNormal
	}
	if s.TimeoutSeconds == 0 {
		s.TimeoutSeconds = rec.TimeoutSeconds
	}
	if s.TimeoutSeconds <= 0 {
		s.TimeoutSeconds = contracts.DefaultTimeout
	}
	if s.MaxAttempts == 0 {
		s.MaxAttempts = rec.MaxAttempts
	}
	if s.MaxAttempts <= 0 {
		s.MaxAttempts = contracts.DefaultMaxAttempts
	}
}

// deleted reports whether m is a bucket's mark of a deleted key.
func deleted(m stored) bool { return m.Header.Get("KV-Operation") != "" }
