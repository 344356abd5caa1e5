package worker

import (
	"context"
	"testing"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

func TestStats(t *testing.T) {
	b := newBench(t)
	release, begun := make(chan struct{}), make(chan struct{}, 1)
	w, _ := b.start(t, Config{Concurrency: 3, Agents: []agent.Agent{
		{Key: "deaf", Run: func(context.Context, *agent.Run) (agent.Result, error) {
			begun <- struct{}{}
			<-release
			return agent.Result{}, nil
		}},
		{Key: "echo", Run: echo},
	}})
	wait := func(what string, want Stats) {
		t.Helper()
		waitFor(t, what, func() bool { return w.Stats() == want })
	}
	b.submit(t, contracts.Submission{AgentKey: "deaf", TimeoutSeconds: 0.2})
	<-begun
	wait("an agent to run", Stats{Executing: 1})
	wait("it to be abandoned", Stats{Abandoned: 1, AbandonedTotal: 1})
	b.submit(t, contracts.Submission{AgentKey: "deaf", TimeoutSeconds: 60})
	<-begun
	for _, a := range w.attempts() {
		a.loseLease()
		a.loseLease()
	}
	wait("the second to be fenced", Stats{Abandoned: 2, AbandonedTotal: 2, Fenced: 1})
	close(release)
	wait("both to return", Stats{AbandonedTotal: 2, Fenced: 1})

	id := b.submit(t, contracts.Submission{AgentKey: "echo"}, contracts.Draft{Type: contracts.TypeStarted, WorkerID: "w-dead"})
	wantTypes(t, b.waitForEnd(t, id), "run.queued run.started run.started run.succeeded")
	wait("a takeover", Stats{AbandonedTotal: 2, Takeovers: 1, Fenced: 1})
}
