package statekeeper

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/runlog"
)

func TestSuspicion(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_700_000_000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	type ping struct {
		ms   int
		a    answer
		dead bool
	}
	for _, c := range []struct {
		name      string
		connected int // ms
		pings     []ping
	}{
		{"answers", -60_000, []ping{{0, alive, false}, {9000, alive, false}}},
		{"gone", -60_000, []ping{{0, alive, false}, {300, absent, false}, {1200, absent, false}, {1300, absent, true}, {1600, absent, true}}},
		{"gone and back", -60_000, []ping{{0, absent, false}, {900, absent, false}, {950, alive, false}, {1200, absent, false}, {2100, absent, false}, {2200, absent, true}}},
		{"mute for as long", -60_000, []ping{{0, mute, false}, {1500, mute, false}, {2900, mute, false}, {3000, mute, true}}},
		{"mute, then gone", -60_000, []ping{{0, mute, false}, {900, absent, false}, {1500, absent, false}, {1900, absent, true}}},
		{"gone, then mute", -60_000, []ping{{0, absent, false}, {900, mute, false}, {1900, absent, false}, {2800, absent, false}, {2900, absent, true}}},
		{"nothing is known", -60_000, []ping{{0, absent, false}, {900, unsure, false}, {1500, absent, false}, {2500, absent, true}}},
		{"young connection", 0, []ping{{10, absent, false}, {1100, absent, false}, {1900, absent, false}, {2000, absent, true}}},
		{"older connection", -2000, []ping{{10, absent, false}, {1010, absent, true}}},
		{"young connection, mute", 0, []ping{{10, mute, false}, {3100, mute, false}, {4000, mute, true}}},
	} {
		s := suspicion{grace: time.Second}
		for _, p := range c.pings {
			if got := s.observe(p.a, at(p.ms), at(c.connected)); got != p.dead {
				t.Errorf("%s: at %d ms dead = %v, want %v", c.name, p.ms, got, p.dead)
			}
		}
	}
	// The next look is due when it may be the last.
	d := suspicion{grace: time.Second}
	if due := d.due(at(0), at(-60_000)); !due.IsZero() {
		t.Errorf("a worker that answers is due at %s", due)
	}
	for _, c := range []struct {
		ms, connected, due int
		a                  answer
	}{
		{0, -60_000, 3000, mute}, {200, -60_000, 1200, absent}, {400, -60_000, 1200, absent},
		{600, -60_000, 3000, mute}, {2500, -60_000, 3000, absent}, {2600, 2500, 4500, absent},
	} {
		d.observe(c.a, at(c.ms), at(c.connected))
		if due := d.due(at(c.ms), at(c.connected)); !due.Equal(at(c.due)) {
			t.Errorf("at %d ms the worker is due %s later than at the start, want %d ms", c.ms, due.Sub(start), c.due)
		}
	}
	// A reconnect between two pings clears what was held against the worker.
	s := suspicion{grace: time.Second}
	s.observe(absent, at(0), at(-60_000))
	if s.observe(absent, at(1500), at(1400)) {
		t.Error("a silence from before the reconnect was counted")
	}
	s = suspicion{grace: time.Second}
	s.observe(absent, at(0), at(-60_000))
	if s.observe(absent, at(12_000), at(1000)) { // the watchdog itself was held up
		t.Error("a silence from before a reconnect of a while ago was counted")
	}
}

// TestLeavesWhatMovedOn: the index lags, the log is asked.
func TestLeavesWhatMovedOn(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	k := startKeeper(t, b, Config{})
	l := newLessee(t, b, "w-dead")
	head, id := l.hold()
	at := head
	release := func(want bool) {
		t.Helper()
		done, err := k.watchdog.releaseRun(t.Context(), l.id, heldRun{id, at.Sequence})
		if err != nil || done != want {
			t.Errorf("at %s of %s: given back %v, %v, want %v", head.Status, head.WorkerID, done, err, want)
		}
	}
	release(true)
	head = l.next(head, id, contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueShutdown}})
	release(false)
	head = l.next(head, id, started("w-other", "token"))
	release(false)
	head = l.next(head, id, succeeded())
	release(false)
}

