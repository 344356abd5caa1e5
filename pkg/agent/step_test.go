package agent_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/contracts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// steps is an agent under test: its Run, and how often each step was executed.
type steps struct {
	mu    sync.Mutex
	times map[string]int
}

func (s *steps) did(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.times == nil {
		s.times = map[string]int{}
	}
	s.times[name]++
}

// take takes a step that counts itself and returns its name.
func (s *steps) take(ctx context.Context, run *agent.Run, name string) error {
	got, err := agent.Step(ctx, run, name, func(context.Context) (string, error) {
		s.did(name)
		return name, nil
	})
	if err == nil && got != name {
		return agent.Permanent(errors.New("step " + name + " returned " + got))
	}
	return err
}

func (s *steps) want(t *testing.T, times map[string]int) {
	t.Helper()
	for name, n := range times {
		if s.times[name] != n {
			t.Errorf("step %s was executed %d times, want %d", name, s.times[name], n)
		}
	}
}

func of(run func(ctx context.Context, run *agent.Run) error) agent.Agent {
	return agent.Agent{Key: "steps", Run: func(ctx context.Context, r *agent.Run) (agent.Result, error) { return agent.Result{}, run(ctx, r) }}
}

func wantStatus(t *testing.T, o agenttest.Outcome, want contracts.Status) {
	t.Helper()
	if o.Status != want {
		t.Fatalf("the run is %s (%s), want %s", o.Status, o.Error.Message, want)
	}
}

// abc takes three steps in a row.
func (s *steps) abc(ctx context.Context, run *agent.Run) error {
	for _, name := range []string{"a", "b", "c"} {
		if err := s.take(ctx, run, name); err != nil {
			return err
		}
	}
	return nil
}

// Wherever the worker dies, what is committed is not done again, and what is
// not committed is.
func TestStepsSurviveCrashes(t *testing.T) {
	for _, name := range []string{"a", "b", "c"} {
		var s steps
		trial := agenttest.New(of(s.abc), contracts.Submission{})
		trial.After = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, name)
		wantStatus(t, trial.Run(t.Context()), contracts.StatusSucceeded)
		s.want(t, map[string]int{"a": 1, "b": 1, "c": 1})

		s = steps{}
		trial = agenttest.New(of(s.abc), contracts.Submission{})
		trial.Before = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, name)
		wantStatus(t, trial.Run(t.Context()), contracts.StatusSucceeded)
		want := map[string]int{"a": 1, "b": 1, "c": 1}
		want[name] = 2
		s.want(t, want)
	}
}

// A cancel, a drain or a timeout in the midst of a step does not lose what it came to.
func TestStepThatIsDoneAtTheEndIsRemembered(t *testing.T) {
	for _, act := range []agenttest.Act{agenttest.Cancel, agenttest.Shutdown} {
		var s steps
		trial := agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
			_, err := agent.Step(ctx, run, "a", func(ctx context.Context) (int, error) {
				s.did("a")
				if err := run.Emit("note", nil); err != nil { // the script acts here
					return 0, err
				}
				return 1, nil
			})
			if err == nil {
				err = s.take(ctx, run, "b")
			}
			return err
		}), contracts.Submission{})
		trial.After = agenttest.At(act, "note", "")
		o := trial.Run(t.Context())
		if act == agenttest.Cancel {
			wantStatus(t, o, contracts.StatusCancelled)
			s.want(t, map[string]int{"a": 1, "b": 0})
			if err := trial.Redrive(false); err != nil {
				t.Fatal(err)
			}
			o = trial.Run(t.Context())
		}
		wantStatus(t, o, contracts.StatusSucceeded)
		s.want(t, map[string]int{"a": 1, "b": 1})
	}
}

