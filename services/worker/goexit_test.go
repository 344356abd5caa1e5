package worker

import (
	"context"
	"runtime"
	"strings"
	"testing"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// An agent that ends its goroutine, as t.FailNow does, fails its attempt, and
// leaves neither its run nor its slot behind.
func TestAgentThatEndsItsGoroutine(t *testing.T) {
	b := newBench(t)
	begun, release := make(chan struct{}, 1), make(chan struct{})
	w, stop := b.start(t, Config{Concurrency: 1, Agents: []agent.Agent{
		{Key: "echo", Run: echo},
		{Key: "exits", Run: func(context.Context, *agent.Run) (agent.Result, error) {
			runtime.Goexit()
			return agent.Result{}, nil
		}},
		{Key: "deaf", Run: func(context.Context, *agent.Run) (agent.Result, error) {
			begun <- struct{}{}
			<-release
			runtime.Goexit()
			return agent.Result{}, nil
		}},
	}})
	all := b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "exits", MaxAttempts: 1}))
	wantTypes(t, all, "run.queued run.started run.failed")
	if p := payload[contracts.Failed](t, last(all)); p.Type != contracts.ErrorTypeAgent || !p.Retriable || !strings.Contains(p.Message, "runtime.Goexit") {
		t.Errorf("run.failed is %+v", p.ErrorInfo)
	}
	waitFor(t, "the run to be let go", func() bool { return w.Stats() == Stats{} })

	// One that was abandoned before.
	id := b.submit(t, contracts.Submission{AgentKey: "deaf", TimeoutSeconds: 0.2})
	<-begun
	waitFor(t, "the agent to be abandoned", func() bool { return w.Stats() == Stats{Abandoned: 1, AbandonedTotal: 1} })
	wantTypes(t, b.waitForEnd(t, id), "run.queued run.started run.timed_out")
	close(release)
	waitFor(t, "the agent to be back", func() bool { return w.Stats() == Stats{AbandonedTotal: 1} })

	wantTypes(t, b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "echo"})), "run.queued run.started run.succeeded") // in the only slot
	b.waitForNoWork(t)
	stop()
}
