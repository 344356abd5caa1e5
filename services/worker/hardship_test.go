package worker

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/runlog"
)

// cancelByHand writes run.cancel_requested as a dispatcher does that cannot reach the holder.
func (b *bench) cancelByHand(t *testing.T, id string) {
	t.Helper()
	for { // a second writer may lose races against one that streams
		head, err := b.runs.LastFromLeader(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		e := mustNext(t, head.Head().Head, id, contracts.Draft{Type: contracts.TypeCancelRequested, Payload: contracts.CancelRequested{Reason: "from afar"}})
		if _, err = b.runs.Append(t.Context(), head.Head(), e); err == nil {
			return
		}
	}
}

// startByHand appends run.started in a worker's name.
func (b *bench) startByHand(t *testing.T, id, workerID string) runlog.Head {
	t.Helper()
	last, err := b.runs.LastFromLeader(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	at, err := b.runs.Append(t.Context(), last.Head(), mustNext(t, last.Head().Head, id, contracts.Draft{Type: contracts.TypeStarted, WorkerID: workerID}))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// An agent that ignores its context, and a cancel that the heartbeat finds.
func TestCancelFromAfarIsIgnored(t *testing.T) {
	b := newBench(t)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	b.start(t, Config{Lease: 3 * time.Second, HeartbeatInterval: 100 * time.Millisecond, Agents: []agent.Agent{{
		Key: "deaf", Run: func(context.Context, *agent.Run) (agent.Result, error) {
			<-release
			return agent.Result{}, nil
		},
	}}})
	id := b.submit(t, contracts.Submission{AgentKey: "deaf"})
	b.waitForEvent(t, id, contracts.TypeStarted)
	b.cancelByHand(t, id)
	wantTypes(t, b.waitForEnd(t, id), "run.queued run.started run.cancel_requested run.cancelled")
}

type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

type badJSON struct{}

func (badJSON) MarshalJSON() ([]byte, error) { panic("no JSON for you") }

// What an agent hands over may panic when it is looked at, or hang, or be no
// text: that is the run's trouble and nobody else's.
func TestPoisonedEndings(t *testing.T) {
	b := newBench(t)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	fails := func(err error) func(context.Context, *agent.Run) (agent.Result, error) {
		return func(context.Context, *agent.Run) (agent.Result, error) { return agent.Result{}, err }
	}
	returns := func(v any) func(context.Context, *agent.Run) (agent.Result, error) {
		return func(context.Context, *agent.Run) (agent.Result, error) { return agent.Result{FinalOutput: v}, nil }
	}
	notUTF8 := json.RawMessage("\"\xff\"")
	b.start(t, Config{Agents: []agent.Agent{
		{Key: "nil-error", Run: fails((*nilError)(nil))},
		{Key: "bad-json", Run: returns(badJSON{})},
		{Key: "no-text", Run: returns(notUTF8)},
		{Key: "no-text-details", Run: fails(errors.New("x")), OnError: func(context.Context, *agent.Run, error) *contracts.ErrorInfo {
			return &contracts.ErrorInfo{Type: "X", Details: notUTF8}
		}},
		{Key: "huge-type", Run: fails(errors.New("x")), OnError: func(context.Context, *agent.Run, error) *contracts.ErrorInfo {
			return &contracts.ErrorInfo{Type: string(make([]byte, 2<<20))}
		}},
		{Key: "no-number", Run: fails(errors.New("x")), OnError: func(context.Context, *agent.Run, error) *contracts.ErrorInfo {
			return &contracts.ErrorInfo{Type: "X", RetryAfterSeconds: math.NaN()}
		}},
		{Key: "no-text-state", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
			return agent.Result{}, run.Checkpoint(ctx, notUTF8)
		}},
		{Key: "no-text-event", Run: func(_ context.Context, run *agent.Run) (agent.Result, error) {
			return agent.Result{}, run.Emit("tick", notUTF8)
		}},
		{Key: "hook-hangs", Run: fails(errors.New("x")), OnError: func(context.Context, *agent.Run, error) *contracts.ErrorInfo {
			<-release
			return nil
		}},
	}})
	for _, key := range []string{"nil-error", "bad-json", "no-text", "no-text-details", "huge-type", "no-number", "no-text-state", "no-text-event", "hook-hangs"} {
		t.Run(key, func(t *testing.T) {
			all := b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: key, MaxAttempts: 1}))
			wantTypes(t, all, "run.queued run.started run.failed")
			t.Logf("%.200s", last(all).Payload)
		})
	}
}