func TestRedriveFromTheStartForgetsSteps(t *testing.T) {
	var s steps
	fail := true
	trial := agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
		if err := s.abc(ctx, run); err != nil {
			return err
		}
		if fail {
			return agent.Permanent(errors.New("no"))
		}
		return nil
	}), contracts.Submission{})
	wantStatus(t, trial.Run(t.Context()), contracts.StatusFailed)
	for i, fromStart := range []bool{false, true} {
		if err := trial.Redrive(fromStart); err != nil {
			t.Fatal(err)
		}
		fail = !fromStart
		trial.Run(t.Context())
		s.want(t, map[string]int{"a": 1 + i, "b": 1 + i, "c": 1 + i})
	}
	wantStatus(t, trial.Outcome(), contracts.StatusSucceeded)
}

func TestParallelSteps(t *testing.T) {
	var s steps
	trial := agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
		errs := make(chan error)
		names := []string{"a", "b", "c", "d", "e"}
		for _, name := range names {
			go func() { errs <- s.take(ctx, run, name) }()
		}
		var all error
		for range names {
			all = errors.Join(all, <-errs)
		}
		return all
	}), contracts.Submission{})
	trial.After = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, "c")
	wantStatus(t, trial.Run(t.Context()), contracts.StatusSucceeded)
	s.want(t, map[string]int{"c": 1})
	done := map[string]int{}
	for _, e := range trial.Events() {
		if e.Type == contracts.TypeStepCompleted {
			done[string(e.Payload)]++
		}
	}
	if len(done) != 5 {
		t.Errorf("completed %v", done)
	}
}

func TestStepNames(t *testing.T) {
	for name, want := range map[string]string{
		"":                       "1 to 128 bytes",
		strings.Repeat("x", 129): "1 to 128 bytes",
		"a\nb":                   "control characters",
		"\xff":                   "1 to 128 bytes",
		"twice":                  `step "twice": there was one of this name in this attempt already`,
	} {
		o := agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
			var s steps
			if name == "twice" {
				if err := s.take(ctx, run, name); err != nil {
					return err
				}
			}
			return s.take(ctx, run, name)
		}), contracts.Submission{}).Run(t.Context())
		if o.Status != contracts.StatusFailed || o.Error.Retriable || !strings.Contains(o.Error.Message, want) {
			t.Errorf("%q: %s, %+v", name, o.Status, o.Error)
		}
	}
}

// The author may try a failed step again by himself.
func TestFailedStepMayBeTakenAgain(t *testing.T) {
	n := 0
	o := agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
		var err error
		for range 3 {
			if _, err = agent.Step(ctx, run, "a", func(context.Context) (int, error) {
				if n++; n < 3 {
					return 0, errors.New("no")
				}
				return n, nil
			}); err == nil {
				break
			}
		}
		return err
	}), contracts.Submission{MaxAttempts: 1}).Run(t.Context())
	wantStatus(t, o, contracts.StatusSucceeded)
}

func TestTriesOfAStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			name  string
			fails int
			with  error
			opts  []agent.StepOption
			tries int
			took  time.Duration
			want  string
		}{
			{"once unless told", 9, errors.New("no"), nil, 1, 0, `step "x": no`},
			{"until it goes well", 2, errors.New("no"), []agent.StepOption{agent.WithTries(5)}, 3, 3 * time.Second, ""},
			{"up to the limit", 9, errors.New("no"), []agent.StepOption{agent.WithTries(5), agent.WithBackoff(time.Second, 2*time.Second)}, 5, 7 * time.Second, `step "x": no`},
			{"not if it is permanent", 9, agent.Permanent(errors.New("no")), []agent.StepOption{agent.WithTries(5)}, 1, 0, `step "x": no`},
		} {
			tries, begun := 0, time.Now()
			o := agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
				_, err := agent.Step(ctx, run, "x", func(context.Context) (int, error) {
					if tries++; tries <= c.fails {
						return 0, c.with
					}
					return 0, nil
				}, c.opts...)
				return err
			}), contracts.Submission{MaxAttempts: 1}).Run(t.Context())
			took := time.Since(begun)
			if tries != c.tries || took < c.took || took > c.took*11/10 || o.Error.Message != c.want || (o.Error.Retriable == agent.IsPermanent(c.with)) && c.want != "" {
				t.Errorf("%s: %d tries in %v, %+v", c.name, tries, took, o.Error)
			}
		}
	})
}

func TestTimeoutAndPanicOfAStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		o := agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
			_, err := agent.Step(ctx, run, "slow", func(ctx context.Context) (int, error) {
				<-ctx.Done()
				tries++
				return 0, ctx.Err()
			}, agent.WithTimeout(time.Second), agent.WithTries(2))
			return err
		}), contracts.Submission{MaxAttempts: 1}).Run(t.Context())
		if want := `step "slow": took longer than its 1s: context deadline exceeded`; tries != 2 || o.Error.Message != want || !o.Error.Retriable {
			t.Errorf("%d tries, %+v", tries, o.Error)
		}
		o = agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
			got := make(chan error)
			go func() { // where nobody but Step could contain it
				_, err := agent.Step(ctx, run, "bad", func(context.Context) (int, error) { panic("oh") })
				got <- err
			}()
			return <-got
		}), contracts.Submission{MaxAttempts: 1}).Run(t.Context())
		if o.Error.Message != `step "bad": panic: oh` {
			t.Errorf("%+v", o.Error)
		}
	})
}

// No step begins when the attempt is over, whatever context it is given.
func TestNoStepAfterTheEnd(t *testing.T) {
	var s steps
	trial := agenttest.New(of(func(ctx context.Context, run *agent.Run) error {
		if err := s.take(context.Background(), run, "a"); err != nil {
			return err
		}
		err := s.take(context.Background(), run, "b")
		if run.Epoch == 1 && !errors.Is(err, agent.ErrLeaseLost) {
			t.Errorf("step after the end: %v", err)
		}
		return err
	}), contracts.Submission{})
	trial.After = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, "a")
	wantStatus(t, trial.Run(t.Context()), contracts.StatusSucceeded)
	s.want(t, map[string]int{"a": 1, "b": 1})
}

type pageV1 struct {
	Title string `json:"title"`
	Size  int    `json:"size"`
}

type pageV2 struct {
	Title string   `json:"title"`
	Size  int      `json:"size"`
	Links []string `json:"links"`
}

// result is an agent with one step that returns v.
func result[T any](v T, got *T) agent.Agent {
	return of(func(ctx context.Context, run *agent.Run) error {
		var err error
		*got, err = agent.Step(ctx, run, "page", func(context.Context) (T, error) { return v, nil })
		return err
	})
}

// deploy has a run take its step under one agent, die, and go on under another.
func deploy(t *testing.T, before, after agent.Agent) agenttest.Outcome {
	t.Helper()
	trial := agenttest.New(before, contracts.Submission{})
	trial.After = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, "")
	trial.Attempt(t.Context())
	trial.Deploy(after)
	return trial.Run(t.Context())
}

func TestStepOfAnotherType(t *testing.T) {
	var v1 pageV1
	var v2 pageV2
	var s string
	var n *int
	wantStatus(t, deploy(t, result(pageV1{"x", 3}, &v1), result(pageV2{}, &v2)), contracts.StatusSucceeded) // a field more is no harm
	if v2.Title != "x" || v2.Size != 3 {
		t.Errorf("got %+v", v2)
	}
	for _, o := range []agenttest.Outcome{
		deploy(t, result(pageV2{Title: "x"}, &v2), result(pageV1{}, &v1)),
		deploy(t, result(pageV1{}, &v1), result("", &s)),
		deploy(t, result("x", &s), result(pageV1{}, &v1)),
		deploy(t, result[*int](nil, &n), result(pageV1{}, &v1)),
	} {
		if o.Status != contracts.StatusFailed || o.Error.Retriable || !strings.Contains(o.Error.Message, "the code has changed since") {
			t.Errorf("%s, %+v", o.Status, o.Error)
		}
	}
	wantStatus(t, deploy(t, result[*int](nil, &n), result[*int](nil, &n)), contracts.StatusSucceeded)
}