// lessee plays a worker that holds runs: it has a connection and real leases.
type lessee struct {
	*player
	id    string
	nc    *nats.Conn
	js    jetstream.JetStream
	work  jetstream.Consumer
	sub   *nats.Subscription
	pings chan struct{}
}

func newLessee(t *testing.T, b *jstest.Broker, id string) *lessee {
	t.Helper()
	if err := jsutil.EnsureWorkConsumers(t.Context(), b.JS, "echo", 30*time.Second); err != nil {
		t.Fatal(err)
	}
	l := &lessee{player: newPlayer(t, b), id: id, nc: b.Connect(t), pings: make(chan struct{}, 1000)}
	var err error
	if l.js, err = jsutil.JetStream(l.nc); err != nil {
		t.Fatal(err)
	}
	if l.work, err = l.js.Consumer(t.Context(), contracts.StreamWork, contracts.WorkConsumer("echo", contracts.PriorityNormal)); err != nil {
		t.Fatal(err)
	}
	l.listen()
	return l
}

// listen answers pings.
func (l *lessee) listen() {
	l.t.Helper()
	var err error
	if l.sub, err = l.nc.Subscribe(contracts.WorkerSubject(l.id), func(m *nats.Msg) {
		select {
		case l.pings <- struct{}{}:
		default:
		}
		reply, _ := contracts.Encode(contracts.HolderReply{WorkerID: l.id})
		_ = m.Respond(reply)
	}); err != nil {
		l.t.Fatal(err)
	}
	if err := l.nc.Flush(); err != nil {
		l.t.Fatal(err)
	}
}

// pinged waits for one ping.
func (l *lessee) pinged() {
	l.t.Helper()
	select {
	case <-l.pings:
	case <-time.After(10 * time.Second):
		l.t.Fatalf("waited 10s for a ping of %s", l.id)
	}
}

// hold queues a run and takes it, as dispatcher and worker do.
func (l *lessee) hold() (runlog.Head, string) {
	l.t.Helper()
	head, id := l.submit(contracts.Submission{})
	if _, err := l.js.Publish(l.t.Context(), contracts.WorkSubject("echo", contracts.PriorityNormal, id), []byte(id)); err != nil {
		l.t.Fatal(err)
	}
	return l.next(head, id, started(l.id, l.take(10*time.Second).Reply())), id
}

// take fetches one work message.
func (l *lessee) take(wait time.Duration) jetstream.Msg {
	l.t.Helper()
	m, err := l.fetch(wait)
	if err != nil {
		l.t.Fatal(err)
	}
	return m
}

func (l *lessee) fetch(wait time.Duration) (jetstream.Msg, error) {
	batch, err := l.work.Fetch(1, jetstream.FetchMaxWait(wait))
	if err != nil {
		return nil, err
	}
	for m := range batch.Messages() {
		return m, nil
	}
	return nil, errors.Join(errors.New("no work message came"), batch.Error())
}

// noWork says that no lease was given back.
func (l *lessee) noWork(wait time.Duration) {
	l.t.Helper()
	if m, err := l.fetch(wait); err == nil {
		l.t.Errorf("work message %s was delivered again", m.Data())
	}
}

