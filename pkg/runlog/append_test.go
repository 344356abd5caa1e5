package runlog

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

func TestAppendAndHead(t *testing.T) {
	b := jstest.Start(t)
	l := newLog(t, b)
	r := newRun(l)
	for name, last := range map[string]func(context.Context, string) (Entry, error){
		"Last": l.Last, "LastFromLeader": l.LastFromLeader, "First": l.First,
	} {
		if _, err := last(t.Context(), r.id); !errors.Is(err, jsutil.ErrNotFound) {
			t.Errorf("%s of an empty log: %v", name, err)
		}
		if _, err := last(t.Context(), "no-id"); err == nil {
			t.Errorf("%s takes any id", name)
		}
	}
	r.mustStart(t)
	newRun(l).mustStart(t)
	r.mustDelta(t, 1)

	for name, last := range map[string]func(context.Context, string) (Entry, error){"Last": l.Last, "LastFromLeader": l.LastFromLeader} {
		e, err := last(t.Context(), r.id)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if e.Head() != r.head || e.Sequence == 0 || e.Type != contracts.TypeDelta {
			t.Errorf("%s is %+v, want %+v", name, e.Head(), r.head)
		}
	}
	first, err := l.First(t.Context(), r.id)
	if err != nil || first.Type != contracts.TypeQueued || first.Sequence != 1 {
		t.Errorf("First is %+v, %v", first, err)
	}
}

func TestAppendConflict(t *testing.T) {
	b := jstest.Start(t)
	r := newRun(newLog(t, b)).mustStart(t)
	stale := *r
	r.mustDelta(t, 2)
	if _, err := stale.log.Append(t.Context(), stale.head, stale.event(t, contracts.TypeDelta)); !errors.Is(err, jsutil.ErrConflict) {
		t.Errorf("append on an old head: %v", err)
	}
	empty := run{log: r.log, id: r.id}
	if _, err := r.log.Append(t.Context(), Head{}, empty.event(t, contracts.TypeQueued)); !errors.Is(err, jsutil.ErrConflict) {
		t.Errorf("append as if the log were empty: %v", err)
	}
	ahead := r.head
	ahead.Sequence += 1000
	if _, err := r.log.Append(t.Context(), ahead, r.event(t, contracts.TypeDelta)); !errors.Is(err, jsutil.ErrConflict) {
		t.Errorf("append on a head that never was: %v", err)
	}
	checkInOrder(t, mustRead(t, r.log, r.id, 1), 1, 4)
}

