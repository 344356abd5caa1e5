package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/internal/bench"
	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
	"longhaul/test/cluster"
)

const (
	// holdTime is longer than the trial: jobs are released.
	holdTime = 280 * time.Second
	// quietTime is how long waiting runs are watched, in steps of watchStep.
	quietTime, watchStep = 35 * time.Second, 200 * time.Millisecond
	// followConns is over how many connections followers spread: a gateway that
	// serves many readers has some.
	followConns = 20
)

// executing has one worker process execute many runs at once, which mostly
// wait, as those that ask a model do, and has them followed.
func executing(ctx context.Context, s *stage, o options, note noteFunc) error {
	n := o.scaled(10_000)
	if err := s.host(ctx, 1, n+10); err != nil { // some slots for runs that stream meanwhile
		return err
	}
	w := s.workers[0]
	idle, err := cluster.ResidentBytes(w.PID())
	if err != nil {
		return err
	}
	few, err := w.tell(ctx, order{Do: "stats"})
	if err != nil {
		return err
	}
	var ids []string
	s.load.Submits = func(id string) { ids = append(ids, id) }
	before, err := s.load.Count(ctx)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := s.load.Submit(ctx, n, bench.Job{HoldMS: holdTime.Milliseconds()}, smallJob); err != nil {
		return err
	}
	s.load.Submits = nil
	err = cluster.WaitFor(ctx, roundTime, "all runs to be executed", func() bool {
		now, err := s.load.Count(ctx)
		return err == nil && now[contracts.StatusRunning] >= n
	})
	if err != nil {
		return s.logs(err)
	}
	note(thousands(float64(n))+" runs are executed at once after", time.Since(begun).Seconds(), "s")
	if err := s.watchQuiet(ctx, note); err != nil {
		return err
	}
	busy, err := cluster.ResidentBytes(w.PID())
	if err != nil {
		return err
	}
	many, err := w.tell(ctx, order{Do: "stats"})
	if err != nil {
		return err
	}
	note("worker's memory for each", (busy-idle)/float64(n), "B")
	note("worker's goroutines for each", (many.Goroutines-few.Goroutines)/float64(n), "")
	alone, err := cluster.ResidentBytes(s.brokers[0].PID())
	if err != nil {
		return err
	}
	for _, followers := range []int{o.scaled(1_000), o.scaled(10_000)} {
		if err := s.followMany(ctx, ids[:min(followers, len(ids))], alone, note); err != nil {
			return err
		}
	}
	begun = time.Now()
	if _, err := w.tell(ctx, order{Do: "release"}); err != nil {
		return err
	}
	if err := s.load.Succeeded(ctx, before, n); err != nil {
		return s.logs(err)
	}
	note("released at once, all have ended after", time.Since(begun).Seconds(), "s")
	return nil
}

// watchQuiet notes what waiting runs cost, and whether all is done at once.
func (s *stage) watchQuiet(ctx context.Context, note noteFunc) error {
	pids := map[string]int{"worker": s.workers[0].PID(), "broker": s.brokers[0].PID()}
	first, last, most := map[string]time.Duration{}, map[string]time.Duration{}, map[string]time.Duration{}
	begun := time.Now()
	for time.Since(begun) < quietTime {
		for name, pid := range pids {
			now, err := cpuTime(pid)
			if err != nil {
				return err
			}
			if before, there := last[name]; there {
				most[name] = max(most[name], now-before)
			} else {
				first[name] = now
			}
			last[name] = now
		}
		if err := cluster.Sleep(ctx, watchStep); err != nil {
			return err
		}
	}
	took := time.Since(begun)
	for _, name := range []string{"worker", "broker"} {
		note(name+"'s processor while they wait", 100*(last[name]-first[name]).Seconds()/took.Seconds(), "% of one")
		note(fmt.Sprintf("%s's processor in its busiest %s", name, watchStep), 100*most[name].Seconds()/watchStep.Seconds(), "% of one")
	}
	return nil
}

