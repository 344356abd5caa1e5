package runlog

import (
	"context"
	"errors"
	"iter"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

// follow returns a pull form of Follow: next fails the test on an error, and
// when nothing comes in time.
func follow(t testing.TB, l *Log, runID string, o FollowOptions) (next func() Entry, stop func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	pull, end := iter.Pull2(l.Follow(ctx, runID, o))
	return func() Entry {
			t.Helper()
			e, err, ok := pull()
			if err != nil || !ok {
				t.Fatalf("Follow ended or failed: %v", err)
			}
			return e
		}, func() {
			end()
			cancel()
		}
}

// mustFollow follows until the end.
func mustFollow(t testing.TB, l *Log, runID string, from uint64, each func(Entry)) []Entry {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	var got []Entry
	for e, err := range l.Follow(ctx, runID, FollowOptions{From: from, UntilEnd: true}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
		if each != nil {
			each(e)
		}
	}
	return got
}

func TestFollowHistoryThenLive(t *testing.T) {
	b := jstest.Start(t)
	consumers := func() int {
		stream, err := b.JS.Stream(t.Context(), contracts.StreamLog)
		if err != nil {
			t.Fatal(err)
		}
		return stream.CachedInfo().State.Consumers
	}
	before := consumers() // the topology's own
	r := newRun(newLog(t, b)).mustStart(t).mustDelta(t, 300)
	next, stop := follow(t, newLog(t, b), r.id, FollowOptions{})
	defer stop()
	var got []Entry
	for range 302 {
		got = append(got, next())
	}
	for range 100 {
		r.mustDelta(t, 1)
		got = append(got, next())
	}
	checkInOrder(t, got, 1, 402)
	if n := consumers() - before; n != 0 {
		t.Errorf("a follower costs the broker %d consumers", n)
	}
}

func TestFollowEmptyLog(t *testing.T) {
	b := jstest.Start(t)
	r := newRun(newLog(t, b))
	first := make(chan Entry)
	go func() {
		defer close(first)
		for e, err := range r.log.Follow(t.Context(), r.id, FollowOptions{}) {
			if err == nil {
				first <- e
			}
			return
		}
	}()
	waitFor(t, "the subscription", func() bool { return r.log.nc.NumSubscriptions() > 0 })
	r.mustAppend(t, contracts.TypeQueued)
	if e := <-first; e.Type != contracts.TypeQueued {
		t.Errorf("got %+v", e)
	}
}

// Events are appended while a follower goes from history to live, many times over.
func TestFollowWhileAppending(t *testing.T) {
	b := jstest.Start(t)
	r := newRun(newLog(t, b)).mustStart(t)
	reader := newLog(t, b)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.mustDelta(t, 1500).mustAppend(t, contracts.TypeSucceeded)
	}()
	defer func() { <-done }()
	for i := range 20 {
		from := uint64(1 + i*50)
		next, stop := follow(t, reader, r.id, FollowOptions{From: from})
		for seq := from; seq < from+50; seq++ {
			if e := next(); e.Seq != seq {
				t.Fatalf("event %d where %d was due", e.Seq, seq)
			}
		}
		stop()
	}
	checkInOrder(t, mustFollow(t, reader, r.id, 1, nil), 1, 1503)
}

func TestFollowUntilEnd(t *testing.T) {
	b := jstest.Start(t)
	r := newRun(newLog(t, b)).mustStart(t).mustAppend(t, contracts.TypeFailed)
	checkInOrder(t, mustFollow(t, r.log, r.id, 1, nil), 1, 3)
	if got := mustFollow(t, r.log, r.id, 100, nil); len(got) != 0 {
		t.Errorf("%d events after the end", len(got))
	}
	// A second round: the first one's end is passed.
	r.mustAppend(t, contracts.TypeRequeued, contracts.TypeStarted)
	got := mustFollow(t, newLog(t, b), r.id, 1, func(e Entry) {
		if e.Seq == 5 {
			r.mustAppend(t, contracts.TypeDelta, contracts.TypeSucceeded)
		}
	})
	checkInOrder(t, got, 1, 7)
	// The end arrives late: by then the run has been redriven.
	s := newRun(r.log).mustStart(t)
	got = mustFollow(t, newLog(t, b), s.id, 1, func(e Entry) {
		switch e.Seq {
		case 2:
			s.mustAppend(t, contracts.TypeFailed, contracts.TypeRequeued)
		case 4:
			s.mustAppend(t, contracts.TypeStarted, contracts.TypeSucceeded)
		}
	})
	checkInOrder(t, got, 1, 6)
}

// A receiver far slower than the run, with next to no room: nothing is lost,
// and what is kept for it stays within the limits.
func TestFollowSlowReader(t *testing.T) {
	b := jstest.Start(t)
	const n = 5000
	r := newRun(newLog(t, b)).mustStart(t)
	reader := newLog(t, b)
	reader.one.messages = 4
	next, stop := follow(t, reader, r.id, FollowOptions{})
	defer stop()
	got := []Entry{next(), next()}
	for len(got) < n {
		r.mustDelta(t, min(500, n-len(got))) // nobody reads meanwhile
		for range 250 {
			if uint64(len(got)) < r.head.Seq {
				got = append(got, next())
			}
		}
		for r.head.Seq >= n && uint64(len(got)) < r.head.Seq {
			got = append(got, next())
		}
	}
	checkInOrder(t, got, 1, r.head.Seq)
}

