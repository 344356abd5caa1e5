package dispatcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/runlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of a test.
const patience = 20 * time.Second

// bench is a broker with what a test needs to look into it.
type bench struct {
	*jstest.Broker
	log *runlog.Log
}

func newBench(t testing.TB, b *jstest.Broker) *bench {
	t.Helper()
	return &bench{Broker: b, log: runlog.New(b.JS)}
}

// dispatcher is one that does not run, for its single steps.
func (b *bench) dispatcher() *Dispatcher {
	return must(New(b.NC, Config{AcceptUnknownAgents: true, Logger: slog.New(slog.DiscardHandler)}))
}

// start runs a dispatcher until the test ends, or until stop is called.
func (b *bench) start(t testing.TB, cfg Config) (stop func()) {
	t.Helper()
	return run(t, b.Connect(t), b.TopologyOptions(), cfg)
}

func run(t testing.TB, nc *nats.Conn, topology jsutil.TopologyOptions, cfg Config) (stop func()) {
	t.Helper()
	cfg.Topology = topology
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	d, err := New(nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run returned %v", err)
			}
		case <-time.After(patience):
			t.Errorf("Run did not return within %s of its context's end", patience)
		}
	})
	t.Cleanup(stop)
	return stop
}

// register puts agents into bucket agents, as workers do.
func (b *bench) register(t testing.TB, records ...contracts.AgentRecord) {
	t.Helper()
	for _, r := range records {
		data := must(contracts.Encode(r))
		if _, err := b.JS.Publish(t.Context(), contracts.KVSubject(contracts.BucketAgents, r.AgentKey), data); err != nil {
			t.Fatal(err)
		}
	}
}

// submit publishes a submission: a contracts.Submission or a string.
func (b *bench) submit(t testing.TB, v any) (sequence uint64) {
	t.Helper()
	body, ok := v.(string)
	if !ok {
		body = string(must(contracts.Encode(v)))
	}
	return b.publish(t, contracts.SubjectSubmit, body)
}

