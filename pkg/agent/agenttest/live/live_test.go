package live_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/agent/agenttest/live"
	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type params struct {
	Text string `json:"text"`
}

// One agent with all that agents have, over a deployment in the midst of it.
func TestStage(t *testing.T) {
	var fetched, sent atomic.Int32
	waiting := make(chan struct{}, 1)
	report := agent.Agent{Key: "report", InputSchema: agent.SchemaFor[params](), Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		p, err := agent.Params[params](run)
		if err != nil {
			return agent.Result{}, err
		}
		page, err := agent.Step(ctx, run, "fetch", func(context.Context) (string, error) {
			run.AddUsage(agent.Usage{Cost: 1})
			fetched.Add(1)
			return strings.ToUpper(p.Text), nil
		})
		if err != nil {
			return agent.Result{}, err
		}
		if run.Epoch == 1 {
			waiting <- struct{}{}
			<-ctx.Done()
			return agent.Result{}, ctx.Err()
		}
		_, err = agent.Step(ctx, run, "send", func(context.Context) (int32, error) { return sent.Add(1), nil })
		return agent.Result{FinalOutput: page}, err
	}}
	stage := live.Start(t, report)
	id, err := stage.Client.Submit(t.Context(), contracts.Submission{AgentKey: "report", Input: contracts.Input{Params: []byte(`{"text":"x"}`)}})
	if err != nil {
		t.Fatal(err)
	}
	<-waiting
	stage.Deploy(t, report)
	o, err := stage.Client.Wait(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var out string
	if err := o.Output(&out); err != nil || out != "X" || fetched.Load() != 1 || sent.Load() != 1 {
		t.Errorf("output %q, %v, fetched %d times, sent %d times", out, err, fetched.Load(), sent.Load())
	}
	// The status record has what was spent.
	deadline := time.Now().Add(10 * time.Second)
	for {
		rec, err := stage.Client.Get(t.Context(), id)
		if err == nil && rec.Run.Status == contracts.StatusSucceeded {
			if rec.Run.Usage != (agent.Usage{Cost: 1}) || string(rec.Result) == "" {
				t.Errorf("record %+v, result %s", rec.Run, rec.Result)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for the status: %+v, %v", rec, err)
		}
		time.Sleep(10 * time.Millisecond)
	}

	id, err = stage.Client.Submit(t.Context(), contracts.Submission{AgentKey: "report", Input: contracts.Input{Params: []byte(`{"txt":"x"}`)}})
	if err != nil {
		t.Fatal(err)
	}
	o, err = stage.Client.Wait(t.Context(), id)
	var wrong *client.RunError
	if err != nil || !errors.As(o.Err(), &wrong) || !strings.Contains(wrong.Error(), "input.params.text: is required") {
		t.Errorf("a wrong input: %v, %v", o.Err(), err)
	}
}

// A run waits for a signal in the only slot, which others use meanwhile, and
// goes on at once when the signal has come, or came before.
func TestSignal(t *testing.T) {
	atWork, goOn := make(chan struct{}, 1), make(chan struct{})
	stage := live.Start(t, agent.Agent{Key: "asks", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		word, err := agent.Signal[string](ctx, run, "word", time.Hour)
		if err != nil {
			return agent.Result{}, err
		}
		if _, err := agent.Step(ctx, run, "work", func(context.Context) (bool, error) {
			atWork <- struct{}{}
			<-goOn
			return true, nil
		}); err != nil {
			return agent.Result{}, err
		}
		early, err := agent.Signal[string](ctx, run, "early", time.Hour)
		return agent.Result{FinalOutput: word + " " + early}, err
	}})
	id, err := stage.Client.Submit(t.Context(), contracts.Submission{AgentKey: "asks", MaxAttempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	signal := func(name, word string) {
		t.Helper()
		if err := stage.Client.Signal(t.Context(), id, contracts.SignalCommand{Name: name, Payload: []byte(`"` + word + `"`)}); err != nil {
			t.Fatal(err)
		}
	}
	for e, err := range stage.Client.Follow(t.Context(), id, runlog.FollowOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == contracts.TypeSleeping {
			break
		}
	}
	begun := time.Now()
	signal("word", "hello")
	<-atWork
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it went on after %v", took)
	}
	signal("early", "world") // no wait for it yet
	close(goOn)
	o, err := stage.Client.Wait(t.Context(), id)
	var out string
	if err != nil || o.Output(&out) != nil || out != "hello world" {
		t.Errorf("%s, output %q, %v", o.Status, out, err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it ended after %v", took)
	}
}

// A run that sleeps is cancelled at once, by the command that a user gives.
func TestCancelOfASleepingRun(t *testing.T) {
	stage := live.Start(t, agent.Agent{Key: "sleepy", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		return agent.Result{}, agent.Sleep(ctx, run, "nap", time.Hour)
	}})
	id, err := stage.Client.Submit(t.Context(), contracts.Submission{AgentKey: "sleepy"})
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range stage.Client.Follow(t.Context(), id, runlog.FollowOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == contracts.TypeSleeping {
			break
		}
	}
	begun := time.Now()
	if err := stage.Client.Cancel(t.Context(), id, contracts.CancelCommand{Reason: "enough"}); err != nil {
		t.Fatal(err)
	}
	o, err := stage.Client.Wait(t.Context(), id)
	if err != nil || o.Status != contracts.StatusCancelled || time.Since(begun) > 5*time.Second {
		t.Errorf("%s after %v, %v", o.Status, time.Since(begun), err)
	}
}

// A Trial is a model of the real thing: the same agents have the same events in both.
func TestTrialIsLikeTheRealThing(t *testing.T) {
	agents := map[string]func(ctx context.Context, run *agent.Run) (agent.Result, error){
		"succeeds": func(context.Context, *agent.Run) (agent.Result, error) { return agent.Result{FinalOutput: 1}, nil },
		"retries": func(_ context.Context, run *agent.Run) (agent.Result, error) {
			if run.Attempt < 3 {
				return agent.Result{}, errors.New("no")
			}
			return agent.Result{}, nil
		},
		"fails": func(context.Context, *agent.Run) (agent.Result, error) {
			return agent.Result{}, agent.Permanent(errors.New("no"))
		},
		"panics": func(context.Context, *agent.Run) (agent.Result, error) { panic("oh") },
		"times-out": func(ctx context.Context, _ *agent.Run) (agent.Result, error) {
			<-ctx.Done()
			return agent.Result{}, ctx.Err()
		},
		"sleeps": func(ctx context.Context, run *agent.Run) (agent.Result, error) {
			return agent.Result{}, agent.Sleep(ctx, run, "nap", agent.SleepInPlace+100*time.Millisecond)
		},
		"steps": func(ctx context.Context, run *agent.Run) (agent.Result, error) {
			_, err := agent.Step(ctx, run, "one", func(context.Context) (int, error) { return 1, nil })
			if err == nil && run.Attempt == 1 {
				err = errors.New("no")
			}
			return agent.Result{}, err
		},
		"forgets": func(ctx context.Context, run *agent.Run) (agent.Result, error) {
			name := map[bool]string{true: "one", false: "other"}[run.Attempt == 1]
			_, err := agent.Step(ctx, run, name, func(context.Context) (int, error) { return 1, nil })
			if err == nil && run.Attempt == 1 {
				err = errors.New("no")
			}
			return agent.Result{}, err
		},
		"checkpoints": func(ctx context.Context, run *agent.Run) (agent.Result, error) {
			at, resumed, err := agent.State[int](run)
			if err == nil && !resumed {
				if err = run.Checkpoint(ctx, 7); err == nil {
					err = errors.New("no")
				}
			}
			return agent.Result{FinalOutput: at}, err
		},
	}
	var all []agent.Agent
	for key, f := range agents {
		all = append(all, agent.Agent{Key: key, Run: f})
	}
	stage := live.Start(t, all...)
	ids := map[string]string{}
	for _, a := range all {
		id, err := stage.Client.Submit(t.Context(), contracts.Submission{AgentKey: a.Key, TimeoutSeconds: 1})
		if err != nil {
			t.Fatal(err)
		}
		ids[a.Key] = id
	}
	for _, a := range all {
		trial := agenttest.New(a, contracts.Submission{TimeoutSeconds: 1})
		trial.Run(t.Context())
		modelled := trial.Events()
		i := 0
		for e, err := range stage.Client.Follow(t.Context(), ids[a.Key], runlog.FollowOptions{UntilEnd: true}) {
			if err != nil {
				t.Fatal(err)
			}
			if i == len(modelled) {
				t.Fatalf("%s: event %d is %s, the model has none", a.Key, i+1, e.Type)
			}
			m := modelled[i]
			if m.Type != e.Type || m.Status != e.Status || m.Attempt != e.Attempt || m.Epoch != e.Epoch || m.Visibility != e.Visibility {
				t.Errorf("%s: event %d is %s %+v, the model has %s %+v", a.Key, i+1, e.Type, e.Position, m.Type, m.Position)
			}
			i++
		}
		if i != len(modelled) {
			t.Errorf("%s: %d events, the model has %d", a.Key, i, len(modelled))
		}
	}
}
