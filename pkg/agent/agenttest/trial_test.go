package agenttest_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/contracts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTimeoutOfATrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		o := agenttest.New(agent.Agent{Key: "slow", Run: func(ctx context.Context, _ *agent.Run) (agent.Result, error) {
			<-ctx.Done()
			if !errors.Is(context.Cause(ctx), agent.ErrTimeout) {
				t.Errorf("ended by %v", context.Cause(ctx))
			}
			return agent.Result{}, ctx.Err()
		}}, contracts.Submission{TimeoutSeconds: 60}).Run(t.Context())
		if o.Status != contracts.StatusTimedOut || time.Since(begun) != time.Minute {
			t.Errorf("%s after %v", o.Status, time.Since(begun))
		}
	})
}

func TestAttemptsOfATrialAreUsedUp(t *testing.T) {
	trial := agenttest.New(agent.Agent{Key: "dies", Run: func(_ context.Context, run *agent.Run) (agent.Result, error) {
		return agent.Result{}, run.Emit("note", nil)
	}}, contracts.Submission{MaxAttempts: 2})
	trial.After = func(e contracts.Event) agenttest.Act {
		if e.Type == "note" {
			return agenttest.Crash
		}
		return agenttest.GoOn
	}
	if o := trial.Run(t.Context()); o.Status != contracts.StatusFailed || o.Error.Type != contracts.ErrorTypeAttemptsExhausted {
		t.Errorf("%s, %+v", o.Status, o.Error)
	}
}

// A cancel ends the context, calls the hook, and whatever the agent returns the run is cancelled.
func TestCancelOfATrial(t *testing.T) {
	hooked := false
	trial := agenttest.New(agent.Agent{
		Key: "stubborn",
		Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
			if err := run.Emit("note", nil); err != nil {
				return agent.Result{}, err
			}
			<-ctx.Done()
			if !run.Cancelled() {
				t.Error("the run does not know that it is cancelled")
			}
			return agent.Result{FinalOutput: 1}, run.Emit("last-words", nil)
		},
		Cancel: func(context.Context, *agent.Run) { hooked = true },
	}, contracts.Submission{})
	trial.After = agenttest.At(agenttest.Cancel, "note", "")
	if o := trial.Run(t.Context()); o.Status != contracts.StatusCancelled || !hooked {
		t.Errorf("%s, hook called: %t", o.Status, hooked)
	}
	if err := trial.Cancel(); err == nil {
		t.Error("a run that has ended was cancelled")
	}
}

func TestOnErrorOfATrial(t *testing.T) {
	var lines strings.Builder
	trial := agenttest.New(agent.Agent{
		Key: "picky",
		Run: func(_ context.Context, run *agent.Run) (agent.Result, error) {
			run.Log().Info("trying")
			return agent.Result{}, errors.New("no")
		},
		OnError: func(_ context.Context, run *agent.Run, err error) *contracts.ErrorInfo {
			return &contracts.ErrorInfo{Type: "Picky", Message: err.Error(), Retriable: run.Attempt < 2}
		},
	}, contracts.Submission{})
	trial.Log = slog.New(slog.NewTextHandler(&lines, nil))
	o := trial.Run(t.Context())
	if o.Status != contracts.StatusFailed || o.Error.Type != "Picky" || o.Error.Message != "no" || o.Error.Retriable {
		t.Errorf("%s, %+v", o.Status, o.Error)
	}
	for _, want := range []string{"run_id=" + agenttest.RunID + " attempt=1", "attempt=2"} {
		if !strings.Contains(lines.String(), want) {
			t.Errorf("log %q does not say %q", lines.String(), want)
		}
	}
	if _, err := agenttest.Output[int](o); err == nil || !strings.Contains(err.Error(), "the run is failed: Picky: no") {
		t.Errorf("its output: %v", err)
	}
}

// A crash is the end of all that the attempt can do.
func TestNothingIsSeenAfterACrash(t *testing.T) {
	trial := agenttest.New(agent.Agent{Key: "zombie", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		if err := run.Emit("note", nil); err != nil {
			return agent.Result{}, err
		}
		if run.Epoch > 1 {
			return agent.Result{}, nil
		}
		<-ctx.Done()
		for what, err := range map[string]error{
			"emit": run.Emit("note", nil), "delta": run.Delta("x"), "checkpoint": run.Checkpoint(context.WithoutCancel(ctx), 1),
		} {
			if !errors.Is(err, agent.ErrLeaseLost) {
				t.Errorf("%s after the crash: %v", what, err)
			}
		}
		return agent.Result{FinalOutput: "from the grave"}, nil
	}}, contracts.Submission{})
	trial.After = agenttest.At(agenttest.Crash, "note", "")
	o := trial.Run(t.Context())
	if o.Status != contracts.StatusSucceeded || o.FinalOutput != nil || len(trial.Types()) != 6 {
		t.Errorf("%s, output %s, events %v", o.Status, o.FinalOutput, trial.Types())
	}
}

// What a broker would not take, or what is no JSON, fails here as it does there.
func TestWhatCannotBeStored(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	for name, c := range map[string]struct {
		do   func(ctx context.Context, run *agent.Run) (agent.Result, error)
		want string
	}{
		"event": {func(_ context.Context, run *agent.Run) (agent.Result, error) {
			return agent.Result{}, run.Emit("note", large)
		}, "AgentError: emit note: payload of 1048578 bytes"},
		"state": {func(ctx context.Context, run *agent.Run) (agent.Result, error) {
			return agent.Result{}, run.Checkpoint(ctx, large)
		}, "AgentError: checkpoint: state of"},
		"step": {func(ctx context.Context, run *agent.Run) (agent.Result, error) {
			_, err := agent.Step(ctx, run, "a", func(context.Context) (string, error) { return large, nil })
			return agent.Result{}, err
		}, `AgentError: step "a": result of`},
		"result": {func(context.Context, *agent.Run) (agent.Result, error) { return agent.Result{FinalOutput: large}, nil }, "ResultTooLarge: result of"},
		"output no JSON": {func(context.Context, *agent.Run) (agent.Result, error) {
			return agent.Result{FinalOutput: func() {}}, nil
		}, "AgentError: encode the result: "},
	} {
		t.Run(name, func(t *testing.T) {
			o := agenttest.New(agent.Agent{Key: "large", Run: c.do}, contracts.Submission{}).Run(t.Context())
			if got := o.Error.Type + ": " + o.Error.Message; o.Status != contracts.StatusFailed || o.Error.Retriable || !strings.HasPrefix(got, c.want) {
				t.Errorf("%s, %s, want %s", o.Status, got, c.want)
			}
		})
	}
}
