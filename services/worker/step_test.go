package worker

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// A step that a lost attempt has committed is not executed by its successor;
// one that it was still at is, and the zombie's result is not stored.
func TestStepsOverATakeover(t *testing.T) {
	b := newBench(t)
	var first, second atomic.Int32
	wind := make(chan struct{})
	zombie := make(chan error, 1)
	cfg := Config{CancelGrace: 20 * time.Second, Agents: []agent.Agent{{Key: "steps", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		a, err := agent.Step(ctx, run, "first", func(context.Context) (int, error) {
			run.AddUsage(agent.Usage{InputTokens: 7})
			return int(first.Add(1)), nil
		})
		if err != nil {
			return agent.Result{}, err
		}
		b, err := agent.Step(ctx, run, "second", func(context.Context) (int, error) {
			n := second.Add(1)
			if n == 1 {
				<-wind
			}
			return int(n), nil
		})
		if run.Epoch == 1 {
			zombie <- err
		}
		return agent.Result{FinalOutput: []int{a, b}}, err
	}}}}
	w, _ := b.start(t, cfg)
	id := b.submit(t, contracts.Submission{AgentKey: "steps"})
	started := payload[contracts.Started](t, b.waitForEvent(t, id, contracts.TypeStarted))
	waitFor(t, "the second step", func() bool { return second.Load() == 1 })
	w.holding(id).loseLease()
	b.start(t, cfg)
	if err := b.NC.Publish(started.LeaseToken, []byte("-NAK")); err != nil {
		t.Fatal(err)
	}
	all := b.waitForEnd(t, id)
	close(wind)
	if err := <-zombie; !errors.Is(err, agent.ErrLeaseLost) {
		t.Errorf("the zombie's step: %v", err)
	}
	wantTypes(t, all, "run.queued run.started step.completed run.started step.completed run.succeeded")
	p := payload[contracts.Succeeded](t, last(all))
	if string(p.FinalOutput) != "[1,2]" || string(p.Usage) != `{"input_tokens":7,"output_tokens":0,"cost":0}` || all[2].Usage.InputTokens != 7 {
		t.Errorf("output %s, usage %s, of the step %+v", p.FinalOutput, p.Usage, all[2].Usage)
	}
}

func TestStepsOverRetriesAndADrain(t *testing.T) {
	b := newBench(t)
	var times atomic.Int32
	waiting := make(chan struct{}, 1)
	cfg := Config{DrainTimeout: time.Millisecond, Agents: []agent.Agent{{Key: "steps", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		v, err := agent.Step(ctx, run, "once", func(context.Context) (string, error) {
			times.Add(1)
			return strings.Repeat("x", 100<<10), nil // well above what a checkpoint repeats in its event
		})
		switch {
		case err != nil:
		case run.Epoch == 1:
			err = errors.New("no")
		case run.Epoch == 2:
			waiting <- struct{}{}
			<-ctx.Done()
			err = ctx.Err()
		}
		return agent.Result{FinalOutput: len(v)}, err
	}}}}
	_, stop := b.start(t, cfg)
	id := b.submit(t, contracts.Submission{AgentKey: "steps"})
	<-waiting
	stop()
	b.start(t, cfg)
	all := b.waitForEnd(t, id)
	wantTypes(t, all, "run.queued run.started step.completed run.retrying run.started run.requeued run.started run.succeeded")
	if p := payload[contracts.Succeeded](t, last(all)); times.Load() != 1 || string(p.FinalOutput) != "102400" {
		t.Errorf("executed %d times, output %s", times.Load(), p.FinalOutput)
	}
}

func TestStepResultTooLarge(t *testing.T) {
	b := newBench(t)
	b.start(t, Config{Agents: []agent.Agent{{Key: "large", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		var size struct{ N int }
		if err := run.Params(&size); err != nil {
			return agent.Result{}, err
		}
		_, err := agent.Step(ctx, run, strings.Repeat("n", 128), func(context.Context) (string, error) { return strings.Repeat("x", size.N), nil })
		return agent.Result{}, err
	}}}})
	most := int(b.NC.MaxPayload()) - 4<<10 - 1024 - len("string") - len(`""`)
	for size, want := range map[int]contracts.Status{most: contracts.StatusSucceeded, most + 1: contracts.StatusFailed} {
		params, err := json.Marshal(map[string]int{"N": size})
		if err != nil {
			t.Fatal(err)
		}
		end := last(b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "large", Input: contracts.Input{Params: params}})))
		if end.Status != want {
			t.Errorf("a result of %d bytes: %s %s", size, end.Status, end.Payload)
		}
		if want == contracts.StatusFailed && !strings.Contains(string(end.Payload), "is above the limit of") {
			t.Errorf("it failed for %s", end.Payload)
		}
	}
}