// Nothing that an agent was told is queued gets lost because the client's
// buffer for an outage is full.
func TestOutageWithAFullBuffer(t *testing.T) {
	broker := jstest.StartFile(t)
	b := &bench{Broker: broker, runs: runlog.New(broker.JS)}
	begun, goOn := make(chan struct{}), make(chan struct{})
	w, _ := b.start(t, Config{Agents: []agent.Agent{{Key: "talk", Run: func(_ context.Context, run *agent.Run) (agent.Result, error) {
		close(begun)
		<-goOn
		return agent.Result{}, errors.Join(run.Emit("one", nil), run.Emit("two", nil))
	}}}})
	id := b.submit(t, contracts.Submission{AgentKey: "talk"})
	<-begun
	broker.Stop(t)
	waitFor(t, "the buffer to be full", func() bool {
		return errors.Is(w.nc.Publish("fill", make([]byte, 64<<10)), nats.ErrReconnectBufExceeded)
	})
	for w.nc.Publish("fill", make([]byte, 64)) == nil {
	}
	close(goOn)
	time.Sleep(300 * time.Millisecond)
	broker.Restart(t)
	wantTypes(t, b.waitForEnd(t, id), "run.queued run.started one two run.succeeded")
}

// The same message twice, and the first is still about to learn that its start
// is in the log: the second must not take that for a holder that is gone.
func TestHandedOverTwiceWhileStarting(t *testing.T) {
	b := newBench(t)
	w, err := New(b.Connect(t), Config{Agents: []agent.Agent{{Key: "echo", Run: echo}}, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.RunOnce(t.Context()); err != nil { // makes the queues
		t.Fatal(err)
	}
	for _, cancelling := range []bool{false, true} {
		id := b.submit(t, contracts.Submission{AgentKey: "echo", MaxAttempts: 1})
		d := mustFetch(t, w, "echo")
		if !w.beginStart(id, 1) {
			t.Fatal("not begun")
		}
		b.startByHand(t, id, w.ID())
		if cancelling {
			b.cancelByHand(t, id)
		}
		d.Delivered = 2
		w.take(d, func() {})
		if head, err := b.runs.LastFromLeader(t.Context(), id); err != nil || head.Status.Terminal() {
			t.Errorf("the run has ended under its start: %s, %v", head.Type, err)
		}
		w.endStart(id)
	}
}

// Very many runs without a broker: each must be given up in time all the same.
func TestBrokerGoneWithManyRuns(t *testing.T) {
	broker := jstest.StartFile(t)
	b := &bench{Broker: broker, runs: runlog.New(broker.JS)}
	const runs = 200
	var begun, ended sync.WaitGroup
	begun.Add(runs)
	ended.Add(runs)
	_, stop := b.start(t, Config{Lease: 3 * time.Second, Concurrency: runs, Agents: []agent.Agent{{Key: "long", Run: func(ctx context.Context, _ *agent.Run) (agent.Result, error) {
		begun.Done()
		<-ctx.Done()
		ended.Done()
		return agent.Result{}, nil
	}}}})
	for range runs {
		b.submit(t, contracts.Submission{AgentKey: "long"})
	}
	begun.Wait()
	broker.Stop(t)
	gone := time.Now()
	ended.Wait()
	if took := time.Since(gone); took > 4*time.Second { // one for a busy machine
		t.Errorf("the last agent stopped after %v, its lease was over after 3 s", took)
	}
	stop()
}

// A worker in another language may have left its name out.
func TestHolderWithoutAName(t *testing.T) {
	b := newBench(t)
	w, err := New(b.Connect(t), Config{Agents: []agent.Agent{{Key: "echo", Run: echo}}, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	holds, err := w.askHolder(t.Context(), runlog.Head{Head: contracts.Head{RunID: contracts.NewRunID(), Seq: 2, Position: contracts.Position{Status: contracts.StatusRunning, Epoch: 1}}})
	if holds || err != nil {
		t.Errorf("got %v, %v; nobody can be asked", holds, err)
	}
}

// An attempt that has lost its lease stores no state, not even an orphan: it
// might be written over one whose event has got into the log after all.
func TestCheckpointsAfterTheEnd(t *testing.T) {
	b := newBench(t)
	w, err := New(b.Connect(t), Config{Agents: []agent.Agent{{Key: "echo", Run: echo}}, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	id := b.submit(t, contracts.Submission{AgentKey: "echo"})
	writing, stopWriting := context.WithCancel(t.Context())
	a := &attempt{worker: w, writer: newWriter(writing, w.runs, b.startByHand(t, id, w.ID()))}
	a.writer.usage = func() agent.Usage { return agent.Usage{} }
	save := func(state string) error {
		return host{a}.Checkpoint(t.Context(), contracts.State{Data: []byte(state)})
	}
	if err := save("1"); err != nil {
		t.Fatal(err)
	}
	stopWriting()
	for i := range 3 {
		if err := save("lost"); !errors.Is(err, agent.ErrLeaseLost) {
			t.Errorf("checkpoint %d: %v", i, err)
		}
	}
	stream, err := b.JS.Stream(t.Context(), contracts.StreamRuns)
	if err != nil {
		t.Fatal(err)
	}
	if s := stream.CachedInfo().State; s.Msgs != 1 || s.LastSeq != 1 {
		t.Errorf("the bucket holds %d messages, the last one was %d", s.Msgs, s.LastSeq)
	}
	head, err := b.runs.LastFromLeader(t.Context(), id)
	if err != nil || head.Checkpoint == nil {
		t.Fatalf("the head names %+v, %v", head.Checkpoint, err)
	}
	if s, act, err := w.resume(t.Context(), head.Head()); err != nil || act != actStart || string(s.Data) != "1" {
		t.Errorf("the checkpoint is %+v, %v, %v", s, act, err)
	}
}

// An attempt that was given up, and whose agent takes its time to end, is no holder.
func TestLostAttemptIsNotHeld(t *testing.T) {
	b := newBench(t)
	var executions atomic.Int32
	release := make(chan struct{})
	defer close(release)
	cfg := Config{CancelGrace: 20 * time.Second, Agents: []agent.Agent{{Key: "slow", Run: func(context.Context, *agent.Run) (agent.Result, error) {
		if executions.Add(1) == 1 {
			<-release
		}
		return agent.Result{}, nil
	}}}}
	w, _ := b.start(t, cfg)
	id := b.submit(t, contracts.Submission{AgentKey: "slow"})
	started := payload[contracts.Started](t, b.waitForEvent(t, id, contracts.TypeStarted))
	waitFor(t, "the agent to run", func() bool { return executions.Load() == 1 })
	w.holding(id).loseLease()
	if reply := b.ask(t, w.ID(), contracts.HolderRequest{Op: contracts.HolderHolds, RunID: id, Epoch: 1}); reply.Holds {
		t.Error("says that it holds what it has given up")
	}
	b.start(t, cfg)
	if err := b.NC.Publish(started.LeaseToken, []byte("-NAK")); err != nil {
		t.Fatal(err)
	}
	wantTypes(t, b.waitForEnd(t, id), "run.queued run.started run.started run.succeeded")
}

// The run was taken for dead, ended and redriven while its holder lives on; and
// it is the holder that is handed the work of the new round.
func TestRedrivenUnderItsHolder(t *testing.T) {
	b := newBench(t)
	ended := make(chan error, 1)
	goOn := make(chan struct{})
	b.start(t, Config{Agents: []agent.Agent{waits(goOn, ended)}})
	id := b.submit(t, contracts.Submission{AgentKey: "waits"})
	at := b.waitForEvent(t, id, contracts.TypeStarted).Head()
	for _, d := range []contracts.Draft{{Type: contracts.TypeFailed}, {Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueRedrive}}} {
		var err error
		if at, err = b.runs.Append(t.Context(), at, mustNext(t, at.Head, id, d)); err != nil {
			t.Fatal(err)
		}
	}
	work, err := b.JS.Stream(t.Context(), contracts.StreamWork)
	if err != nil {
		t.Fatal(err)
	}
	old, err := work.GetMsg(t.Context(), work.CachedInfo().State.LastSeq)
	if err != nil {
		t.Fatal(err)
	}
	if err := work.DeleteMsg(t.Context(), old.Sequence); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	b.publishWork(t, contracts.Submission{AgentKey: "waits", Priority: contracts.PriorityNormal, RunID: id}, old.Data, at.Sequence)
	if err := <-ended; !errors.Is(err, agent.ErrLeaseLost) {
		t.Errorf("the first round's agent was ended by %v", err)
	}
	close(goOn)
	wantTypes(t, b.waitForEnd(t, id), "run.queued run.started run.failed run.requeued run.started run.succeeded")
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("that took %v", took)
	}
	b.waitForNoWork(t)
}

// A worker that stops gives back what has just come in, and the broker is
// stopped next, as when everything is: the run does not wait for its lease.
func TestGivenBackBeforeTheBrokerStops(t *testing.T) {
	broker := jstest.StartFile(t)
	b := &bench{Broker: broker, runs: runlog.New(broker.JS)}
	w, err := New(b.Connect(t), Config{Agents: []agent.Agent{{Key: "echo", Run: echo}}, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.RunOnce(t.Context()); err != nil { // makes the queues
		t.Fatal(err)
	}
	b.submit(t, contracts.Submission{AgentKey: "echo"})
	d := mustFetch(t, w, "echo")
	in, err := w.openIntake()
	if err != nil {
		t.Fatal(err)
	}
	in.arrivals <- arrival{in.sources[0], d}
	if err := in.drain(new(sync.WaitGroup), func() {}); err != nil {
		t.Fatal(err)
	}
	if err := w.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	broker.Restart(t)
	if again := mustFetch(t, w, "echo"); again.Sequence != d.Sequence { // within half of the lease
		t.Errorf("message %d came, want %d", again.Sequence, d.Sequence)
	}
}

// An attempt ends while its message is being handed to it once more. The
// message is given back, and does not wait for a lease that nobody holds.
func TestHandedOverWhileEnding(t *testing.T) {
	b := newBench(t)
	w, err := New(b.Connect(t), Config{Agents: []agent.Agent{{Key: "echo", Run: echo}}, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.RunOnce(t.Context()); err != nil { // makes the queues
		t.Fatal(err)
	}
	id := b.submit(t, contracts.Submission{AgentKey: "echo"})
	d := mustFetch(t, w, "echo")
	// It has just been let go, and holding had found it a moment before.
	a := &attempt{worker: w, epoch: 1, work: &work{delivery: d, submission: contracts.Submission{RunID: id}}, lease: newLease(d), log: func() *slog.Logger { return w.log }}
	a.writer = newWriter(t.Context(), w.runs, b.startByHand(t, id, w.ID()))
	w.takeAgain(t.Context(), a, d)
	mustFetch(t, w, "echo") // within half of the lease
}
