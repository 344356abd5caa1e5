package agent_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/contracts"
)

type approval struct {
	Approved bool `json:"approved"`
	Limit    int  `json:"limit,omitempty"`
}

// ask takes a step, waits for an approval, and takes another.
func (s *steps) ask(timeout time.Duration, got *[]any) func(context.Context, *agent.Run) error {
	return func(ctx context.Context, run *agent.Run) error {
		if err := s.take(ctx, run, "before"); err != nil {
			return err
		}
		a, err := agent.Signal[approval](ctx, run, "approve", timeout)
		switch {
		case errors.Is(err, agent.ErrSignalTimeout):
			*got = append(*got, "timeout")
		case err != nil:
			return err
		default:
			*got = append(*got, a)
		}
		return s.take(ctx, run, "after")
	}
}

const asked = "run.queued run.started step.completed step.completed run.sleeping "

func TestSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s steps
		var got []any
		trial := agenttest.New(of(s.ask(24*time.Hour, &got)), contracts.Submission{MaxAttempts: 1})
		wantStatus(t, trial.Attempt(t.Context()), contracts.StatusPending)
		asleep := trial.Events()[4]
		if asleep.WaitsFor != "approve" || time.Until(asleep.NotBefore) != 24*time.Hour || asleep.Attempt != 0 {
			t.Errorf("it waits: %+v", asleep)
		}
		time.Sleep(time.Hour)
		for _, a := range []approval{{Approved: true, Limit: 5}, {Approved: false}} { // the first one counts
			if err := trial.Signal("approve", a); err != nil {
				t.Fatal(err)
			}
		}
		begun := time.Now()
		if wantStatus(t, trial.Run(t.Context()), contracts.StatusSucceeded); time.Since(begun) != 0 {
			t.Errorf("it waited for %v more", time.Since(begun))
		}
		if want := asked + "run.signalled run.signalled run.started step.completed step.completed run.succeeded"; typesOf(trial) != want {
			t.Errorf("\n got %s\nwant %s", typesOf(trial), want)
		}
		if len(got) != 1 || got[0] != (approval{Approved: true, Limit: 5}) {
			t.Errorf("got %v", got)
		}
		s.want(t, map[string]int{"before": 1, "after": 1})
	})
}

// A signal that came before the wait is there when the run waits.
func TestSignalBeforeTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s steps
		var got []any
		ask := s.ask(time.Hour, &got)
		trial := agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
			if err := agent.Sleep(ctx, run, "nap", time.Minute); err != nil {
				return err
			}
			return ask(ctx, run)
		}), contracts.Submission{MaxAttempts: 1})
		wantStatus(t, trial.Attempt(t.Context()), contracts.StatusPending)
		if err := trial.Signal("approve", approval{Approved: true}); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		wantStatus(t, trial.Run(t.Context()), contracts.StatusSucceeded)
		if took := time.Since(begun); took != time.Minute || len(got) != 1 || got[0] != (approval{Approved: true}) {
			t.Errorf("took %v, got %v", took, got)
		}
	})
}

// The deadline is fixed once, whatever happens, and what came of the wait is
// fixed once as well: a signal that is late changes nothing.
func TestSignalTimeout(t *testing.T) {
	for name, script := range map[string]func(*agenttest.Trial){
		"nothing happens": func(*agenttest.Trial) {},
		"a crash before the deadline is remembered": func(tr *agenttest.Trial) {
			tr.Before = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, "wait:approve")
		},
		"a crash after the deadline is remembered": func(tr *agenttest.Trial) {
			tr.After = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, "wait:approve")
		},
		"a crash before the outcome is remembered": func(tr *agenttest.Trial) {
			tr.Before = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, "signal:approve")
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			var s steps
			var got []any
			begun := time.Now()
			trial := agenttest.New(of(s.ask(time.Hour, &got)), contracts.Submission{MaxAttempts: 2})
			script(trial)
			if wantStatus(t, trial.Run(t.Context()), contracts.StatusSucceeded); time.Since(begun) != time.Hour {
				t.Errorf("%s: took %v", name, time.Since(begun))
			}
			if len(got) != 1 || got[0] != "timeout" {
				t.Errorf("%s: got %v", name, got)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		var s steps
		var got []any
		ask, fail := s.ask(time.Hour, &got), true
		trial := agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
			err := ask(ctx, run)
			if err == nil && fail {
				fail = false
				return errors.New("later")
			}
			return err
		}), contracts.Submission{})
		for fail {
			trial.Attempt(t.Context())
		}
		if err := trial.Signal("approve", approval{Approved: true}); err != nil { // while it is in backoff
			t.Fatal(err)
		}
		wantStatus(t, trial.Run(t.Context()), contracts.StatusSucceeded)
		if len(got) != 2 || got[1] != "timeout" {
			t.Errorf("after a late signal: got %v", got)
		}
	})
}

