package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/test/cluster"
)

// outage kills the broker while runs execute, and starts it again after a
// while: at the same address, on the same files. The workers' runs must go on
// as if nothing had been, none executed twice.
func outage(ctx context.Context, s *stage, o options, res *result) error {
	// Twice as many slots as runs: whoever has none free is handed nothing, and
	// would have nothing to leave alone.
	hosts, runs, steps := 4, 100, 40
	breaks := []outageKind{{away: 200 * time.Millisecond}, {away: 2 * time.Second}, {away: 8 * time.Second}, {away: 2 * time.Second, mistake: true}}
	if o.short {
		hosts, runs, steps, breaks = 2, 20, 20, []outageKind{{away: time.Second, mistake: true}}
	}
	var n notes
	work := agent.Agent{Key: "steady", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		n.begin(run.ID)
		return steady(ctx, run, steps)
	}}
	var all []*host
	for _, id := range names("host", hosts) {
		h, err := s.startHost(ctx, id, 2*runs/hosts, work)
		if err != nil {
			return err
		}
		all = append(all, h)
	}
	for _, k := range breaks {
		if err := s.breakBroker(ctx, k, &n, runs, steps, res); err != nil {
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

// outageKind is one way to lose a broker for a while.
type outageKind struct {
	away time.Duration
	// mistake gives back every lease as soon as the broker answers, as a
	// watchdog would that took all workers for dead: each run is handed to
	// somebody, perhaps before its holder is back.
	mistake bool
}

// stepPause is before each step of steady.
const stepPause = 200 * time.Millisecond

// steady takes its steps, each with an event and a checkpoint.
func steady(ctx context.Context, run *agent.Run, steps int) (agent.Result, error) {
	var at struct {
		I int `json:"i"`
	}
	if _, err := run.State(&at); err != nil {
		return agent.Result{}, err
	}
	for at.I < steps {
		if err := cluster.Sleep(ctx, stepPause); err != nil {
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
func (s *stage) breakBroker(ctx context.Context, k outageKind, n *notes, runs, steps int, res *result) error {
	ids, err := s.submitAll(ctx, runs, runOf("steady", "{}"))
	if err != nil {
		return err
	}
	if err := cluster.WaitFor(ctx, upTime, "every run to be executed", func() bool {
		_, begun := n.executions(ids)
		return begun == runs && s.seen.having(ids, func(h contracts.Head) bool { return h.Epoch == 1 }) == runs
	}); err != nil {
		return err
	}
	// No pause: what the broker has delivered a moment ago it forgets.
	killed := time.Now()
	if err := s.broker.Kill(); err != nil {
		return err
	}
	if err := cluster.Sleep(ctx, k.away); err != nil {
		return err
	}
	begun := time.Now()
	if err := s.startBroker(); err != nil {
		return fmt.Errorf("start the broker again: %w", err)
	}
	up := time.Now()
	if k.mistake {
		if err := s.giveBack(ctx, ids); err != nil {
			return err
		}
	}
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
	if k.mistake {
		name = fmt.Sprintf("broker away %.1f s, then all leases given back: ", begun.Sub(killed).Seconds())
	}
	res.exactly(name+fmt.Sprintf("executions of %d runs", runs), executions, runs)
	res.exactly(name+"runs that succeeded", s.seen.succeeded(ids), runs)
	res.times(name+"ready → a run's next event seen", again, 0)
	return nil
}

// giveBack gives the leases of the runs back, as soon as the broker answers.
func (s *stage) giveBack(ctx context.Context, ids []string) error {
	if err := jsutil.WaitConnected(ctx, s.nc); err != nil {
		return err
	}
	for _, id := range ids {
		e, ok := find(s.seen.events(id), is(contracts.TypeStarted, 1))
		var p contracts.Started
		if !ok {
			return fmt.Errorf("the start of run %s was not seen", id)
		}
		if err := json.Unmarshal(e.Payload, &p); err != nil {
			return fmt.Errorf("read the start of run %s: %w", id, err)
		}
		if err := jsutil.ReleaseToken(s.nc, p.LeaseToken); err != nil {
			return fmt.Errorf("give back the lease of run %s: %w", id, err)
		}
	}
	return nil
}
