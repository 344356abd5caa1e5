package agent_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/contracts"
)

func typesOf(trial *agenttest.Trial) string { return strings.Trim(fmt.Sprint(trial.Types()), "[]") }

// nap takes a step, sleeps, and takes another.
func (s *steps) nap(d time.Duration) func(context.Context, *agent.Run) error {
	return func(ctx context.Context, run *agent.Run) error {
		if err := s.take(ctx, run, "before"); err != nil {
			return err
		}
		if err := agent.Sleep(ctx, run, "nap", d); err != nil {
			return err
		}
		return s.take(ctx, run, "after")
	}
}

// A long sleep holds no worker and charges no attempt; a short one stays.
func TestSleep(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		want string
	}{
		{24 * time.Hour, "run.queued run.started step.completed step.completed run.sleeping run.started step.completed run.succeeded"},
		{agent.SleepInPlace, "run.queued run.started step.completed step.completed step.completed run.succeeded"},
		{-time.Second, "run.queued run.started step.completed step.completed step.completed run.succeeded"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var s steps
			begun := time.Now()
			trial := agenttest.New(of(s.nap(c.d)), contracts.Submission{MaxAttempts: 1})
			wantStatus(t, trial.Run(t.Context()), contracts.StatusSucceeded)
			if took := time.Since(begun); took != max(c.d, 0) {
				t.Errorf("slept for %v, want %v", took, c.d)
			}
			if got := typesOf(trial); got != c.want {
				t.Errorf("sleep of %v:\n got %s\nwant %s", c.d, got, c.want)
			}
			s.want(t, map[string]int{"before": 1, "after": 1})
			last := trial.Events()[len(trial.Events())-1]
			if last.Attempt != 1 {
				t.Errorf("it ended in attempt %d", last.Attempt)
			}
		})
	}
}

// The time of waking is fixed once: a crash at any point does not move it.
func TestSleepSurvivesCrashes(t *testing.T) {
	const d = time.Hour
	for name, script := range map[string]func(*agenttest.Trial){
		"before it is remembered": func(tr *agenttest.Trial) {
			tr.Before = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, "nap")
		},
		"before it sleeps": func(tr *agenttest.Trial) {
			tr.After = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, "nap")
		},
		"after it woke": func(tr *agenttest.Trial) {
			tr.Before = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, "after")
		},
		"while it drains": func(tr *agenttest.Trial) {
			tr.After = agenttest.At(agenttest.Shutdown, contracts.TypeStepCompleted, "nap")
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			var s steps
			begun := time.Now()
			trial := agenttest.New(of(s.nap(d)), contracts.Submission{MaxAttempts: 2})
			script(trial)
			wantStatus(t, trial.Run(t.Context()), contracts.StatusSucceeded)
			if took := time.Since(begun); took != d {
				t.Errorf("%s: slept for %v", name, took)
			}
			s.want(t, map[string]int{"before": 1})
		})
	}
}

func TestShortSleepGoesOnAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const d = 2 * time.Second
		begun := time.Now()
		trial := agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
			go func() {
				time.Sleep(time.Second)
				_ = run.Emit("note", nil)
			}()
			return agent.Sleep(ctx, run, "nap", d)
		}), contracts.Submission{})
		trial.After = agenttest.At(agenttest.Crash, "note", "")
		wantStatus(t, trial.Run(t.Context()), contracts.StatusSucceeded)
		if took := time.Since(begun); took != d {
			t.Errorf("slept for %v in all, want %v", took, d)
		}
		time.Sleep(time.Minute) // for the second note
	})
}

// Whatever an agent makes of the error, its run sleeps.
func TestSleepIsNoMatterOfTheError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		trial := agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
			err := agent.Sleep(ctx, run, "nap", time.Hour)
			if err != nil && (!errors.Is(err, agent.ErrSleeping) || !errors.Is(context.Cause(ctx), agent.ErrSleeping)) {
				t.Errorf("Sleep: %v, cause %v", err, context.Cause(ctx))
			}
			return nil
		}), contracts.Submission{})
		wantStatus(t, trial.Run(t.Context()), contracts.StatusSucceeded)
		if took := time.Since(begun); took != time.Hour {
			t.Errorf("took %v", took)
		}
	})
}

func TestSleepsInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		trial := agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
			errs := make(chan error)
			for i, name := range []string{"long", "short"} {
				go func() {
					if run.Epoch == 1 {
						time.Sleep(time.Duration(i) * time.Second / 10) // so that both are begun
					}
					errs <- agent.Sleep(context.WithoutCancel(ctx), run, name, time.Duration(2-i)*time.Hour)
				}()
			}
			return errors.Join(<-errs, <-errs)
		}), contracts.Submission{MaxAttempts: 1})
		wantStatus(t, trial.Run(t.Context()), contracts.StatusSucceeded)
		if took := time.Since(begun); took != 3*time.Hour {
			t.Errorf("took %v", took)
		}
	})
}

func TestCancelWhileItSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s steps
		trial := agenttest.New(of(s.nap(time.Hour)), contracts.Submission{})
		wantStatus(t, trial.Attempt(t.Context()), contracts.StatusPending)
		if err := trial.Cancel(); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		if wantStatus(t, trial.Run(t.Context()), contracts.StatusCancelled); time.Since(begun) != 0 {
			t.Errorf("the cancel waited for %v", time.Since(begun))
		}
	})
}

// Usage is kept by whatever is committed next, over crashes and redrives.
func TestUsage(t *testing.T) {
	trial := agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
		run.AddUsage(agent.Usage{InputTokens: 1}) // in each attempt: it is spent again
		if _, err := agent.Step(ctx, run, "ask", func(context.Context) (int, error) {
			run.AddUsage(agent.Usage{OutputTokens: 10, Cost: 0.5})
			return 0, nil
		}); err != nil {
			return err
		}
		if run.Attempt < 3 {
			return errors.New("no")
		}
		return nil
	}), contracts.Submission{})
	trial.After = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, "ask")
	o := trial.Run(t.Context())
	wantStatus(t, o, contracts.StatusSucceeded)
	if want := (agent.Usage{InputTokens: 3, OutputTokens: 10, Cost: 0.5}); o.Spent != want || string(o.Usage) != `{"input_tokens":3,"output_tokens":10,"cost":0.5}` {
		t.Errorf("spent %+v, reported %s", o.Spent, o.Usage)
	}
}

func TestUsageOutOfBounds(t *testing.T) {
	o := agenttest.New(of(func(_ context.Context, run *agent.Run) error {
		for _, u := range []agent.Usage{{Cost: -1}, {Cost: math.NaN()}, {Cost: math.Inf(1)}, {InputTokens: math.MaxUint64}, {OutputTokens: 1 << 51}} {
			run.AddUsage(u)
		}
		run.AddUsage(agent.Usage{Cost: 1})
		return nil
	}), contracts.Submission{}).Run(t.Context())
	if wantStatus(t, o, contracts.StatusSucceeded); o.Spent != (agent.Usage{Cost: 1}) {
		t.Errorf("spent %+v", o.Spent)
	}
}