// A replica that has not seen our own start may not have seen the last step either.
func TestStepsAreNotReadTooEarly(t *testing.T) {
	b := newBench(t)
	w, err := New(b.Connect(t), Config{Agents: []agent.Agent{{Key: "echo", Run: echo}}, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	id := b.submit(t, contracts.Submission{AgentKey: "echo"})
	at := b.startByHand(t, id, "w1")
	h := host{&attempt{worker: w, epoch: 2, run: agent.NewRun(t.Context(), agent.Start{Submission: contracts.Submission{RunID: id}})}}
	type read struct {
		steps map[string]agent.StepRef
		err   error
	}
	got := make(chan read, 1)
	go func() {
		steps, err := h.Steps(t.Context())
		got <- read{steps, err}
	}()
	// As if it arrived late: the step of epoch 1, and then the start of epoch 2.
	for _, d := range []contracts.Draft{
		{Type: contracts.TypeStepCompleted, Payload: contracts.StepCompleted{Name: "late", Result: json.RawMessage("1")}},
		{Type: contracts.TypeStarted, WorkerID: "w2"},
	} {
		select {
		case r := <-got:
			t.Fatalf("read %v, %v before %s", r.steps, r.err, d.Type)
		case <-time.After(100 * time.Millisecond):
		}
		var err error
		if at, err = b.runs.Append(t.Context(), at, mustNext(t, at.Head, id, d)); err != nil {
			t.Fatal(err)
		}
	}
	r := <-got
	if len(r.steps) != 1 || r.err != nil {
		t.Fatalf("read %v, %v", r.steps, r.err)
	}
	var done contracts.StepCompleted
	raw, err := h.StepAt(t.Context(), r.steps["late"])
	if err != nil || json.Unmarshal(raw, &done) != nil || string(done.Result) != "1" {
		t.Errorf("the step is %+v, %v", done, err)
	}
}

// A run that sleeps leaves its slot to others, charges nothing, and survives a
// restart of everything.
func TestSleepingRun(t *testing.T) {
	b := newBench(t)
	const nap = agent.SleepInPlace + 500*time.Millisecond
	cfg := Config{Concurrency: 1, Agents: []agent.Agent{
		{Key: "echo", Run: echo},
		{Key: "sleepy", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
			return agent.Result{}, agent.Sleep(ctx, run, "nap", nap)
		}},
	}}
	_, stop := b.start(t, cfg)
	id := b.submit(t, contracts.Submission{AgentKey: "sleepy", MaxAttempts: 1})
	asleep := b.waitForEvent(t, id, contracts.TypeSleeping)
	p := payload[contracts.Sleeping](t, asleep)
	if p.Name != "nap" || !p.WakeAt.Equal(asleep.NotBefore) || asleep.Status != contracts.StatusPending || asleep.Attempt != 0 || asleep.WorkerID != "" {
		t.Errorf("run.sleeping is %+v, %+v", asleep.Event, p)
	}
	b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "echo"})) // in the only slot
	stop()
	b.start(t, cfg)
	all := b.waitForEnd(t, id)
	wantTypes(t, all, "run.queued run.started step.completed run.sleeping run.started run.succeeded")
	if woke := all[4]; woke.Time.Before(p.WakeAt) || woke.Attempt != 1 || woke.Epoch != 2 {
		t.Errorf("it went on at %v as attempt %d of epoch %d, was to wake at %v", woke.Time, woke.Attempt, woke.Epoch, p.WakeAt)
	}
	b.waitForNoWork(t)
}

// The dispatcher's part of a cancel, while the work message waits.
func TestCancelledWhileItSleeps(t *testing.T) {
	b := newBench(t)
	b.start(t, Config{Agents: []agent.Agent{{Key: "sleepy", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		return agent.Result{}, agent.Sleep(ctx, run, "nap", agent.SleepInPlace+time.Second)
	}}}})
	id := b.submit(t, contracts.Submission{AgentKey: "sleepy"})
	asleep := b.waitForEvent(t, id, contracts.TypeSleeping)
	at := asleep.Head()
	if _, err := b.runs.Append(t.Context(), at, mustNext(t, at.Head, id, contracts.Draft{Type: contracts.TypeCancelled})); err != nil {
		t.Fatal(err)
	}
	wantTypes(t, b.waitForEnd(t, id), "run.queued run.started step.completed run.sleeping run.cancelled")
	b.waitForNoWork(t) // dropped when it comes
}