// followMany follows runs, each by a follower of its own, and measures what
// they cost and how a delta fares beside them: one that one follower sees, and
// one that all of them see. The broker's memory without any is alone.
func (s *stage) followMany(ctx context.Context, ids []string, alone float64, note noteFunc) (err error) {
	clients, hangUp, err := s.followers()
	defer hangUp()
	if err != nil {
		return err
	}
	name := thousands(float64(len(ids))) + " followers"
	begun := time.Now()
	each, err := followAll(ctx, clients, ids, func(runlog.Entry) {})
	if err != nil {
		return errors.Join(err, each.stop())
	}
	note(name+", one of each run: all follow after", time.Since(begun).Seconds(), "s")
	found := latencies{}
	err = s.followedRun(ctx, deltas(500), found)
	q := found.of(toFollower).Quantiles()
	note(name+", one of each run: delta → follower of another run, p50", q.P50, "ms")
	note(name+", one of each run: delta → follower of another run, p99", q.P99, "ms")
	busy, err2 := cluster.ResidentBytes(s.brokers[0].PID())
	note(name+": broker's memory for each", (busy-alone)/float64(len(ids)), "B")
	if err = errors.Join(err, err2, each.stop()); err != nil {
		return err
	}
	return s.fanOut(ctx, clients, len(ids), name, note)
}

// fanOut has many followers of one run that writes deltas.
func (s *stage) fanOut(ctx context.Context, clients []*client.Client, n int, name string, note noteFunc) error {
	// It waits until all follow, and writes no faster than one process with that many can read.
	job := bench.Job{Deltas: 20, PauseMS: max(200, int64(n)/10), WaitMS: 1000 + 3*int64(n)}
	sub, err := bench.Submission(agentKey, job, smallJob)
	if err != nil {
		return err
	}
	sub.RunID = contracts.NewRunID()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = sub.RunID
	}
	seen := bench.NewLatencies()
	var mu sync.Mutex
	// What was written before a follower was there came from the log; nothing counts yet.
	live, ended, failed := time.Now().Add(time.Hour), 0, error(nil)
	if _, err := s.load.Client.Submit(ctx, sub); err != nil {
		return err
	}
	all, err := followAll(ctx, clients, ids, func(e runlog.Entry) {
		now := time.Now()
		mu.Lock()
		defer mu.Unlock()
		err := bench.RecordSince(live, seen, e, now)
		if failed == nil {
			failed = err
		}
		if e.Type.Terminal() {
			ended++
		}
	})
	if err != nil {
		return errors.Join(err, all.stop())
	}
	mu.Lock()
	live = time.Now()
	mu.Unlock()
	err = cluster.WaitFor(ctx, 2*time.Minute, "all followers to see the end", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return ended == n || failed != nil
	})
	if err = errors.Join(err, failed, all.stop()); err != nil {
		return err
	}
	q := seen.Quantiles()
	note(name+" of one run: delta → each of them, p50", q.P50, "ms")
	note(name+" of one run: delta → each of them, p99", q.P99, "ms")
	return nil
}

// followers connects the clients of followers.
func (s *stage) followers() (clients []*client.Client, hangUp func(), err error) {
	var conns []*nats.Conn
	hangUp = func() {
		for _, nc := range conns {
			nc.Close()
		}
	}
	for range followConns {
		nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: s.url, Name: "bench-follower"})
		if err != nil {
			return nil, hangUp, err
		}
		conns = append(conns, nc)
		c, err := client.New(nc)
		if err != nil {
			return nil, hangUp, err
		}
		clients = append(clients, c)
	}
	return clients, hangUp, nil
}

// following is followers under way.
type following struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	failed error
}

// followAll follows every id, and returns when each follower has seen an event.
func followAll(ctx context.Context, clients []*client.Client, ids []string, see func(runlog.Entry)) (*following, error) {
	f := &following{}
	ctx, f.cancel = context.WithCancel(ctx)
	there := make(chan struct{}, len(ids))
	for i, id := range ids {
		f.wg.Go(func() {
			first := true
			for e, err := range clients[i%len(clients)].Follow(ctx, id, runlog.FollowOptions{}) {
				if err != nil {
					f.mu.Lock()
					if f.failed == nil && ctx.Err() == nil {
						f.failed = fmt.Errorf("follow run %s: %w", id, err)
					}
					f.mu.Unlock()
					return
				}
				see(e)
				if first {
					there <- struct{}{}
					first = false
				}
			}
		})
	}
	for range ids {
		select {
		case <-there:
		case <-time.After(answerTime):
			return f, errors.New("followers have nothing to see")
		}
	}
	return f, nil
}

// stop ends all, and returns the first error.
func (f *following) stop() error {
	f.cancel()
	f.wg.Wait()
	return f.failed
}