// What came is kept over crashes, and given to every attempt alike.
func TestSignalSurvivesCrashes(t *testing.T) {
	for name, script := range map[string]func(*agenttest.Trial){
		"before the outcome": func(tr *agenttest.Trial) {
			tr.Before = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, "signal:approve")
		},
		"after the outcome": func(tr *agenttest.Trial) {
			tr.After = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, "signal:approve")
		},
		"drained after the outcome": func(tr *agenttest.Trial) {
			tr.After = agenttest.At(agenttest.Shutdown, contracts.TypeStepCompleted, "signal:approve")
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			var s steps
			var got []any
			trial := agenttest.New(of(s.ask(time.Hour, &got)), contracts.Submission{})
			script(trial)
			trial.Attempt(t.Context())
			if err := trial.Signal("approve", approval{Limit: 7}); err != nil {
				t.Fatal(err)
			}
			wantStatus(t, trial.Run(t.Context()), contracts.StatusSucceeded)
			for _, a := range got {
				if a != (approval{Limit: 7}) {
					t.Errorf("%s: got %v", name, got)
				}
			}
			s.want(t, map[string]int{"before": 1, "after": 1})
		})
	}
}

// A redrive goes on with what came before it; from the start it asks again.
func TestSignalAndRedrive(t *testing.T) {
	for _, fromStart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var s steps
			var got []any
			ask, fail := s.ask(time.Hour, &got), true
			trial := agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
				if err := ask(ctx, run); err != nil || !fail {
					return err
				}
				return agent.Permanent(errors.New("no"))
			}), contracts.Submission{})
			trial.Attempt(t.Context())
			if err := trial.Signal("approve", approval{Limit: 7}); err != nil {
				t.Fatal(err)
			}
			wantStatus(t, trial.Run(t.Context()), contracts.StatusFailed)
			fail = false
			if err := trial.Redrive(fromStart); err != nil {
				t.Fatal(err)
			}
			wantStatus(t, trial.Run(t.Context()), contracts.StatusSucceeded)
			if timedOut := got[len(got)-1] == "timeout"; timedOut != fromStart {
				t.Errorf("from start %t: got %v", fromStart, got)
			}
		})
	}
}

// Waits in parallel: any of their signals wakes the run, and the earliest deadline does.
func TestWaitsInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trial := agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
			errs := make(chan error)
			for i, name := range []string{"a", "b"} {
				go func() {
					_, err := agent.Wait(context.WithoutCancel(ctx), run, name, time.Duration(2-i)*time.Hour)
					errs <- err
				}()
				synctest.Wait()
			}
			return errors.Join(<-errs, <-errs)
		}), contracts.Submission{MaxAttempts: 1})
		// The second one begins after the first has ended the attempt's context, and so not at all.
		wantStatus(t, trial.Attempt(t.Context()), contracts.StatusPending)
		if at := trial.Events()[len(trial.Events())-1]; at.WaitsFor == "" {
			t.Errorf("it waits: %+v", at)
		}
		for _, name := range []string{"a", "b"} {
			if err := trial.Signal(name, nil); err != nil {
				t.Fatal(err)
			}
		}
		wantStatus(t, trial.Run(t.Context()), contracts.StatusSucceeded)
	})
}

func TestCancelWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s steps
		var got []any
		trial := agenttest.New(of(s.ask(time.Hour, &got)), contracts.Submission{})
		wantStatus(t, trial.Attempt(t.Context()), contracts.StatusPending)
		if err := trial.Cancel(); err != nil {
			t.Fatal(err)
		}
		if wantStatus(t, trial.Run(t.Context()), contracts.StatusCancelled); len(got) != 0 {
			t.Errorf("got %v", got)
		}
	})
}

func TestBadSignal(t *testing.T) {
	for _, c := range []struct {
		name    string
		payload any
		want    string
	}{
		{"approve", map[string]any{"approved": "yes"}, "payload.approved: must be"},
		{"approve", map[string]any{"approvd": true}, "approvd"},
		{"approve", "yes", "payload: must be"},
		{"*", nil, "name: must be a name"},
		{strings.Repeat("x", 101), nil, "name: must be 1 to 100 bytes, not 101"},
		{"", nil, "name: must be 1 to 100 bytes"},
	} {
		trial := agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
			_, err := agent.Signal[approval](ctx, run, c.name, time.Hour)
			return err
		}), contracts.Submission{})
		if o := trial.Attempt(t.Context()); o.Status == contracts.StatusPending && c.payload != nil {
			if err := trial.Signal(c.name, c.payload); err != nil {
				t.Fatal(err)
			}
		}
		o := trial.Run(t.Context())
		if wantStatus(t, o, contracts.StatusFailed); !strings.Contains(o.Error.Message, c.want) {
			t.Errorf("%s, %v: %s, want %s", c.name, c.payload, o.Error.Message, c.want)
		}
	}
}
