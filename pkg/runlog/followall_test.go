package runlog

import (
	"context"
	"errors"
	"iter"
	"sync"
	"testing"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

// followAll starts to follow and returns once it does: events appended from
// then on come out of next.
func followAll(t testing.TB, l *Log, agentKey string) (next func() (Entry, error), stop func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	pull, end := iter.Pull2(l.FollowAll(ctx, agentKey))
	type result struct {
		e   Entry
		err error
	}
	results, done := make(chan result), make(chan struct{})
	go func() {
		defer close(done)
		defer end()
		for {
			e, err, ok := pull()
			if !ok {
				return
			}
			select {
			case results <- result{e, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	waitFor(t, "the subscription", func() bool { return l.nc.NumSubscriptions() > 1 })
	return func() (Entry, error) {
			t.Helper()
			select {
			case r := <-results:
				return r.e, r.err
			case <-ctx.Done():
				t.Fatal("waited for an event of any run")
				return Entry{}, nil
			}
		}, func() {
			cancel()
			<-done
		}
}

func TestFollowAll(t *testing.T) {
	b := jstest.Start(t)
	l := newLog(t, b)
	old := newRun(l).mustStart(t)
	next, stop := followAll(t, newLog(t, b), "")
	defer stop()
	r := newRun(l).mustStart(t)
	old.mustDelta(t, 1)
	if _, err := b.JS.Publish(t.Context(), contracts.LogSubject(contracts.NewRunID()), []byte(`{"run_id":7}`)); err != nil {
		t.Fatal(err)
	}
	r.mustDelta(t, 1)
	for i, want := range []struct {
		id  string
		seq uint64
		err error
	}{{id: r.id, seq: 1}, {id: r.id, seq: 2}, {id: old.id, seq: 3}, {err: ErrMalformed}, {id: r.id, seq: 3}} {
		if e, err := next(); !errors.Is(err, want.err) || e.RunID != want.id || e.Seq != want.seq {
			t.Errorf("%d: got event %d of run %s, %v, want %+v", i, e.Seq, e.RunID, err, want)
		}
	}
}

func TestFollowAllOfAgent(t *testing.T) {
	b := jstest.Start(t)
	l := newLog(t, b)
	next, stop := followAll(t, newLog(t, b), "count")
	defer stop()
	newRun(l).mustStart(t)
	r := newRun(l)
	e := r.event(t, contracts.TypeQueued)
	e.AgentKey = "count"
	head, err := l.Append(t.Context(), Head{}, e)
	if err != nil {
		t.Fatal(err)
	}
	r.head = head
	newRun(l).mustStart(t)
	r.mustAppend(t, contracts.TypeStarted)
	for seq := range uint64(2) {
		if e, err := next(); err != nil || e.RunID != r.id || e.Seq != seq+1 {
			t.Errorf("got event %d of run %s, %v", e.Seq, e.RunID, err)
		}
	}
}

// Many runs at once, a receiver with next to no room, and broker restarts:
// every event of every run, each run's in order.
func TestFollowAllMissesNothing(t *testing.T) {
	b := jstest.StartFile(t)
	reader := newLog(t, b)
	reader.all.messages = 16
	next, stop := followAll(t, reader, "")
	defer stop()
	const runs, deltas, rounds = 10, 20, 3
	all := map[string]*run{}
	l := newLog(t, b)
	for range runs {
		r := newRun(l)
		all[r.id] = r
	}
	seen := map[string]uint64{}
	for round := range rounds {
		var wg sync.WaitGroup
		for _, r := range all {
			wg.Go(func() {
				if round == 0 {
					r.mustStart(t)
				}
				r.mustDelta(t, deltas)
			})
		}
		if round == 1 {
			b.Restart(t)
		}
		wg.Wait()
		for got := 0; got < runs*deltas/2; got++ { // the reader falls behind
			e, err := next()
			if err != nil {
				t.Fatal(err)
			}
			if seen[e.RunID]++; seen[e.RunID] != e.Seq {
				t.Fatalf("event %d of run %s where %d was due", e.Seq, e.RunID, seen[e.RunID])
			}
		}
	}
	for left := runs*(2+deltas*rounds) - rounds*runs*deltas/2; left > 0; left-- {
		e, err := next()
		if err != nil {
			t.Fatal(err)
		}
		if seen[e.RunID]++; seen[e.RunID] != e.Seq {
			t.Fatalf("event %d of run %s where %d was due", e.Seq, e.RunID, seen[e.RunID])
		}
	}
	for id, r := range all {
		if seen[id] != r.head.Seq {
			t.Errorf("%d of %d events of run %s", seen[id], r.head.Seq, id)
		}
	}
}

func TestFollowAllWithoutTopology(t *testing.T) {
	b := jstest.Start(t)
	l := newLog(t, b)
	if err := b.JS.DeleteStream(t.Context(), contracts.StreamLog); err != nil {
		t.Fatal(err)
	}
	for _, err := range l.FollowAll(t.Context(), "") {
		if !errors.Is(err, jsutil.ErrNoTopology) {
			t.Error(err)
		}
	}
}