func (b *bench) publish(t testing.TB, subject, body string) (sequence uint64) {
	t.Helper()
	ack, err := b.JS.Publish(t.Context(), subject, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

// derivedID is the run id of an inbox message that names none.
func (b *bench) derivedID(t testing.TB, sequence uint64) string {
	t.Helper()
	s, err := b.JS.Stream(t.Context(), contracts.StreamInbox)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetMsg(t.Context(), sequence)
	if err != nil {
		t.Fatal(err)
	}
	return contracts.RunIDFromInbox(sequence, m.Time)
}

// append appends what a crashed dispatcher, or a worker, would have.
func (b *bench) append(t testing.TB, runID string, drafts ...contracts.Draft) runlog.Head {
	t.Helper()
	head := b.head(t, runID)
	for _, d := range drafts {
		e, err := contracts.Next(head.Head, runID, d, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if head, err = b.log.Append(t.Context(), head, e); err != nil {
			t.Fatal(err)
		}
	}
	return head
}

// head is the head of a run's log, zero if there is none.
func (b *bench) head(t testing.TB, runID string) runlog.Head {
	t.Helper()
	last, err := b.log.LastFromLeader(t.Context(), runID)
	if errors.Is(err, jsutil.ErrNotFound) {
		return runlog.Head{}
	}
	if err != nil {
		t.Fatal(err)
	}
	return last.Head()
}

// history reads a run's log, and checks that contracts.Apply accepts all of it.
func (b *bench) history(t testing.TB, runID string) []runlog.Entry {
	t.Helper()
	var all []runlog.Entry
	var head contracts.Head
	for e, err := range b.log.Read(t.Context(), runID, 1) {
		if err != nil {
			t.Fatal(err)
		}
		if head, err = contracts.Apply(head, e.Event); err != nil {
			t.Fatalf("log of run %s: %v", runID, err)
		}
		all = append(all, e)
	}
	return all
}

func types(entries []runlog.Entry) string {
	var s []string
	for _, e := range entries {
		s = append(s, string(e.Type))
	}
	return strings.Join(s, " ")
}

// last returns the last message on a subject.
func (b *bench) last(t testing.TB, stream, subject string) (*jetstream.RawStreamMsg, error) {
	t.Helper()
	s, err := b.JS.Stream(t.Context(), stream)
	if err != nil {
		return nil, jsutil.Translate(err)
	}
	m, err := s.GetLastMsgForSubject(t.Context(), subject)
	return m, jsutil.Translate(err)
}

// remove deletes a work message, as a worker's ack would.
func (b *bench) remove(t testing.TB, sequence uint64) {
	t.Helper()
	s, err := b.JS.Stream(t.Context(), contracts.StreamWork)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteMsg(t.Context(), sequence); err != nil {
		t.Fatal(err)
	}
}

// work returns the work message of a run, nil if there is none.
func (b *bench) work(t testing.TB, runID string) *jetstream.RawStreamMsg {
	t.Helper()
	m, err := b.last(t, contracts.StreamWork, "runs.work.*.*."+runID)
	if errors.Is(err, jsutil.ErrNotFound) || errors.Is(err, jsutil.ErrNoTopology) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// count is how many messages a stream holds.
func (b *bench) count(t testing.TB, stream string) int {
	t.Helper()
	s, err := b.JS.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return int(info.State.Msgs)
}

// waitEmpty waits until everything in the inbox is acked.
func (b *bench) waitEmpty(t testing.TB) {
	t.Helper()
	waitFor(t, "the inbox to be empty", func() bool { return b.count(t, contracts.StreamInbox) == 0 })
}

// waitHistory waits until a run's log holds just these types.
func (b *bench) waitHistory(t testing.TB, runID, want string) []runlog.Entry {
	t.Helper()
	var have []runlog.Entry
	waitFor(t, "run "+runID+" to have the log "+want, func() bool {
		have = b.history(t, runID)
		return types(have) == want
	}, func() string { return "it has " + types(have) })
	return have
}

// checkQueued checks that a run waits for a worker: one event run.queued in its
// log that is also the body of its work message.
func (b *bench) checkQueued(t testing.TB, runID string) contracts.Submission {
	t.Helper()
	entries := b.waitHistory(t, runID, "run.queued")
	waitFor(t, "the work message of run "+runID, func() bool { return b.work(t, runID) != nil })
	m := b.work(t, runID)
	raw, err := b.last(t, contracts.StreamLog, contracts.EventsSubject(runID))
	if err != nil {
		t.Fatal(err)
	}
	if string(raw.Data) != string(m.Data) {
		t.Errorf("work message of run %s is\n%s\nnot the event in the log\n%s", runID, m.Data, raw.Data)
	}
	if have, want := m.Header.Get(contracts.HeaderLogSequence), strconv.FormatUint(entries[0].Sequence, 10); have != want {
		t.Errorf("work message of run %s has log sequence %q, want %s", runID, have, want)
	}
	var p contracts.Queued
	mustDecode(t, entries[0].Payload, &p)
	return p.Submission
}

// checkRejected waits for a refusal and returns its faults.
func (b *bench) checkRejected(t testing.TB, runID string) []contracts.Fault {
	t.Helper()
	entries := b.waitHistory(t, runID, "run.rejected")
	if m := b.work(t, runID); m != nil {
		t.Errorf("rejected run %s has a work message", runID)
	}
	var p contracts.Rejected
	mustDecode(t, entries[0].Payload, &p)
	if len(p.Errors) == 0 {
		t.Errorf("rejected run %s has no faults", runID)
	}
	return p.Errors
}

func faultOf(faults []contracts.Fault, field string) string {
	for _, f := range faults {
		if f.Field == field {
			return f.Message
		}
	}
	return ""
}

// waitFor polls until ok, and fails the test with what was waited for.
func waitFor(t testing.TB, what string, ok func() bool, detail ...func() string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			var more string
			for _, d := range detail {
				more += ": " + d()
			}
			t.Fatalf("waited %s for %s%s", patience, what, more)
		}
		jsutil.Sleep(t.Context(), 2*time.Millisecond)
	}
}

func mustDecode(t testing.TB, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprint("test: ", err))
	}
	return v
}

var echo = contracts.AgentRecord{AgentKey: "echo", TimeoutSeconds: 42, MaxAttempts: 7}

// full is a submission with every default filled in, as a dispatcher would have it.
func full(runID string) contracts.Submission {
	s := contracts.Submission{RunID: runID, AgentKey: "echo"}
	complete(&s, echo, time.Hour)
	return s
}

func queuedDraft(s contracts.Submission) contracts.Draft {
	return contracts.Draft{Type: contracts.TypeQueued, AgentKey: s.AgentKey, Priority: s.Priority, MaxAttempts: s.MaxAttempts,
		Payload: contracts.Queued{Submission: s}}
}

func scheduledDraft(s contracts.Submission) contracts.Draft {
	return contracts.Draft{Type: contracts.TypeScheduled, AgentKey: s.AgentKey, Priority: s.Priority, MaxAttempts: s.MaxAttempts,
		NotBefore: s.NotBefore, Payload: contracts.Scheduled{NotBefore: s.NotBefore, Submission: s}}
}

func startedDraft(workerID string) contracts.Draft {
	return contracts.Draft{Type: contracts.TypeStarted, WorkerID: workerID}
}

var failedDraft = contracts.Draft{Type: contracts.TypeFailed, Payload: contracts.Failed{ErrorInfo: contracts.ErrorInfo{Type: "AgentError"}}}
