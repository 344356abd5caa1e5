package statekeeper

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/runlog"
)

// stream plays runs until stop is closed, and returns their heads.
func (p *player) stream(stop <-chan struct{}, players int) func() map[string]runlog.Head {
	var mu sync.Mutex
	heads := make(map[string]runlog.Head)
	var playing sync.WaitGroup
	for range players {
		playing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				head, id := p.submit(contracts.Submission{})
				head = p.next(head, id, started("w-1", ""))
				for range 3 {
					head = p.next(head, id, delta("x"))
				}
				if id[35] < '8' { // half of them go on
					head = p.next(head, id, succeeded())
				}
				mu.Lock()
				heads[id] = head
				mu.Unlock()
			}
		})
	}
	return func() map[string]runlog.Head { playing.Wait(); return heads }
}

// active says which keeper the projection is pinned to.
func active(t *testing.T, keepers ...*keeper) *keeper {
	t.Helper()
	var found *keeper
	waitFor(t, "one instance to be pinned", func() (bool, string) {
		for _, k := range keepers {
			pinned, err := k.projector.pinned(t.Context())
			if err != nil {
				return false, err.Error()
			}
			if mine := k.projector.lastPin(); mine != "" && mine == pinned {
				found = k
			}
		}
		return found != nil, "nobody is"
	})
	return found
}

func TestStandbyTakesOver(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"stopped", "cut off"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			b := jstest.Start(t)
			one, two := startKeeper(t, b, Config{}), startKeeper(t, b, Config{})
			p := newPlayer(t, b)
			p.record(first(p.submit(contracts.Submission{})))
			was, other := active(t, one, two), one
			if was == one {
				other = two
			}
			if n := other.projector.counters.stats().Events; n != 0 {
				t.Errorf("the standby folded %d events", n)
			}
			stop := make(chan struct{})
			played := p.stream(stop, 4)
			waitFor(t, "the active one to work", func() (bool, string) {
				n := was.projector.counters.stats().Events
				return n > 100, fmt.Sprint(n)
			})
			began := time.Now()
			if how == "stopped" {
				was.stop()
			} else {
				was.nc.Close() // as if killed: it neither writes nor hands over
				<-was.ended
			}
			close(stop)
			heads := played()
			waitFor(t, "the standby to work", func() (bool, string) {
				head, id := p.submit(contracts.Submission{})
				heads[id] = head
				n := other.projector.counters.stats().Events
				return n > 0, fmt.Sprint(n)
			})
			t.Logf("the standby went on after %s", time.Since(began))
			limit := 2 * time.Second
			if how != "stopped" {
				limit = 6 * time.Second // the pin runs out in 3
			}
			if d := time.Since(began); d > limit {
				t.Errorf("the standby took %s to go on", d)
			}
			for id, head := range heads {
				p.record(head)
				p.check(id)
			}
			waitAcked(t, b, 1)
			t.Logf("%d runs, %d rebuilt", len(heads), other.projector.counters.stats().Rebuilt)
		})
	}
}

// TestIdleTakeover: what the dead instance had not written appears even if
// nothing happens any more.
func TestIdleTakeover(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	one := startKeeper(t, b, Config{}, withWindow(time.Second))
	p := newPlayer(t, b)
	head, id := p.submit(contracts.Submission{})
	waitFor(t, "the event to be folded", func() (bool, string) { return one.projector.counters.stats().Events == 1, "" })
	one.nc.Close()
	<-one.ended
	startKeeper(t, b, Config{})
	p.record(head)
	p.check(id)
	waitAcked(t, b, head.Sequence)
}

