package runlog

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
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
	for name, catchUp := range map[string]func(*tail, uint64) error{
		"at once":     func(f *tail, until uint64) error { return f.catchUpFromLeader(t.Context(), until) },
		"after tries": func(f *tail, until uint64) error { return f.catchUp(t.Context(), until) },
	} {
		for _, beyond := range []uint64{0, 5} {
			var got []Entry
			f := tail{log: r.log, filter: contracts.EventsSubject(r.id), take: func(m stored) bool {
				e, err := decode(m)
				if err != nil {
					t.Error(err)
				}
				got = append(got, e)
				return true
			}}
			if err := catchUp(&f, r.head.Sequence+beyond); err != nil || f.at != r.head.Sequence {
				t.Errorf("%s: at %d of %d, %v", name, f.at, r.head.Sequence, err)
			}
			checkInOrder(t, got, 1, 5)
		}
	}
	f := tail{log: r.log, filter: contracts.EventsSubject(r.id), take: func(stored) bool { return false }}
	if err := f.catchUpFromLeader(t.Context(), r.head.Sequence); !errors.Is(err, errEnough) {
		t.Errorf("the receiver had enough: %v", err)
	}
}

func TestAPIPrefix(t *testing.T) {
	for want, open := range map[string]func(nc *nats.Conn) (jetstream.JetStream, error){
		"$JS.API.":     func(nc *nats.Conn) (jetstream.JetStream, error) { return jetstream.New(nc) },
		"$JS.hub.API.": func(nc *nats.Conn) (jetstream.JetStream, error) { return jetstream.NewWithDomain(nc, "hub") },
		"hub.js.":      func(nc *nats.Conn) (jetstream.JetStream, error) { return jetstream.NewWithAPIPrefix(nc, "hub.js") },
	} {
		js, err := open(&nats.Conn{})
		if err != nil {
			t.Fatal(err)
		}
		if got := New(js).api; got != want {
			t.Errorf("prefix %q, want %q", got, want)
		}
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
