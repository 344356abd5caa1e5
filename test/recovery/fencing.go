package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/test/cluster"
)

// fencing stops a worker (SIGSTOP) that executes many runs, for longer than its
// lease, while others take them over, and lets it wake up (SIGCONT) in their
// midst. It believes to hold them all, and must not get a single event in.
func fencing(ctx context.Context, s *stage, o options, res *result) error {
	runs, asleep, steps, pause := o.tries, 35*time.Second, 130, 500
	var args []string
	if o.short {
		runs, asleep, steps, pause = 5, 9*time.Second, 70, 100
		args = []string{"--lease-ttl-seconds", "5"}
	}
	args = append(args, "--agent", "count", "--concurrency", fmt.Sprint(runs))
	sleepers, err := s.startWorkers(ctx, []string{"sleeper"}, args...)
	if err != nil {
		return err
	}
	sleeper := sleepers["sleeper"]
	ids, err := s.submitAll(ctx, runs, runOf("count", fmt.Sprintf(`{"n": %d, "pause_ms": %d}`, steps, pause)))
	if err != nil {
		return err
	}
	if err := cluster.WaitFor(ctx, time.Minute, "every run to have a checkpoint", func() bool {
		return s.seen.having(ids, func(h contracts.Head) bool { return h.Checkpoint != nil }) == runs
	}); err != nil {
		return err
	}
	if _, err := s.startWorkers(ctx, names("awake", 2), args...); err != nil {
		return err
	}
	stopped := time.Now()
	if err := sleeper.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	if err := cluster.Sleep(ctx, asleep); err != nil {
		return err
	}
	elsewhere := s.seen.having(ids, func(h contracts.Head) bool { return h.Epoch == 2 && h.Status == contracts.StatusRunning })
	woken := time.Now()
	if err := sleeper.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	if err := s.awaitEnd(ctx, 3*time.Minute, ids); err != nil {
		return err
	}
	if err := s.judgeFencing(ids, steps, stopped, woken, elsewhere, res); err != nil || o.short {
		return err
	}
	for _, p := range s.others[2:] { // after the dispatcher and the statekeeper
		if err := p.Terminate(time.Minute); err != nil {
			return err
		}
	}
	return frozen(ctx, s, res)
}

func (s *stage) judgeFencing(ids []string, steps int, stopped, woken time.Time, elsewhere int, res *result) error {
	var after []time.Duration
	stale, again := 0, 0
	for _, id := range ids {
		events := s.seen.events(id)
		if e, ok := find(events, is(contracts.TypeStarted, 2)); ok {
			after = append(after, e.At.Sub(stopped))
		}
		epoch, old := uint64(0), false
		for _, e := range events {
			if e.Type == contracts.TypeStarted {
				epoch = max(epoch, e.Epoch)
				if e.At.After(woken) {
					again++
				}
			}
			old = old || e.Epoch < epoch
		}
		if old {
			stale++
		}
		if err := checkCount(events, steps); err != nil {
			res.Faults = append(res.Faults, fmt.Sprintf("run %s: %v", id, err))
		}
	}
	log, err := os.ReadFile(s.process("sleeper").Log)
	if err != nil {
		return err
	}
	res.exactly("runs taken over while their worker was stopped", elsewhere, len(ids))
	res.exactly("runs with an event of the old epoch after the new one began", stale, 0)
	res.exactly("runs that succeeded", s.seen.succeeded(ids), len(ids))
	res.exactly("attempts that the woken worker gave up by itself", bytes.Count(log, []byte("lease lost, nothing more is written")), len(ids))
	res.exactly("runs started once more after the awakening", again, 0)
	res.times("stop → run.started elsewhere", after, 0)
	return nil
}

// process finds a process by its name.
func (s *stage) process(name string) *cluster.Process {
	for _, p := range s.others {
		if p.Name == name {
			return p
		}
	}
	panic("recovery: no process " + name)
}
