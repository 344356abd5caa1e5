package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"longhaul/internal/bench"
	"longhaul/pkg/contracts"
	"longhaul/test/cluster"
)

// lookups is how many lists and gets are measured.
const lookups = 2000

// retained holds a system without a past against one that keeps many runs.
func retained(ctx context.Context, s *stage, o options, note noteFunc) error {
	n, many := o.scaled(20_000), o.scaled(1_000_000)
	endToEnd := func(name string) error {
		return s.ratio(ctx, o, note, name, n, func() (sample, error) { return s.hosted(ctx, 1, 64, n, bench.Job{}, smallJob) })
	}
	if err := endToEnd("0 kept: end to end"); err != nil {
		return err
	}
	broker := s.brokers[0]
	before, err := s.load.Count(ctx)
	if err != nil {
		return err
	}
	small, err := s.stopKeeper()
	if err != nil {
		return err
	}
	memory, disk, err := brokerSize(broker.PID(), s.dir)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := s.seed(ctx, many, true); err != nil {
		return err
	}
	note(thousands(float64(many))+" logs written in", time.Since(begun).Seconds(), "s")
	if err := s.startKeeper(ctx, before, many, thousands(float64(many))+" runs: statekeeper, begun behind, has all statuses after", note); err != nil {
		return err
	}
	if err := s.load.Quiet(ctx); err != nil {
		return err
	}
	moreMemory, moreDisk, err := brokerSize(broker.PID(), s.dir)
	if err != nil {
		return err
	}
	note("broker's memory for each run kept", (moreMemory-memory)/float64(many), "B")
	note("broker's disk for each run kept", (moreDisk-disk)/float64(many), "B")
	if _, err := s.stopKeeper(); err != nil {
		return err
	}
	if err := s.startKeeper(ctx, before, many, thousands(float64(many))+" runs: statekeeper, begun anew, lists all after", note); err != nil {
		return err
	}
	large, err := cluster.ResidentBytes(s.services[len(s.services)-1].PID())
	if err != nil {
		return err
	}
	note("statekeeper's memory for each run kept", (large-small)/float64(many), "B")
	if err := s.lookUp(ctx, note); err != nil {
		return err
	}
	if err := endToEnd(thousands(float64(many)) + " kept: end to end"); err != nil {
		return err
	}
	if err := s.restartBroker(ctx, note); err != nil {
		return err
	}
	// Without what its caches held of the writing.
	lean, err := cluster.ResidentBytes(s.brokers[0].PID())
	note("broker's memory for each run kept, started again", (lean-memory)/float64(many), "B")
	return err
}

func brokerSize(pid int, dir string) (memory, disk float64, err error) {
	if memory, err = cluster.ResidentBytes(pid); err == nil {
		disk, err = cluster.DiskBytes(dir)
	}
	return memory, disk, err
}

// startKeeper starts a statekeeper, and notes when it knows all runs.
func (s *stage) startKeeper(ctx context.Context, before map[contracts.Status]int, many int, name string, note noteFunc) error {
	begun := time.Now()
	if err := s.startService("statekeeper"); err != nil {
		return err
	}
	err := cluster.WaitFor(ctx, roundTime, "statekeeper to know all runs", func() bool {
		now, err := s.load.Count(ctx)
		return err == nil && now[contracts.StatusSucceeded] >= before[contracts.StatusSucceeded]+many
	})
	if err != nil {
		return s.logs(err)
	}
	note(name, time.Since(begun).Seconds(), "s")
	return nil
}

// lookUp measures lists and gets, one at a time.
func (s *stage) lookUp(ctx context.Context, note noteFunc) error {
	lists, gets := bench.NewLatencies(), bench.NewLatencies()
	var cursor string
	for i := range lookups {
		begun := time.Now()
		page, err := s.watch.Client.List(ctx, contracts.ListRequest{Limit: 50, AgentKey: agentKey, Cursor: cursor})
		if err != nil {
			return err
		}
		lists.Record(time.Since(begun))
		if cursor = page.Cursor; i%100 == 99 {
			cursor = "" // the newest again: that is what people look at
		}
		id := page.Runs[rand.N(len(page.Runs))].RunID
		begun = time.Now()
		if _, err := s.watch.Client.Get(ctx, id); err != nil {
			return err
		}
		gets.Record(time.Since(begun))
	}
	for _, l := range []struct {
		name string
		of   *bench.Latencies
	}{{"list, a page of 50", lists}, {"get", gets}} {
		q := l.of.Quantiles()
		note(l.name+", p50", q.P50, "ms")
		note(l.name+", p99", q.P99, "ms")
	}
	return nil
}

// restartBroker stops the broker, as an operator does and by kill -9, and notes
// when a run's log can be read again.
func (s *stage) restartBroker(ctx context.Context, note noteFunc) error {
	page, err := s.load.Client.List(ctx, contracts.ListRequest{Limit: 1})
	if err != nil {
		return err
	}
	for _, how := range []struct {
		name   string
		signal syscall.Signal
	}{{"broker told to stop", syscall.SIGTERM}, {"broker killed", syscall.SIGKILL}} {
		old := s.brokers[0]
		begun := time.Now()
		if err := old.Signal(how.signal); err != nil {
			return err
		}
		_ = old.Wait() // its exit code says nothing here
		note(how.name+": gone after", time.Since(begun).Seconds(), "s")
		begun = time.Now()
		b, err := cluster.StartBroker(s.configs[0], s.dir)
		if err != nil {
			return err
		}
		s.brokers[0] = b
		err = cluster.WaitFor(ctx, 5*time.Minute, "the broker to read its streams", func() bool {
			quick, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, err := s.load.Client.Head(quick, page.Runs[0].RunID)
			return err == nil
		})
		if err != nil {
			return s.logs(err)
		}
		note(how.name+": started again and read after", time.Since(begun).Seconds(), "s")
	}
	return nil
}

// stopKeeper stops the statekeeper, and returns its memory.
func (s *stage) stopKeeper() (resident float64, err error) {
	i := slices.IndexFunc(s.services, func(p service) bool { return p.Name == "statekeeper" })
	keeper := s.services[i]
	resident, err = cluster.ResidentBytes(keeper.PID())
	s.services = slices.Delete(s.services, i, i+1)
	return resident, errors.Join(err, keeper.Terminate(stopTime))
}