func TestAppendRefusesBeforeSending(t *testing.T) {
	b := jstest.Start(t)
	r := newRun(newLog(t, b)).mustStart(t)
	good := r.event(t, contracts.TypeDelta)
	for name, change := range map[string]func(*Head, *contracts.Event){
		"seq":            func(_ *Head, e *contracts.Event) { e.Seq++ },
		"another run":    func(_ *Head, e *contracts.Event) { e.RunID = contracts.NewRunID() },
		"no sequence":    func(h *Head, _ *contracts.Event) { h.Sequence = 0 },
		"no run id":      func(h *Head, e *contracts.Event) { h.RunID, e.RunID = "", "" },
		"broken payload": func(_ *Head, e *contracts.Event) { e.Payload = json.RawMessage(`{`) },
	} {
		at, e := r.head, good
		change(&at, &e)
		if _, err := r.log.AppendAsync(at, e); err == nil || errors.Is(err, jsutil.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	e := good
	e.Payload = json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`)
	if _, err := r.log.AppendAsync(r.head, e); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "1048576") {
		t.Errorf("an event over max_payload: %v", err)
	}
	checkInOrder(t, mustRead(t, r.log, r.id, 1), 1, 2)
}

// The largest event that AppendAsync lets through is stored and comes back in
// every way of reading: the headers that the broker adds need no room.
func TestLargestEvent(t *testing.T) {
	b := jstest.Start(t)
	r := newRun(newLog(t, b)).mustStart(t)
	e := r.event(t, contracts.TypeDelta)
	e.Payload = json.RawMessage(`""`)
	small, err := contracts.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	e.Payload = json.RawMessage(`"` + strings.Repeat("x", 1<<20-headerRoom-len(small)) + `"`)
	next, stop := follow(t, r.log, r.id, FollowOptions{From: 3})
	defer stop()
	if r.head, err = r.log.Append(t.Context(), r.head, e); err != nil {
		t.Fatal(err)
	}
	if got := next(); len(got.Payload) != len(e.Payload) {
		t.Errorf("the follower got %d of %d bytes", len(got.Payload), len(e.Payload))
	}
	checkInOrder(t, mustRead(t, r.log, r.id, 1), 1, 3)
	if _, err := r.log.LastFromLeader(t.Context(), r.id); err != nil {
		t.Error(err)
	}
}

// Many appenders, each on its own connection, race along one log: each seq
// falls to exactly one of them, and who is told of a conflict is not in the log.
func TestAppendersRace(t *testing.T) {
	b := jstest.Start(t)
	start := newRun(newLog(t, b)).mustStart(t)
	const appenders, rounds = 8, 40
	var wg sync.WaitGroup
	var won, lost atomic.Int64
	for range appenders {
		r := run{log: newLog(t, b), id: start.id, head: start.head}
		wg.Go(func() {
			for range rounds {
				head, err := r.log.Append(t.Context(), r.head, r.event(t, contracts.TypeDelta))
				switch {
				case err == nil:
					won.Add(1)
					r.head = head
				case errors.Is(err, jsutil.ErrConflict):
					lost.Add(1)
					e, err := r.log.LastFromLeader(t.Context(), r.id)
					if err != nil {
						t.Error(err)
						return
					}
					r.head = e.Head()
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d appended, %d refused", won.Load(), lost.Load())
	if lost.Load() == 0 {
		t.Error("no race took place")
	}
	checkInOrder(t, mustRead(t, start.log, start.id, 1), 1, 2+uint64(won.Load()))
}

func TestAppendAsyncInFlight(t *testing.T) {
	b := jstest.Start(t)
	l := newLog(t, b)
	type flight struct {
		r *run
		p *Pending
	}
	var flights []flight
	for range 500 {
		r := newRun(l)
		p, err := l.AppendAsync(Head{}, r.event(t, contracts.TypeQueued))
		if err != nil {
			t.Fatal(err)
		}
		flights = append(flights, flight{r, p})
	}
	for _, f := range flights {
		head, err := f.p.Wait(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		last, err := l.Last(t.Context(), f.r.id)
		if err != nil || last.Head() != head {
			t.Fatalf("head %+v, log has %+v, %v", head, last.Head(), err)
		}
		if e, err := contracts.DecodeEvent(f.p.Data()); err != nil || e.RunID != f.r.id {
			t.Fatalf("Data is %s, %v", f.p.Data(), err)
		}
	}
}

func TestAppendEndsWithContext(t *testing.T) {
	b := jstest.StartFile(t)
	r := newRun(newLog(t, b)).mustStart(t)
	e := r.event(t, contracts.TypeDelta)
	b.Stop(t)
	ctx, cancel := context.WithCancel(t.Context())
	p, err := r.log.AppendAsync(r.head, e)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err = p.Wait(ctx); !errors.Is(err, jsutil.ErrUnavailable) || !strings.Contains(err.Error(), "outcome unknown") {
		t.Errorf("the context ended during an outage: %v", err)
	}
}

// An append begun while the broker is away is stored once it is back.
func TestAppendOverRestart(t *testing.T) {
	b := jstest.StartFile(t)
	r := newRun(newLog(t, b)).mustStart(t)
	e := r.event(t, contracts.TypeDelta)
	b.Stop(t)
	waitFor(t, "the client to see the broker gone", func() bool { return !r.log.nc.IsConnected() })
	p, err := r.log.AppendAsync(r.head, e)
	if err != nil {
		t.Fatal(err)
	}
	b.Restart(t)
	if _, err := p.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkInOrder(t, mustRead(t, r.log, r.id, 1), 1, 3)
}
