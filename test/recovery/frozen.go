package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/test/cluster"
)

// frozen stops workers that have slots to spare, for longer than their lease.
// Such a one still has a request standing at the queue, which may be handed
// the very run that is taken from it.
func frozen(ctx context.Context, s *stage, res *result) error {
	const workers, runs, atOnce = 12, 12, 4
	patience := 45 * time.Second // a lease, and half of one
	idle, err := s.startWorkers(ctx, names("idle", workers), "--agent", "count")
	if err != nil {
		return err
	}
	if err := cluster.Sleep(ctx, young); err != nil {
		return err
	}
	ids, err := s.submitAll(ctx, runs, runOf("count", `{"n": 130, "pause_ms": 500}`))
	if err != nil {
		return err
	}
	if err := cluster.WaitFor(ctx, time.Minute, "every run to have a checkpoint", func() bool {
		return s.seen.having(ids, func(h contracts.Head) bool { return h.Checkpoint != nil }) == runs
	}); err != nil {
		return err
	}
	stopped := map[string]bool{}
	var taken []string // runs that were held by those
	begun := time.Now()
	for _, id := range ids {
		holder := s.seen.head(id).WorkerID
		if !stopped[holder] && len(stopped) < atOnce {
			stopped[holder] = true
			if err := idle[holder].Signal(syscall.SIGSTOP); err != nil {
				return err
			}
		}
		if stopped[holder] {
			taken = append(taken, id)
		}
	}
	// Not an error: how many go on is the question.
	_ = cluster.WaitFor(ctx, patience, "the runs to go on elsewhere", func() bool {
		return s.seen.having(taken, func(h contracts.Head) bool { return h.Epoch > 1 }) == len(taken)
	})
	for id := range stopped {
		if err := idle[id].Signal(syscall.SIGCONT); err != nil {
			return err
		}
	}
	if err := s.awaitEnd(ctx, 3*time.Minute, ids); err != nil {
		return err
	}
	var after []time.Duration
	for _, id := range taken {
		e, ok := find(s.seen.events(id), is(contracts.TypeStarted, 2))
		if !ok {
			res.Faults = append(res.Faults, fmt.Sprintf("run %s never went on elsewhere", id))
			continue
		}
		after = append(after, e.At.Sub(begun))
	}
	res.times("stop of workers with slots to spare → run.started elsewhere", after, 0)
	return nil
}
