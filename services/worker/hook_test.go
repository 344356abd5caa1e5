package worker

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// The run of an agent that obeys has not ended while its Cancel hook is at work.
func TestEndWaitsForTheHook(t *testing.T) {
	b := newBench(t)
	back := make(chan struct{})
	w, _ := b.start(t, Config{Agents: []agent.Agent{{
		Key: "obeys",
		Run: func(ctx context.Context, _ *agent.Run) (agent.Result, error) {
			defer close(back)
			<-ctx.Done()
			return agent.Result{}, ctx.Err()
		},
		Cancel: func(ctx context.Context, run *agent.Run) {
			<-back
			for range 50 {
				if head, err := b.runs.LastFromLeader(ctx, run.ID); err != nil || head.Status != contracts.StatusCancelling {
					t.Errorf("while the hook is at work the run is %s, %v", head.Status, err)
					return
				}
			}
		},
	}}})
	id := b.submit(t, contracts.Submission{AgentKey: "obeys"})
	b.waitForEvent(t, id, contracts.TypeStarted)
	b.ask(t, w.ID(), contracts.HolderRequest{Op: contracts.HolderCancel, RunID: id})
	wantTypes(t, b.waitForEnd(t, id), "run.queued run.started run.cancel_requested run.cancelled")
}

// An agent that has returned before all that hangs on its context has heard of
// the end gets its Cancel hook as any other.
func TestHookOfAQuickAgent(t *testing.T) {
	b := newBench(t)
	var called atomic.Bool
	ready := make(chan []context.CancelFunc, 1)
	w, _ := b.start(t, Config{Agents: []agent.Agent{{
		Key: "quick",
		Run: func(ctx context.Context, _ *agent.Run) (agent.Result, error) {
			var children []context.CancelFunc
			for range 100_000 { // to end them takes some time, and comes behind the first word of it
				_, cancel := context.WithCancel(ctx)
				children = append(children, cancel)
			}
			ready <- children
			for ctx.Err() == nil {
				runtime.Gosched()
			}
			return agent.Result{}, ctx.Err()
		},
		Cancel: func(context.Context, *agent.Run) { called.Store(true) },
	}}})
	id := b.submit(t, contracts.Submission{AgentKey: "quick"})
	children := <-ready
	b.ask(t, w.ID(), contracts.HolderRequest{Op: contracts.HolderCancel, RunID: id})
	wantTypes(t, b.waitForEnd(t, id), "run.queued run.started run.cancel_requested run.cancelled")
	if !called.Load() {
		t.Error("the hook was not called")
	}
	for _, cancel := range children {
		cancel()
	}
}
