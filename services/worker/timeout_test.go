package worker

import (
	"testing"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// TestStartTimeout hands out runs that were to begin earlier: one is given up, one
// has been redriven since.
func TestStartTimeout(t *testing.T) {
	b := newBench(t)
	a := agent.Agent{Key: "echo", Run: echo}
	_, stop := b.start(t, Config{Agents: []agent.Agent{a}})
	stop() // the queues are there, and no worker
	s := contracts.Submission{AgentKey: "echo", TimeoutSeconds: 5, StartTimeoutSeconds: 0.001}
	late := b.submit(t, s)
	redriven := b.submit(t, s)
	head, err := b.runs.Last(t.Context(), redriven)
	if err != nil {
		t.Fatal(err)
	}
	at := head.Head()
	for _, d := range []contracts.Draft{
		{Type: contracts.TypeTimedOut, Payload: contracts.TimedOut{TimeoutSeconds: 5, StartTimeoutSeconds: 0.001}},
		{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueRedrive}},
	} {
		if at, err = b.runs.Append(t.Context(), at, mustNext(t, at.Head, redriven, d)); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "the time to be over", func() bool { return time.Since(head.Time) > 2*time.Millisecond })
	b.start(t, Config{Agents: []agent.Agent{a}})
	all := b.waitForEnd(t, late)
	wantTypes(t, all, "run.queued run.timed_out")
	if p := payload[contracts.TimedOut](t, last(all)); p.TimeoutSeconds != 5 || p.StartTimeoutSeconds != 0.001 {
		t.Errorf("payload is %+v", p)
	}
	b.waitForNoWork(t)
	wantTypes(t, b.waitForEnd(t, redriven), "run.queued run.timed_out run.requeued run.started run.succeeded")
}
