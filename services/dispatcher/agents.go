package dispatcher

import (
	"bytes"
	"cmp"
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

	"longhaul/pkg/agent/schema"
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
	// listPause is between two reads of the whole bucket for the sake of a
	// refusal, which lists what is known at that moment. A flood of bad
	// submissions shares one read, lest it become a flood of reads.
	listPause = 50 * time.Millisecond
	// maxListed bounds the known keys that a refusal lists.
	maxListed = 20
)

// agents is a copy of bucket agents. Its methods may be called from several goroutines.
type agents struct {
	js     jetstream.JetStream
	logger *slog.Logger

	reading sync.Mutex // held by a refresh

	mu    sync.Mutex
	known map[string]registered // replaced or added to, under mu
	asked time.Time             // when the last refresh began
}

// registered is an agent's record, and what follows from it.
type registered struct {
	contracts.AgentRecord
	input *schema.Schema // nil without one, and of one that can't be compiled
	data  []byte         // the record as stored: the same is not compiled again
}

// misfit says what is wrong with a submission's params by the agent's own schema.
func (r registered) misfit(s contracts.Submission) contracts.Faults {
	return r.input.Check(s.Input.Params, "input.params")
}

func newAgents(js jetstream.JetStream, logger *slog.Logger) *agents {
	return &agents{js: js, logger: logger, known: map[string]registered{}}
}

// refresh reads the whole bucket, unless that was begun since already by
// another. If it cannot, the copy stays as it is.
func (a *agents) refresh(ctx context.Context, since time.Time) {
	a.reading.Lock()
	defer a.reading.Unlock()
	a.mu.Lock()
	asked := a.asked
	a.mu.Unlock()
	if asked.After(since) {
		return
	}
	jsutil.Sleep(ctx, listPause-time.Since(asked))
	begun := time.Now()
	known, err := a.readAll(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = begun
	if err == nil {
		a.known = known
	} else if ctx.Err() == nil {
		a.logger.Warn("registered agents could not be read", "error", err)
	}
}

func (a *agents) readAll(ctx context.Context) (map[string]registered, error) {
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel() // ends the watcher
	kv, err := a.js.KeyValue(ctx, contracts.BucketAgents)
	if err != nil {
		return nil, translate("open bucket agents", err)
	}
	w, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, translate("read bucket agents", err)
	}
	known := map[string]registered{}
	for e := range w.Updates() {
		if e == nil { // that was all
			return known, nil
		}
		known[e.Key()] = a.decode(e.Key(), e.Value())
	}
	return nil, fmt.Errorf("read bucket agents: %w: watcher ended", jsutil.ErrUnavailable)
}

// decode reads a record. One that cannot be read still shows that its agent is
// known, and one whose schema cannot lets every input pass.
func (a *agents) decode(key string, data []byte) registered {
	if there, ok := a.cached(key); ok && bytes.Equal(there.data, data) {
		return there
	}
	rec := registered{data: data}
	err := json.Unmarshal(data, &rec.AgentRecord)
	if err != nil {
		rec.AgentRecord = contracts.AgentRecord{}
	} else {
		rec.input, err = schema.Compile(rec.InputSchema)
	}
	if err != nil {
		a.logger.Warn("agent's record cannot be read, defaults apply", "agent_key", key, "error", err)
	}
	return rec
}

// cached returns the record of key if the copy has it.
func (a *agents) cached(key string) (registered, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	rec, ok := a.known[key]
	return rec, ok
}

// find returns the record that a submission is to be judged by; false if nobody
// has ever registered its agent. Before anything is refused the bucket itself is
// asked: the copy may be without the agent, or have a schema of yesterday.
func (a *agents) find(ctx context.Context, s contracts.Submission) (registered, bool, error) {
	if rec, ok := a.cached(s.AgentKey); ok && rec.misfit(s) == nil {
		return rec, true, nil
	}
	m, err := jsutil.GetFromLeader(ctx, a.js.Conn(), contracts.StreamAgents,
		jsutil.GetRequest{LastFor: contracts.KVSubject(contracts.BucketAgents, s.AgentKey)})
	switch {
	case errors.Is(err, jsutil.ErrNotFound), err == nil && deleted(m):
		return registered{}, false, nil
	case err != nil:
		return registered{}, false, fmt.Errorf("look up agent %s: %w", s.AgentKey, err)
	}
	rec := a.decode(s.AgentKey, m.Data)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known[s.AgentKey] = rec
	return rec, true, nil
}

// unknown is the fault of a submission whose agent nobody has ever registered.
func (a *agents) unknown(ctx context.Context, key string) contracts.Fault {
	a.refresh(ctx, time.Now())
	a.mu.Lock()
	keys := slices.Sorted(maps.Keys(a.known))
	a.mu.Unlock()
	more := ""
	if n := len(keys) - maxListed; n > 0 {
		keys, more = keys[:maxListed], fmt.Sprintf(" and %d more", n)
	}
	list := cmp.Or(strings.Join(keys, ", "), "none")
	return contracts.Fault{Field: "agent_key", Message: fmt.Sprintf(
		"%q is not known: no worker has ever registered it; known are %s%s", key, list, more)}
}

// complete fills in what the submission leaves to its agent, and to us. No
// attempt may take longer than longest, whatever its agent states.
func complete(s *contracts.Submission, rec contracts.AgentRecord, longest time.Duration) {
	s.Priority = cmp.Or(s.Priority, contracts.PriorityNormal)
	s.TimeoutSeconds = cmp.Or(s.TimeoutSeconds, min(cmp.Or(max(rec.TimeoutSeconds, 0), contracts.DefaultTimeout), longest.Seconds()))
	s.MaxAttempts = cmp.Or(s.MaxAttempts, max(rec.MaxAttempts, 0), contracts.DefaultMaxAttempts)
}
