package worker

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// resumes returns the beginning of what it was resumed from.
func resumes() agent.Agent {
	return agent.Agent{Key: "resumes", Run: func(_ context.Context, run *agent.Run) (agent.Result, error) {
		return agent.Result{FinalOutput: string(run.RawState()[:min(64, len(run.RawState()))])}, nil
	}}
}

// atCheckpoint are the events up to a checkpoint whose holder has died, or has
// given the run back to be tried again.
func atCheckpoint(ref contracts.CheckpointRef, dead bool) []contracts.Draft {
	then := []contracts.Draft{
		{Type: contracts.TypeStarted, WorkerID: "w-dead"},
		{Type: contracts.TypeCheckpoint, Checkpoint: &ref},
	}
	if !dead {
		then = append(then, contracts.Draft{Type: contracts.TypeRetrying, NotBefore: time.Now()})
	}
	return then
}

// A checkpoint that somebody has deleted cannot be resumed from, today or
// tomorrow: the run ends, and says how it can be begun anew.
func TestCheckpointGoneFromUnder(t *testing.T) {
	b := newBench(t)
	b.start(t, Config{TakeoverGrace: 10 * time.Millisecond, Agents: []agent.Agent{resumes()}})
	other, err := b.JS.Publish(t.Context(), contracts.KVSubject(contracts.BucketRuns, "status.other"), []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		dead     bool
		revision uint64
		want     string
	}{
		"retried":                {false, 1000, "run.queued run.started state.checkpoint run.retrying run.failed"},
		"taken over":             {true, 1000, "run.queued run.started state.checkpoint run.failed"},
		"another's in its place": {true, other.Sequence, "run.queued run.started state.checkpoint run.failed"},
	} {
		t.Run(name, func(t *testing.T) {
			id := b.submit(t, contracts.Submission{AgentKey: "resumes"}, atCheckpoint(contracts.CheckpointRef{N: 1, Epoch: 1, Revision: c.revision}, c.dead)...)
			all := b.waitForEnd(t, id)
			wantTypes(t, all, c.want)
			p := payload[contracts.Failed](t, last(all))
			if p.Type != contracts.ErrorTypeCheckpointLost || p.Retriable || p.Attempts != 1 || !strings.Contains(p.Message, "`longhaul redrive "+id+" --from-start`") {
				t.Errorf("run.failed is %+v", p)
			}
			b.waitForNoWork(t)
		})
	}
}

// A bucket that is not there, which the services put right, is no lost checkpoint.
func TestCheckpointOutOfReach(t *testing.T) {
	b := newBench(t)
	cfg := Config{TakeoverGrace: 10 * time.Millisecond, Agents: []agent.Agent{resumes()}}
	_, stop := b.start(t, cfg)
	b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "resumes"})) // the worker is through with the topology
	if err := b.JS.DeleteKeyValue(t.Context(), contracts.BucketRuns); err != nil {
		t.Fatal(err)
	}
	id := b.submit(t, contracts.Submission{AgentKey: "resumes"}, atCheckpoint(contracts.CheckpointRef{N: 1, Epoch: 1, Revision: 1}, true)...)
	waitFor(t, "the message to be given back", func() bool {
		c, err := b.JS.Consumer(t.Context(), contracts.StreamWork, contracts.WorkConsumer("resumes", contracts.PriorityNormal))
		return err == nil && c.CachedInfo().NumRedelivered > 0
	})
	if head, err := b.runs.LastFromLeader(t.Context(), id); err != nil || head.Status != contracts.StatusRunning {
		t.Fatalf("the run is %s, %v", head.Status, err)
	}
	stop() // or it looks while the bucket is there and the state is not
	if err := jsutil.EnsureTopology(t.Context(), b.JS, b.Topology()); err != nil {
		t.Fatal(err)
	}
	state := []byte(`"` + strings.Repeat("x", 1<<20-(4<<10)-2) + `"`) // as large as one may be
	if ack, err := b.JS.Publish(t.Context(), contracts.KVSubject(contracts.BucketRuns, contracts.CheckpointKey(id, 1, 1)), state); err != nil || ack.Sequence != 1 {
		t.Fatal(ack, err)
	}
	b.start(t, cfg)
	all := b.waitForEnd(t, id)
	wantTypes(t, all, "run.queued run.started state.checkpoint run.started run.succeeded")
	if p := payload[contracts.Succeeded](t, last(all)); string(p.FinalOutput) != strconv.Quote(string(state[:64])) {
		t.Errorf("resumed from %.80s", p.FinalOutput)
	}
}
