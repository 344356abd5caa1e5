package main

import (
	"context"
	"fmt"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// outage kills the broker while runs execute, and starts it again after a
// while: at the same address, on the same files. The workers' runs must go on
// as if nothing had been, none executed twice.
func outage(ctx context.Context, s *stage, o options, res *result) error {
	hosts, slots, steps := 4, 25, 40
	away := []time.Duration{200 * time.Millisecond, 2 * time.Second, 8 * time.Second}
	if o.short {
		hosts, slots, steps, away = 2, 10, 20, []time.Duration{time.Second}
	}
	var n notes
	work := agent.Agent{Key: "steady", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		n.begin(run.ID)
		return steady(ctx, run, steps)
	}}
	var all []*host
	for _, id := range names("host", hosts) {
		h, err := s.startHost(ctx, id, slots, work)
		if err != nil {
			return err
		}
		all = append(all, h)
	}
	for _, d := range away {
		if err := s.breakBroker(ctx, d, &n, hosts*slots, steps, res); err != nil {
			return err
		}
	}
	for _, h := range all {
		if err := h.stop(); err != nil {
			return err
		}
	}
	return nil
}

// steady takes its steps, each with an event and a checkpoint.
func steady(ctx context.Context, run *agent.Run, steps int) (agent.Result, error) {
	var at struct {
		I int `json:"i"`
	}
	if _, err := run.State(&at); err != nil {
		return agent.Result{}, err
	}
	for at.I < steps {
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return agent.Result{}, err
		}
		at.I++
		if err := run.Delta(fmt.Sprintf("%d of %d\n", at.I, steps)); err != nil {
			return agent.Result{}, err
		}
		if err := run.Checkpoint(ctx, at); err != nil {
			return agent.Result{}, err
		}
	}
	return agent.Result{FinalOutput: at.I}, nil
}

// breakBroker has runs executed, kills the broker in their midst, starts it
// again after the given time, and waits for the runs' end.
func (s *stage) breakBroker(ctx context.Context, away time.Duration, n *notes, runs, steps int, res *result) error {
	ids, err := s.submitAll(ctx, runs, runOf("steady", "{}"))
	if err != nil {
		return err
	}
	if err := waitFor(ctx, upTime, "every run to be executed", func() bool {
		_, begun := n.executions(ids)
		return begun == runs
	}); err != nil {
		return err
	}
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	port, err := s.port()
	if err != nil {
		return err
	}
	killed := time.Now()
	if err := s.broker.kill(); err != nil {
		return err
	}
	if err := sleep(ctx, away); err != nil {
		return err
	}
	begun := time.Now()
	if err := s.startBroker(port); err != nil {
		return fmt.Errorf("start the broker again: %w", err)
	}
	up := time.Now()
	if err := s.awaitEnd(ctx, 2*time.Minute, ids); err != nil {
		return err
	}
	var again []time.Duration
	for _, id := range ids {
		events := s.seen.events(id)
		if e, ok := find(events, func(e seen) bool { return e.At.After(up) }); ok {
			again = append(again, e.At.Sub(up))
		}
		if h := s.seen.head(id); h.Epoch != 1 || h.Attempt != 1 || h.Status != contracts.StatusSucceeded {
			res.Faults = append(res.Faults, fmt.Sprintf("run %s is %s after %d starts, attempt %d", id, h.Status, h.Epoch, h.Attempt))
		}
		if err := checkCount(events, steps); err != nil {
			res.Faults = append(res.Faults, fmt.Sprintf("run %s: %v", id, err))
		}
	}
	executions, _ := n.executions(ids)
	name := fmt.Sprintf("broker away %.1f s: ", begun.Sub(killed).Seconds())
	res.exactly(name+fmt.Sprintf("executions of %d runs", runs), executions, runs)
	res.exactly(name+"runs that succeeded", s.seen.succeeded(ids), runs)
	res.times(name+"ready → a run's next event seen", again, 0)
	return nil
}
