package runlog

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

// A replica that lags for long: the leader is asked, event by event. What even
// the leader does not have was removed, and does not hold the tail up.
func TestCatchUpFromLeader(t *testing.T) {
	b := jstest.Start(t)
	r := newRun(newLog(t, b)).mustStart(t)
	newRun(r.log).mustStart(t)
	r.mustDelta(t, 3)
	var got []Entry
	tailOf := func() *tail {
		got = nil
		return &tail{log: r.log, filter: contracts.EventsSubject(r.id), take: func(m jsutil.Stored) bool {
			e, err := decode(m)
			if err != nil {
				t.Error(err)
			}
			got = append(got, e)
			return true
		}}
	}
	for _, beyond := range []uint64{0, 5} {
		f := tailOf()
		if err := f.catchUp(t.Context(), r.head.Sequence+beyond); err != nil || f.at != r.head.Sequence {
			t.Errorf("at %d of %d, %v", f.at, r.head.Sequence, err)
		}
		checkInOrder(t, got, 1, 5)
	}
	f := tailOf()
	for f.at < r.head.Sequence {
		if err := f.nextFromLeader(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	checkInOrder(t, got, 1, 5)
	if err := f.nextFromLeader(t.Context()); !errors.Is(err, jsutil.ErrNotFound) {
		t.Errorf("past the end: %v", err)
	}
	f = tailOf()
	f.take = func(jsutil.Stored) bool { return false }
	if err := f.nextFromLeader(t.Context()); !errors.Is(err, errEnough) {
		t.Errorf("the receiver had enough: %v", err)
	}
}

// More appends than the publisher has places for are refused, not queued.
func TestAppendStalled(t *testing.T) {
	b := jstest.StartFile(t)
	js, err := jetstream.New(b.Connect(t), jetstream.WithPublishAsyncMaxPending(1))
	if err != nil {
		t.Fatal(err)
	}
	l := New(js)
	newRun(l).mustStart(t)
	b.Stop(t)
	waitFor(t, "the client to see the broker gone", func() bool { return !l.nc.IsConnected() })
	one, two := newRun(l), newRun(l)
	if _, err := l.AppendAsync(Head{}, one.event(t, contracts.TypeQueued)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.AppendAsync(Head{}, two.event(t, contracts.TypeQueued)); !errors.Is(err, jsutil.ErrUnavailable) {
		t.Errorf("no place left: %v", err)
	}
}