// The last live messages are dropped and nothing follows them.
func TestFollowLostTail(t *testing.T) {
	b := jstest.Start(t)
	r := newRun(newLog(t, b)).mustStart(t)
	reader := newLog(t, b)
	reader.one = limits{messages: 4, bytes: 10, first: 50 * time.Millisecond, check: 50 * time.Millisecond} // no event fits
	next, stop := follow(t, reader, r.id, FollowOptions{})
	defer stop()
	got := []Entry{next(), next()}
	for range 10 {
		r.mustDelta(t, 1)
		got = append(got, next())
	}
	checkInOrder(t, got, 1, 12)
}

func TestFollowOverRestart(t *testing.T) {
	b := jstest.StartFile(t)
	r := newRun(newLog(t, b)).mustStart(t)
	next, stop := follow(t, newLog(t, b), r.id, FollowOptions{})
	defer stop()
	got := []Entry{next(), next()}
	for range 3 {
		r.mustDelta(t, 5)
		got = append(got, next())
		b.Restart(t)
		r.mustDelta(t, 5)
		for uint64(len(got)) < r.head.Seq {
			got = append(got, next())
		}
	}
	checkInOrder(t, got, 1, r.head.Seq)
}

// After an outage the next live event may be seen before the reconnection is:
// it must wait for those that were missed.
func TestFollowGap(t *testing.T) {
	b := jstest.Start(t)
	r := newRun(newLog(t, b)).mustStart(t)
	p := newProxy(t, b.URL())
	reader := newLogOn(t, p.connect(t))
	next, stop := follow(t, reader, r.id, FollowOptions{})
	defer stop()
	got := []Entry{next(), next()}
	for range 10 { // the two are ready at once, and either may be taken first
		reconnects := reader.nc.Stats().Reconnects
		p.refuse(true)
		r.mustDelta(t, 2)
		p.refuse(false)
		waitFor(t, "the reader's connection", func() bool { return reader.nc.Stats().Reconnects > reconnects })
		if err := reader.nc.Flush(); err != nil { // the broker knows the subscription again
			t.Fatal(err)
		}
		in := reader.nc.Stats().InMsgs
		r.mustDelta(t, 1)
		waitFor(t, "the live event", func() bool { return reader.nc.Stats().InMsgs > in })
		for uint64(len(got)) < r.head.Seq {
			got = append(got, next())
		}
	}
	checkInOrder(t, got, 1, r.head.Seq)
}

// A terminal event is appended while the follower alone is cut off, and
// nothing comes after it.
func TestFollowEndMissedInOutage(t *testing.T) {
	b := jstest.Start(t)
	r := newRun(newLog(t, b)).mustStart(t)
	p := newProxy(t, b.URL())
	reader := newLogOn(t, p.connect(t))
	got := mustFollow(t, reader, r.id, 1, func(e Entry) {
		if e.Seq == 2 {
			p.refuse(true)
			r.mustDelta(t, 3).mustAppend(t, contracts.TypeSucceeded)
			p.refuse(false)
		}
	})
	checkInOrder(t, got, 1, 6)
}

func TestFollowDamagedLog(t *testing.T) {
	b := jstest.Start(t)
	r := newRun(newLog(t, b)).mustStart(t)
	reader := newLog(t, b)
	reader.one.first, reader.one.check = 50*time.Millisecond, 50*time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	pull, end := iter.Pull2(reader.Follow(ctx, r.id, FollowOptions{From: 2}))
	defer end()
	if e, err, _ := pull(); err != nil || e.Seq != 2 {
		t.Fatal(e, err)
	}
	ack, err := b.JS.Publish(t.Context(), contracts.LogSubject(r.id), []byte("no event"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err, _ := pull(); !errors.Is(err, ErrMalformed) {
		t.Fatalf("a stored text: %v", err)
	}
	// Whoever decides the run goes on after it.
	r.head.Sequence, r.head.Seq = ack.Sequence, 3
	r.mustDelta(t, 1)
	if e, err, _ := pull(); err != nil || e.Seq != 4 {
		t.Fatal(e, err)
	}
	stream, err := b.JS.Stream(t.Context(), contracts.StreamLog)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context(), jetstream.WithPurgeSubject(contracts.EventsSubject(r.id))); err != nil {
		t.Fatal(err)
	}
	if _, err, _ := pull(); !errors.Is(err, jsutil.ErrNotFound) {
		t.Fatalf("the log was removed: %v", err)
	}
}

func TestFollowEnds(t *testing.T) {
	b := jstest.Start(t)
	r := newRun(newLog(t, b)).mustStart(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	why := errors.New("why")
	var last error
	for e, err := range r.log.Follow(ctx, r.id, FollowOptions{}) {
		last = err
		if e.Seq == 2 {
			cancel(why)
		}
	}
	if !errors.Is(last, why) {
		t.Errorf("ended with %v", last)
	}
	nc := b.Connect(t)
	closing := newLogOn(t, nc)
	for e, err := range closing.Follow(t.Context(), r.id, FollowOptions{}) {
		last = err
		if e.Seq == 2 {
			nc.Close()
		}
	}
	if !errors.Is(last, jsutil.ErrUnavailable) {
		t.Errorf("ended with %v after the connection was closed", last)
	}
	for _, err := range r.log.Follow(t.Context(), "*", FollowOptions{}) {
		if err == nil {
			t.Error("follows a wildcard")
		}
	}
}
