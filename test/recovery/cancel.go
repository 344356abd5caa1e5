package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/test/cluster"
)

// cancelling cancels runs while they are executed, one after another: first of
// an agent that waits, then of one that streams all the while.
func cancelling(ctx context.Context, s *stage, o options, res *result) error {
	tries, toContext, toEnd := o.tries, 50*time.Millisecond, 100*time.Millisecond
	if o.short {
		tries, toContext, toEnd = 5, time.Second, 2*time.Second
	}
	var n notes
	h, err := s.startHost(ctx, "obedient", 10, agent.Agent{Key: "obedient", Run: n.obey})
	if err != nil {
		return err
	}
	for _, kind := range []struct{ name, params string }{
		{"an agent that waits", `{}`}, {"an agent that streams", `{"stream": true}`},
	} {
		var context, end []time.Duration
		for range tries {
			toldAt, endedAt, err := s.cancelOne(ctx, &n, kind.params)
			if err != nil {
				return err
			}
			if endedAt > toEnd || toldAt > toContext {
				now := time.Now()
				res.note("%s: told after %s, ended after %s; the broker's slowest answer meanwhile took %s", kind.name, toldAt, endedAt,
					s.noise.slowest(now.Add(-endedAt), now).Round(time.Millisecond))
			}
			context, end = append(context, toldAt), append(end, endedAt)
		}
		res.times(kind.name+": cancel command → its context ended", context, toContext)
		res.times(kind.name+": cancel command → run.cancelled", end, toEnd)
	}
	return h.stop()
}

// notes are what agents in this process note of themselves.
type notes struct {
	mu    sync.Mutex
	begun map[string]int       // executions, by run
	told  map[string]time.Time // when the context ended, by run
}

func (n *notes) begin(runID string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.begun == nil {
		n.begun, n.told = map[string]int{}, map[string]time.Time{}
	}
	n.begun[runID]++
}

// executions counts those of the runs together, and the runs that began.
func (n *notes) executions(ids []string) (executions, runs int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, id := range ids {
		if n.begun[id] > 0 {
			runs++
		}
		executions += n.begun[id]
	}
	return executions, runs
}

// obey is an agent that does nothing, or streams, until its context ends.
func (n *notes) obey(ctx context.Context, run *agent.Run) (agent.Result, error) {
	var p struct {
		Stream bool `json:"stream"`
	}
	if err := run.Params(&p); err != nil {
		return agent.Result{}, err
	}
	n.begin(run.ID)
	stop := context.AfterFunc(ctx, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.told[run.ID] = time.Now()
	})
	defer stop()
	for p.Stream && ctx.Err() == nil {
		if err := run.Delta("word "); err != nil {
			return agent.Result{}, err
		}
		_ = cluster.Sleep(ctx, time.Millisecond)
	}
	<-ctx.Done()
	return agent.Result{}, context.Cause(ctx)
}

// cancelOne has a run executed for a moment, cancels it, and returns when its
// agent was told and when its end was seen, since the command.
func (s *stage) cancelOne(ctx context.Context, n *notes, params string) (told, ended time.Duration, err error) {
	id, err := s.client.Submit(ctx, runOf("obedient", params))
	if err != nil {
		return 0, 0, err
	}
	if err := cluster.WaitFor(ctx, upTime, "the run to be executed", func() bool {
		_, begun := n.executions([]string{id})
		return begun == 1
	}); err != nil {
		return 0, 0, err
	}
	if err := cluster.Sleep(ctx, 50*time.Millisecond); err != nil {
		return 0, 0, err
	}
	commanded := time.Now()
	if err := s.client.Cancel(ctx, id, contracts.CancelCommand{By: "recovery"}); err != nil {
		return 0, 0, err
	}
	if err := s.awaitEnd(ctx, time.Minute, []string{id}); err != nil {
		return 0, 0, err
	}
	if got := s.seen.head(id).Status; got != contracts.StatusCancelled {
		return 0, 0, fmt.Errorf("run %s ended as %s", id, got)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	events := s.seen.events(id)
	return n.told[id].Sub(commanded), events[len(events)-1].At.Sub(commanded), nil
}