// TestGivesLeasesBack: when a worker dies its runs go on within a second or so,
// those of another stay where they are.
func TestGivesLeasesBack(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	k := startKeeper(t, b, Config{})
	live, dead := newLessee(t, b, "w-live"), newLessee(t, b, "w-dead")
	k.ready(t)
	waitFor(t, "the connection to be known", func() (bool, string) {
		k.watchdog.mu.Lock()
		defer k.watchdog.mu.Unlock()
		return !k.watchdog.connected.IsZero(), ""
	})
	began := time.Now()
	live.hold()
	head, id := dead.hold()
	head = dead.next(head, id, delta("x"))
	k.record(t, dead, head)
	_, pending := dead.hold()
	for range 2 { // both are watched
		live.pinged()
		dead.pinged()
	}
	// The watchdog's connection is young: as old as a test can wait for.
	settle(t, k)
	if _, since := k.watchdog.connection(); since.After(began) {
		t.Error("the connection is said to be as old as the first ping")
	}
	began = time.Now()
	dead.nc.Close()
	got := map[string]bool{}
	for range 2 {
		got[string(live.take(10*time.Second).Data())] = true
	}
	took := time.Since(began)
	t.Logf("the leases came back after %s", took)
	if !got[id] || !got[pending] {
		t.Errorf("the runs %v came back, want %s and %s", got, id, pending)
	}
	if took < 900*time.Millisecond || took > 2500*time.Millisecond {
		t.Errorf("the leases came back after %s, want 1 to 1.2 s, and not more than 2.5 on a busy machine", took)
	}
	live.noWork(2 * time.Second) // once only, and none of the living one
	if n := k.Stats().Takeovers; n != 2 {
		t.Errorf("%d leases were given back, want 2", n)
	}
}

// settle waits until the first grace after connecting is over, of which
// nothing held against a worker counts.
func settle(t *testing.T, k *keeper) {
	t.Helper()
	waitFor(t, "the connection to be a second old", func() (bool, string) {
		_, since := k.watchdog.connection()
		return time.Since(since) > k.watchdog.grace, ""
	})
}

// record waits until the keeper's index knows who holds the run.
func (k *keeper) record(t *testing.T, l *lessee, at runlog.Head) {
	t.Helper()
	l.player.record(at)
	waitFor(t, "the index to know the holder", func() (bool, string) { return len(k.feed.current().heldBy(l.id)) > 0, "" })
}

// TestGraceIsKeptToTheMoment: a worker that is gone is looked at again when the
// grace is over, however far apart the pings are, and whoever else is mute.
func TestGraceIsKeptToTheMoment(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	k := startKeeper(t, b, Config{}, func(s *Statekeeper) { s.watchdog.interval = 900 * time.Millisecond })
	frozen, dead, other := newLessee(t, b, "w-frozen"), newLessee(t, b, "w-dead"), newLessee(t, b, "w-other")
	head, _ := frozen.hold()
	k.record(t, frozen, head)
	head, id := dead.hold()
	k.record(t, dead, head)
	settle(t, k)
	if err := frozen.sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	silent, err := frozen.nc.SubscribeSync(contracts.WorkerSubject(frozen.id))
	if err == nil {
		err = frozen.nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Unsubscribe() }()
	for len(dead.pings) > 0 {
		<-dead.pings
	}
	dead.pinged()
	pinged := time.Now()
	dead.nc.Close()
	if got := string(other.take(10 * time.Second).Data()); got != id {
		t.Fatalf("work message %s came back, want %s", got, id)
	}
	// Missed for the first time an interval after the ping, and for long enough a grace later.
	if took := time.Since(pinged); took < 1850*time.Millisecond || took > 2400*time.Millisecond {
		t.Errorf("the lease came back %s after the last ping that was answered, want 1.9 s", took)
	}
}

// TestWatchesByTheLastIndex: who held runs when the index was last fed is
// watched even if nothing feeds it any more.
func TestWatchesByTheLastIndex(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	k := startKeeper(t, b, Config{})
	l, other := newLessee(t, b, "w-dead"), newLessee(t, b, "w-other")
	head, id := l.hold()
	k.record(t, l, head)
	w := &watchdog{
		api: &api{folding: k.watchdog.folding, nc: k.nc, feed: &feed{}}, acting: k.watchdog.acting,
		interval: pingInterval, grace: takeoverGrace,
	}
	w.feed.loaded.Store(k.feed.current())
	moved, _ := l.hold() // and goes on elsewhere, which that index never learns
	k.record(t, l, moved)
	k.stop()
	moved = l.next(moved, moved.RunID, contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueShutdown}})
	l.next(moved, moved.RunID, started(other.id, "token"))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	l.pinged()
	l.nc.Close()
	if got := string(other.take(10 * time.Second).Data()); got != id {
		t.Errorf("work message %s came back, want %s", got, id)
	}
	other.noWork(time.Second)
}