func TestBrokerRestart(t *testing.T) {
	t.Parallel()
	b := jstest.StartFile(t)
	k := startKeeper(t, b, Config{})
	p := newPlayer(t, b)
	stop := make(chan struct{})
	played := p.stream(stop, 2)
	waitFor(t, "some runs", func() (bool, string) { return k.projector.counters.stats().Events > 50, "" })
	close(stop)
	heads := played()
	head, id := p.submit(contracts.Submission{})
	b.Restart(t)
	waitFor(t, "the connection to be back", func() (bool, string) { return p.nc.IsConnected(), "" })
	began := time.Now()
	head = p.next(head, id, started("w-1", ""))
	heads[id] = p.next(head, id, succeeded())
	for id, head := range heads {
		p.record(head)
		p.check(id)
	}
	t.Logf("records were whole %s after the reconnect", time.Since(began))
	waitAcked(t, b, head.Sequence)
	waitFor(t, "the index to follow", func() (bool, string) {
		s := k.feed.current().stats()
		return s.Total == len(heads) && s.ByStatus[contracts.StatusPending] == 0, fmt.Sprint(s)
	})
	before := k.feed.current()
	b.Restart(t) // at rest this time: nothing can have been half written
	waitFor(t, "the connection to be back", func() (bool, string) { return p.nc.IsConnected(), "" })
	p.short(contracts.Submission{})
	waitFor(t, "the index to follow", func() (bool, string) {
		s := k.feed.current().stats()
		return s.Total == len(heads)+1, fmt.Sprint(s)
	})
	if k.feed.current() != before {
		t.Error("the index was built anew, though the bucket is the same")
	}
}

// TestBrokerComesBackEmpty: a broker in memory forgets everything; the service
// makes the topology and the index anew.
func TestBrokerComesBackEmpty(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	k := startKeeper(t, b, Config{})
	p := newPlayer(t, b)
	for range 20 {
		p.short(contracts.Submission{})
	}
	waitAcked(t, b, 60)
	waitFor(t, "20 runs in the index", func() (bool, string) { return k.feed.current().stats().Total == 20, "" })
	b.Restart(t)
	waitFor(t, "the topology to be made anew", func() (bool, string) {
		_, err := b.JS.Consumer(t.Context(), contracts.StreamLog, contracts.ConsumerProjector)
		return err == nil, fmt.Sprint(err)
	})
	id := p.short(contracts.Submission{})
	waitFor(t, "the index to hold the one run there is", func() (bool, string) {
		s := k.feed.current().stats()
		return s.Total == 1 && s.ByStatus[contracts.StatusSucceeded] == 1, fmt.Sprint(s)
	})
	p.check(id)
}

// TestStartedBeforeTheTopology is also that of a start before the broker: nc
// may be connecting still when Run begins.
func TestStartedBeforeTheTopology(t *testing.T) {
	t.Parallel()
	b := jstest.StartEmpty(t)
	k := startKeeper(t, b, Config{})
	k.ready(t)
	p := newPlayer(t, b)
	p.check(p.record(first(p.submit(contracts.Submission{}))).RunID)
}

func TestStartedBeforeTheBroker(t *testing.T) {
	t.Parallel()
	b := jstest.StartFile(t)
	b.Stop(t)
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: b.URL(), Name: t.Name(), Retry: true, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	k := startKeeperOn(t, b, nc, Config{})
	b.Restart(t)
	k.ready(t)
	waitFor(t, "the player's connection", func() (bool, string) { return b.NC.IsConnected(), "" })
	p := newPlayer(t, b)
	p.check(p.record(first(p.submit(contracts.Submission{}))).RunID)
}

// TestStopsWhileTheBrokerIsDown: Run returns in a few seconds at most, and
// whoever starts next finds everything.
func TestStopsWhileTheBrokerIsDown(t *testing.T) {
	t.Parallel()
	b := jstest.StartFile(t)
	k := startKeeper(t, b, Config{}, withWindow(time.Second))
	k.ready(t)
	p := newPlayer(t, b)
	head, id := p.submit(contracts.Submission{})
	waitFor(t, "the event to be folded", func() (bool, string) { return k.projector.counters.stats().Events == 1, "" })
	b.Stop(t)
	began := time.Now()
	k.stop()
	if took := time.Since(began); took > 3*finishWait {
		t.Errorf("Run took %s to return", took)
	}
	b.Restart(t)
	waitFor(t, "the player's connection", func() (bool, string) { return b.NC.IsConnected(), "" })
	startKeeper(t, b, Config{})
	p.record(head)
	p.check(id)
}
