package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/test/cluster"
)

// rolling restarts all workers, one after another, while runs keep coming:
// SIGTERM, and when the process has ended a new one. First with default
// settings, under which short runs end within the drain; then with so short a
// drain that runs are given back in their midst.
func rolling(ctx context.Context, s *stage, o options, res *result) error {
	loads := []load{
		{name: "short runs", perSecond: 200, steps: 3, pause: 20, lasts: 20 * time.Second},
		{name: "cut short", perSecond: 40, steps: 10, pause: 50, lasts: 20 * time.Second, args: []string{"--drain-timeout-seconds", "0.1"}},
	}
	workers := 4
	if o.short {
		workers = 2
		for i := range loads {
			loads[i].perSecond, loads[i].lasts = 20, 3*time.Second
		}
	}
	for i, l := range loads {
		if err := s.roll(ctx, l, fmt.Sprintf("roll-%d", i+1), workers, res); err != nil {
			return err
		}
	}
	return nil
}

// load is what comes in meanwhile.
type load struct {
	name      string
	perSecond int
	steps     int // of each run
	pause     int // before each step, in ms
	lasts     time.Duration
	args      []string // of the workers
}

// roll restarts n workers under a load, and judges.
func (s *stage) roll(ctx context.Context, l load, prefix string, n int, res *result) error {
	args := append([]string{"--agent", "count"}, l.args...)
	old, err := s.startWorkers(ctx, names(prefix+"-old", n), args...)
	if err != nil {
		return err
	}
	type outcome struct {
		ids []string
		err error
	}
	loading, enough := context.WithCancel(ctx)
	defer enough()
	submitted := make(chan outcome, 1)
	go func() {
		ids, err := s.submitSteadily(ctx, loading, l)
		submitted <- outcome{ids, err}
	}()
	begun := time.Now()
	var drains []time.Duration
	fresh := names(prefix+"-new", n)
	current := map[string]*cluster.Process{}
	for i, id := range names(prefix+"-old", n) {
		if err := cluster.Sleep(ctx, time.Until(begun.Add(time.Duration(i+1)*l.lasts/time.Duration(n+2)))); err != nil {
			return err
		}
		told := time.Now()
		if err := old[id].Terminate(time.Minute); err != nil {
			return err
		}
		drains = append(drains, time.Since(told))
		started, err := s.startWorkers(ctx, fresh[i:i+1], args...)
		if err != nil {
			return err
		}
		current[fresh[i]] = started[fresh[i]]
	}
	if err := cluster.Sleep(ctx, time.Until(begun.Add(l.lasts))); err != nil {
		return err
	}
	enough()
	out := <-submitted
	if out.err != nil {
		return out.err
	}
	if err := s.awaitEnd(ctx, time.Minute, out.ids); err != nil {
		return err
	}
	s.judgeRolling(out.ids, l, drains, res)
	for _, p := range current {
		if err := p.Terminate(time.Minute); err != nil {
			return err
		}
	}
	return nil
}

// submitSteadily submits at the load's pace until loading ends.
func (s *stage) submitSteadily(ctx, loading context.Context, l load) ([]string, error) {
	var ids []string
	begun := time.Now()
	for {
		due := begun.Add(time.Duration(len(ids)) * time.Second / time.Duration(l.perSecond))
		if err := cluster.Sleep(loading, time.Until(due)); err != nil {
			if ctx.Err() == nil && errors.Is(err, context.Canceled) {
				err = nil // enough
			}
			return ids, err
		}
		id, err := s.client.Submit(ctx, runOf("count", fmt.Sprintf(`{"n": %d, "pause_ms": %d}`, l.steps, l.pause)))
		if err != nil {
			return ids, err
		}
		ids = append(ids, id)
	}
}

func (s *stage) judgeRolling(ids []string, l load, drains []time.Duration, res *result) {
	charged, again, requeued := 0, 0, 0
	var whole []time.Duration
	for _, id := range ids {
		events := s.seen.events(id)
		requeues := uint64(0)
		for _, e := range events {
			if e.Type == contracts.TypeRequeued {
				requeues++
			}
		}
		if requeues > 0 {
			requeued++
		}
		if h := s.seen.head(id); h.Attempt != 1 || h.Epoch != 1+requeues {
			charged++
			res.Faults = append(res.Faults, fmt.Sprintf("run %s: %d starts, %d of them after a drain, attempt %d", id, h.Epoch, requeues, h.Attempt))
		}
		if err := checkCount(events, l.steps); err != nil {
			again++
			res.Faults = append(res.Faults, fmt.Sprintf("run %s: %v", id, err))
		}
		whole = append(whole, events[len(events)-1].At.Sub(events[0].At))
	}
	name := l.name + ": "
	res.shown(name+"runs", float64(len(ids)))
	res.shown(name+"runs per second", float64(len(ids))/l.lasts.Seconds())
	res.exactly(name+"runs that succeeded", s.seen.succeeded(ids), len(ids))
	res.exactly(name+"runs with a finished step executed again", again, 0)
	res.exactly(name+"runs with an attempt charged", charged, 0)
	res.shown(name+"runs given back by a drain", float64(requeued))
	res.times(name+"run.queued → end", whole, 0)
	res.times(name+"SIGTERM → the worker is gone", drains, 0)
}