// TestFrozenWorker: one that is connected and does not answer gets more time.
func TestFrozenWorker(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	k := startKeeper(t, b, Config{}, func(s *Statekeeper) {
		s.watchdog.interval, s.watchdog.grace = 50*time.Millisecond, 300*time.Millisecond
	})
	frozen := newLessee(t, b, "w-frozen")
	head, _ := frozen.hold()
	k.record(t, frozen, head)
	frozen.pinged()
	settle(t, k)
	began := time.Now()
	if err := frozen.sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	silent, err := frozen.nc.SubscribeSync(contracts.WorkerSubject(frozen.id)) // hears, and says nothing
	if err == nil {
		err = frozen.nc.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Unsubscribe() }()
	frozen.take(10 * time.Second)
	if took := time.Since(began); took < 850*time.Millisecond {
		t.Errorf("the lease of a frozen worker came back after %s, want three times the grace at least", took)
	}
	frozen.take(10 * time.Second) // once more, for it was swallowed; the lease is longer
}

// TestNoStormAfterBrokerRestart: workers that are back within a second keep
// their runs.
func TestNoStormAfterBrokerRestart(t *testing.T) {
	t.Parallel()
	b := jstest.StartFile(t)
	k := startKeeper(t, b, Config{})
	l := newLessee(t, b, "w-1")
	for range 5 {
		head, _ := l.hold()
		k.record(t, l, head)
	}
	l.pinged()
	b.Stop(t)
	l.nc.Close() // it comes back on its own, later than the watchdog does
	b.Restart(t)
	waitFor(t, "the watchdog to be back", func() (bool, string) { return k.nc.IsConnected() && l.player.nc.IsConnected(), "" })
	back := time.Now()
	waitFor(t, "almost a second to pass", func() (bool, string) { return time.Since(back) > 900*time.Millisecond, "" })
	again := newLessee(t, b, "w-1")
	again.noWork(3 * time.Second)
	if n := k.Stats().Takeovers; n != 0 {
		t.Errorf("%d leases were given back after a broker restart", n)
	}
	if len(again.pings) == 0 {
		t.Error("the worker was not pinged after the restart")
	}
}

// TestWatchAfterFailover: an instance that has just taken over knows who holds
// what, even if nothing happens any more that would pin it.
func TestWatchAfterFailover(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	one := startKeeper(t, b, Config{})
	l, other := newLessee(t, b, "w-dead"), newLessee(t, b, "w-other")
	head, id := l.hold()
	one.record(t, l, head)
	two := startKeeper(t, b, Config{})
	two.ready(t)
	one.nc.Close() // both at once, as when a machine dies
	l.nc.Close()
	<-one.ended
	began := time.Now()
	if got := string(other.take(20 * time.Second).Data()); got != id {
		t.Errorf("work message %s came back, want %s", got, id)
	}
	t.Logf("the lease came back after %s", time.Since(began))
	waitFor(t, "one lease to be counted", func() (bool, string) {
		n := two.Stats().Takeovers
		return n == 1, fmt.Sprint(n)
	})
}

// TestManyLeases: thousands are given back one after the other, each once.
func TestManyLeases(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	k := startKeeper(t, b, Config{})
	l, other := newLessee(t, b, "w-dead"), newLessee(t, b, "w-other")
	const runs = 300
	var head runlog.Head
	for range runs {
		head, _ = l.hold()
	}
	l.player.record(head)
	waitFor(t, "the index to know all", func() (bool, string) {
		n := len(k.feed.current().heldBy(l.id))
		return n == runs, fmt.Sprint(n)
	})
	settle(t, k)
	l.nc.Close()
	for range runs {
		other.take(10 * time.Second)
	}
	other.noWork(1500 * time.Millisecond)
	if n := k.Stats().Takeovers; n != runs {
		t.Errorf("%d leases were given back, want %d", n, runs)
	}
}
