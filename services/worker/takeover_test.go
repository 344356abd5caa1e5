package worker

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// A holder that is stopped keeps its connection and says nothing. The patience
// with it must end before the asker's own time with the message does.
func TestMuteHolderUnderAShortLease(t *testing.T) {
	b := newBench(t)
	cfg := Config{Agents: []agent.Agent{{Key: "echo", Run: echo}}, Lease: time.Second, TakeoverGrace: 500 * time.Millisecond}
	_, stop := b.start(t, cfg)
	stop() // the queues are there, and no worker
	mute, err := b.NC.Subscribe(contracts.WorkerSubject("w-mute"), func(*nats.Msg) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mute.Unsubscribe(); err != nil {
			t.Error(err)
		}
	})
	id := b.submit(t, contracts.Submission{AgentKey: "echo"})
	head, err := b.runs.Last(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	e := mustNext(t, head.Head().Head, id, contracts.Draft{Type: contracts.TypeStarted, WorkerID: "w-mute"})
	if _, err := b.runs.Append(t.Context(), head.Head(), e); err != nil {
		t.Fatal(err)
	}
	b.start(t, cfg)
	wantTypes(t, b.waitForEnd(t, id), "run.queued run.started run.started run.succeeded")
}
