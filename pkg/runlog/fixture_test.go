package runlog

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// waitLimit is how long a test waits for what must happen.
const waitLimit = 20 * time.Second

// newLog returns a Log on a connection of its own.
func newLog(t testing.TB, b *jstest.Broker) *Log { return newLogOn(t, b.Connect(t)) }

func newLogOn(t testing.TB, nc *nats.Conn) *Log {
	t.Helper()
	js, err := jsutil.JetStream(nc)
	if err != nil {
		t.Fatal(err)
	}
	l := New(js)
	for _, limits := range []*limits{&l.one, &l.all} {
		limits.first, limits.check = time.Hour, time.Hour // what must be found at once must not hide behind these
	}
	return l
}

// run is a run as its appender sees it.
type run struct {
	log  *Log
	id   string
	head Head
}

func newRun(l *Log) *run { return &run{log: l, id: contracts.NewRunID()} }

// event makes the next event of r.
func (r *run) event(t testing.TB, typ contracts.EventType) contracts.Event {
	t.Helper()
	d := contracts.Draft{Type: typ}
	switch typ {
	case contracts.TypeQueued:
		d.AgentKey, d.Priority, d.MaxAttempts = "echo", contracts.PriorityNormal, 3
	case contracts.TypeStarted:
		d.WorkerID = "w-1"
	case contracts.TypeDelta:
		d.Payload = json.RawMessage(`{"text":"some words of an answer"}`)
	}
	e, err := contracts.Next(r.head.Head, r.id, d, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// mustAppend appends events of the given types.
func (r *run) mustAppend(t testing.TB, types ...contracts.EventType) *run {
	t.Helper()
	for _, typ := range types {
		head, err := r.log.Append(t.Context(), r.head, r.event(t, typ))
		if err != nil {
			t.Fatal(err)
		}
		r.head = head
	}
	return r
}

// mustStart appends the events of a run under way.
func (r *run) mustStart(t testing.TB) *run {
	t.Helper()
	return r.mustAppend(t, contracts.TypeQueued, contracts.TypeStarted)
}

// mustDelta appends n deltas.
func (r *run) mustDelta(t testing.TB, n int) *run {
	t.Helper()
	for range n {
		r.mustAppend(t, contracts.TypeDelta)
	}
	return r
}

// checkInOrder is the invariant of everything that is read: seq from, from+1 … to.
func checkInOrder(t testing.TB, got []Entry, from, to uint64) {
	t.Helper()
	for i, e := range got {
		if e.Seq != from+uint64(i) || i > 0 && e.Sequence <= got[i-1].Sequence {
			t.Fatalf("entry %d is event %d at sequence %d, want event %d", i, e.Seq, e.Sequence, from+uint64(i))
		}
	}
	if uint64(len(got)) != to+1-from {
		t.Fatalf("got %d events, want %d to %d", len(got), from, to)
	}
}

// waitFor polls until ok.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for %s", waitLimit, what)
		}
		time.Sleep(time.Millisecond)
	}
}