// Code that knows what a former one remembered may ask for it as that was.
func TestStepOfAnotherTypeMayBeTakenAgain(t *testing.T) {
	var was string
	after := of(func(ctx context.Context, run *agent.Run) error {
		if _, err := agent.Step(ctx, run, "page", func(context.Context) (pageV1, error) { return pageV1{}, nil }); err == nil {
			return errors.New("a text passed for a page")
		}
		_, err := agent.Step(ctx, run, "page", func(context.Context) (string, error) { return "again", nil })
		return err
	})
	wantStatus(t, deploy(t, result("x", &was), after), contracts.StatusSucceeded)
}

// What would not come back as it was is refused before it is stored, and a
// first attempt sees what a second one would.
func TestResultsThatDoNotSurviveJSON(t *testing.T) {
	type secretive struct {
		Seen   int
		hidden int
	}
	var got secretive
	o := agenttest.New(result(secretive{1, 2}, &got), contracts.Submission{}).Run(t.Context())
	if wantStatus(t, o, contracts.StatusSucceeded); got != (secretive{Seen: 1}) {
		t.Errorf("a first attempt sees %+v, a second one would not", got)
	}
	var f func()
	var reader struct{ R interface{ Read() } }
	for _, a := range []agent.Agent{result(func() {}, &f), result(struct{ R interface{ Read() } }{reading{}}, &reader)} {
		trial := agenttest.New(a, contracts.Submission{})
		if o := trial.Run(t.Context()); o.Status != contracts.StatusFailed || o.Error.Retriable || !strings.Contains(o.Error.Message, "does not survive JSON") {
			t.Errorf("%s, %+v", o.Status, o.Error)
		}
		if slices.Contains(trial.Types(), contracts.TypeStepCompleted) {
			t.Error("it was stored")
		}
	}
}

type reading struct{}

func (reading) Read() {}

func TestStepsThatAreGone(t *testing.T) {
	var s steps
	gone := func(names ...string) agent.Agent {
		return of(func(ctx context.Context, run *agent.Run) error {
			run.Forget(names...)
			return s.take(ctx, run, "renamed")
		})
	}
	o := deploy(t, of(s.abc), gone())
	if o.Status != contracts.StatusFailed || o.Error.Retriable || !strings.Contains(o.Error.Message, `["a"]`) {
		t.Errorf("%s, %+v", o.Status, o.Error)
	}
	wantStatus(t, deploy(t, of(s.abc), gone("a")), contracts.StatusSucceeded)
	// Nor does it keep an attempt from taking the step after all.
	wantStatus(t, deploy(t, of(s.abc), gone("a", "renamed")), contracts.StatusSucceeded)
}

// A checkpoint stands for the steps before it, and for no other.
func TestCheckpointPassesSteps(t *testing.T) {
	var s steps
	first := of(func(ctx context.Context, run *agent.Run) error {
		if resumed, err := run.State(new(int)); err != nil {
			return err
		} else if !resumed {
			if err := s.take(ctx, run, "before"); err != nil {
				return err
			}
			if err := run.Checkpoint(ctx, 1); err != nil {
				return err
			}
		}
		return s.take(ctx, run, "after")
	})
	for _, then := range []struct {
		agent agent.Agent
		want  contracts.Status
	}{
		{first, contracts.StatusSucceeded},
		{of(func(ctx context.Context, run *agent.Run) error { return s.take(ctx, run, "renamed") }), contracts.StatusFailed},
	} {
		s = steps{}
		trial := agenttest.New(first, contracts.Submission{})
		trial.After = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, "after")
		trial.Attempt(t.Context())
		trial.Deploy(then.agent)
		o := trial.Run(t.Context())
		wantStatus(t, o, then.want)
		s.want(t, map[string]int{"before": 1, "after": 1})
		if o.Status == contracts.StatusFailed && !strings.Contains(o.Error.Message, `["after"]`) {
			t.Errorf("it failed for %s", o.Error.Message)
		}
	}
}
