package statekeeper

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/runlog"
)

// TestMain lets more tests run at once than there are processors: most of them
// wait, for a pin to run out or a worker to be taken for dead.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// testLogger shows what a keeper logs when its test fails or -v is given.
func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// keeper is a Statekeeper that runs.
type keeper struct {
	*Statekeeper
	nc     *nats.Conn
	cancel context.CancelFunc
	ended  chan struct{}
}

// startKeeper runs an instance on its own connection until the test ends or stop is called.
func startKeeper(t testing.TB, b *jstest.Broker, cfg Config, adjust ...func(*Statekeeper)) *keeper {
	t.Helper()
	return startKeeperOn(t, b, b.Connect(t), cfg, adjust...)
}

// withWindow gives the projector another window.
func withWindow(d time.Duration) func(*Statekeeper) {
	return func(s *Statekeeper) { s.projector.window = d }
}

func startKeeperOn(t testing.TB, b *jstest.Broker, nc *nats.Conn, cfg Config, adjust ...func(*Statekeeper)) *keeper {
	t.Helper()
	cfg.Topology.Storage = b.Topology().Streams[0].Storage
	cfg.Logger = testLogger(t)
	s, err := New(nc, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range adjust {
		a(s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	k := &keeper{Statekeeper: s, nc: nc, cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(k.ended)
		if err := s.Run(ctx); err != nil && !nc.IsClosed() {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(k.stop)
	return k
}

// stop ends it as SIGTERM would.
func (k *keeper) stop() {
	k.cancel()
	<-k.ended
}

// ready waits until the API answers.
func (k *keeper) ready(t testing.TB) {
	t.Helper()
	waitFor(t, "the index to be loaded", func() (bool, string) { return k.feed.current() != nil, "" })
}

// waitFor polls until done says so.
func waitFor(t testing.TB, what string, done func() (ok bool, state string)) {
	t.Helper()
	waitForUpTo(t, 15*time.Second, what, done)
}

func waitForUpTo(t testing.TB, limit time.Duration, what string, done func() (ok bool, state string)) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		ok, state := done()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s; last seen: %s", limit, what, state)
		}
		time.Sleep(2 * time.Millisecond) // between two looks, not for something
	}
}

// player plays dispatcher and worker: it appends what they would.
type player struct {
	t       testing.TB
	nc      *nats.Conn
	log     *runlog.Log
	records *records
}

func newPlayer(t testing.TB, b *jstest.Broker) *player {
	t.Helper()
	js, err := jsutil.JetStream(b.NC)
	if err != nil {
		t.Fatal(err)
	}
	return &player{t: t, nc: b.NC, log: runlog.New(js), records: &records{js: js}}
}

// next appends one event.
func (p *player) next(at runlog.Head, runID string, d contracts.Draft) runlog.Head {
	p.t.Helper()
	head, err := p.log.Append(p.t.Context(), at, p.make(at, runID, d))
	if err != nil {
		p.t.Fatal(err)
	}
	return head
}

func (p *player) make(at runlog.Head, runID string, d contracts.Draft) contracts.Event {
	p.t.Helper()
	e, err := contracts.Next(at.Head, runID, d, time.Now())
	if err != nil {
		p.t.Fatal(err)
	}
	return e
}

func queued(s contracts.Submission) contracts.Draft {
	if s.AgentKey == "" {
		s.AgentKey = "echo"
	}
	return contracts.Draft{
		Type: contracts.TypeQueued, AgentKey: s.AgentKey, Priority: contracts.PriorityNormal, MaxAttempts: 3,
		Payload: contracts.Queued{Submission: s, SubmittedAt: time.Now().UTC()},
	}
}

func started(workerID, token string) contracts.Draft {
	return contracts.Draft{Type: contracts.TypeStarted, WorkerID: workerID, Payload: contracts.Started{AgentKey: "echo", LeaseToken: token}}
}

func delta(text string) contracts.Draft {
	return contracts.Draft{Type: contracts.TypeDelta, Payload: contracts.Delta{Text: text}}
}

func succeeded() contracts.Draft {
	return contracts.Draft{Type: contracts.TypeSucceeded, Payload: contracts.Succeeded{FinalOutput: json.RawMessage(`{"n":1}`)}}
}

// submit appends run.queued of a new run.
func (p *player) submit(s contracts.Submission) (runlog.Head, string) {
	p.t.Helper()
	id := cmp.Or(s.RunID, contracts.NewRunID())
	return p.next(runlog.Head{}, id, queued(s)), id
}

// short plays a whole short run and returns its id.
func (p *player) short(s contracts.Submission) string {
	p.t.Helper()
	head, id := p.submit(s)
	head = p.next(head, id, started("w-1", ""))
	p.next(head, id, succeeded())
	return id
}

// record waits until the run's record holds its log up to head, and returns it.
func (p *player) record(at runlog.Head) contracts.StatusRecord {
	p.t.Helper()
	var there stored
	waitFor(p.t, fmt.Sprintf("the record of run %s to reach seq %d", at.RunID, at.Seq), func() (bool, string) {
		var err error
		if there, err = p.records.get(p.t.Context(), at.RunID); err != nil {
			return false, err.Error()
		}
		return there.rec.LogSequence >= at.Sequence, fmt.Sprintf("seq %d", there.rec.Seq)
	})
	return there.rec
}

// check compares the stored record of a run with one folded from its log.
func (p *player) check(runID string) {
	p.t.Helper()
	var want contracts.StatusRecord
	for e, err := range p.log.Read(p.t.Context(), runID, 1) {
		if err != nil {
			p.t.Fatal(err)
		}
		if want, err = contracts.Project(want, e.Event, e.Sequence); err != nil {
			p.t.Fatal(err)
		}
	}
	there, err := p.records.get(p.t.Context(), runID)
	if err != nil {
		p.t.Fatal(err)
	}
	a, _ := contracts.Encode(want)
	b, _ := contracts.Encode(there.rec)
	if string(a) != string(b) {
		p.t.Errorf("run %s: record\n%s\nits log says\n%s", runID, b, a)
	}
}

// ask calls an endpoint of the API.
func ask[T any](t testing.TB, nc *nats.Conn, endpoint string, request any) (T, error) {
	t.Helper()
	var response T
	data, ok := request.([]byte)
	if !ok {
		var err error
		if data, err = contracts.Encode(request); err != nil {
			t.Fatal(err)
		}
	}
	m, err := nc.Request(contracts.APISubject(endpoint), data, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if code := m.Header.Get("Nats-Service-Error-Code"); code != "" {
		return response, errors.New(code + " " + m.Header.Get("Nats-Service-Error"))
	}
	if err := json.Unmarshal(m.Data, &response); err != nil {
		t.Fatalf("%s answered %q: %v", endpoint, m.Data, err)
	}
	return response, nil
}
