package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/agent/builtin"
	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
)

// demoCmd shows what Longhaul does, on real processes, and checks that it did.
type demoCmd struct{}

// Help is shown below the command's summary.
func (demoCmd) Help() string {
	return `An embedded broker, a dispatcher, a statekeeper and two worker processes, on a directory that is removed at the end. Six runs are submitted; one worker is killed with kill -9 in the middle of one. It exits with 0 only if every run ended as it should. It takes about 15 seconds.

Example:

    longhaul demo`
}

const (
	// demoTime bounds the whole demonstration.
	demoTime = 55 * time.Second
	// demoSteps and demoPause give the killed run about 5 s of work.
	demoSteps = 20
	demoPause = 250 * time.Millisecond
	// demoKillAt is the checkpoint after which its worker is killed.
	demoKillAt = 7
	// demoTakeover is what the handing over may take. About a second is
	// promised; the rest is for a slow machine.
	demoTakeover = 10 * time.Second
)

// Run runs the demonstration.
func (d *demoCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := context.WithTimeout(ctx, demoTime)
	defer cancel()
	cast, err := startDemoCast(ctx, a)
	if err != nil {
		return err
	}
	defer cast.stop()
	show := &demoShow{a: a, cast: cast, runs: demoRuns(), byID: map[string]*demoRun{}}
	a.out.printf("%s\n\n", a.out.bold("Longhaul, a demonstration."))
	a.out.printf("An embedded broker, a dispatcher, a statekeeper, and two worker processes: %s and %s.\n\n",
		a.out.bold("alpha"), a.out.bold("beta"))
	if err := show.play(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("the demonstration was not over after %s: %w", demoTime, err)
		}
		return errors.Join(err, show.report(ctx))
	}
	return show.report(ctx)
}

// demoRun is one run of the demonstration: what is submitted, what should come
// of it, and what was seen of it.
type demoRun struct {
	name       string
	says       string // what it shows
	submission contracts.Submission
	raw        []byte // in place of submission: as a careless client would send it
	want       contracts.Status
	check      func(*demoRun) error // beyond the status

	events []runlog.Entry
}

// status is where the run stood when it was last seen.
func (r *demoRun) status() contracts.Status {
	if len(r.events) == 0 {
		return contracts.StatusNone
	}
	return r.events[len(r.events)-1].Status
}

// demoRuns are the runs of the demonstration.
func demoRuns() []*demoRun {
	submission := func(key, params string) contracts.Submission {
		s := contracts.Submission{RunID: contracts.NewRunID(), AgentKey: key}
		if params != "" {
			s.Input.Params = []byte(params)
		}
		return s
	}
	hello := submission(builtin.KeyEcho, "")
	hello.Input.Messages = []contracts.Message{contracts.Text("user", "Hello. Are you still there tomorrow?")}
	broken := submission(builtin.KeyFlaky, `{"fail_times": 99}`)
	broken.MaxAttempts = 2
	wrong := contracts.Submission{RunID: contracts.NewRunID()}
	return []*demoRun{
		{name: "hello", says: "a plain run", submission: hello, want: contracts.StatusSucceeded},
		{name: "crash", says: "survives kill -9 of its worker", want: contracts.StatusSucceeded, check: checkResumed,
			submission: submission(builtin.KeyCount, fmt.Sprintf(`{"n": %d, "pause_ms": %d}`, demoSteps, demoPause.Milliseconds()))},
		{name: "retry", says: "fails once, then succeeds", submission: submission(builtin.KeyFlaky, `{"fail_times": 1}`),
			want: contracts.StatusSucceeded, check: attempts(2)},
		{name: "broken", says: "fails for good", submission: broken, want: contracts.StatusFailed, check: attempts(2)},
		{name: "cancel", says: "is cancelled while it runs", submission: submission(builtin.KeyCount, `{"n": 1000, "pause_ms": 100}`),
			want: contracts.StatusCancelled},
		{name: "wrong", says: "is refused, with every fault", submission: wrong, want: contracts.StatusRejected, check: checkFaults,
			raw: fmt.Appendf(nil, `{"run_id": %q, "agent_key": "nobody", "max_attempts": 0, "colour": "blue"}`, wrong.RunID)},
	}
}

// demoShow plays it. One goroutine uses it.
type demoShow struct {
	a       *app
	cast    *demoCast
	runs    []*demoRun
	byID    map[string]*demoRun
	killed  time.Time // when the worker was
	resumed time.Duration
	started time.Time
}

// play submits the runs and goes along with their events until all have ended.
func (s *demoShow) play(ctx context.Context) error {
	events := make(chan runlog.Entry)
	failed := make(chan error, len(s.runs))
	following, stop := context.WithCancel(ctx)
	var followers sync.WaitGroup
	defer followers.Wait()
	defer stop()
	for _, r := range s.runs {
		s.byID[r.submission.RunID] = r
		followers.Go(func() {
			if err := followInto(following, s.cast.client, r.submission.RunID, events); err != nil {
				failed <- fmt.Errorf("follow %s: %w", r.name, err)
			}
		})
	}
	s.started = s.a.now()
	if err := s.submit(ctx); err != nil {
		return err
	}
	for open := len(s.runs); open > 0; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			return err
		case e := <-events:
			r := s.byID[e.RunID]
			r.events = append(r.events, e)
			s.print(r, e)
			if err := s.act(ctx, r, e); err != nil {
				return err
			}
			if e.Type.Terminal() {
				open--
			}
		}
	}
	return nil
}

// followInto passes a run's events on until it ends.
func followInto(ctx context.Context, c *client.Client, runID string, events chan<- runlog.Entry) error {
	for e, err := range c.Follow(ctx, runID, runlog.FollowOptions{UntilEnd: true}) {
		if err != nil {
			return err
		}
		select {
		case events <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (s *demoShow) submit(ctx context.Context) error {
	for _, r := range s.runs {
		var err error
		if r.raw != nil {
			// Not by the client library, which would have refused to send it.
			_, err = s.cast.js.PublishMsg(ctx, &nats.Msg{Subject: contracts.SubjectSubmit, Data: r.raw})
		} else {
			_, err = s.cast.client.Submit(ctx, r.submission)
		}
		if err != nil {
			return fmt.Errorf("submit %s: %w", r.name, err)
		}
	}
	return nil
}

// act does what the plot asks for when an event comes.
func (s *demoShow) act(ctx context.Context, r *demoRun, e runlog.Entry) error {
	switch {
	case r.name == "crash" && e.Type == contracts.TypeCheckpoint && e.Checkpoint.N == demoKillAt && s.killed.IsZero():
		pid, err := s.cast.kill(e.WorkerID)
		if err != nil {
			return err
		}
		s.killed = time.Now()
		s.narrate("kill -9 %d: worker %s dies in the middle of %s, after checkpoint %d", pid, e.WorkerID, r.name, demoKillAt)
	case r.name == "crash" && e.Type == contracts.TypeStarted && e.Epoch > 1:
		s.resumed = time.Since(s.killed)
		s.narrate("worker %s goes on with %s, %.1f s after the kill", e.WorkerID, r.name, s.resumed.Seconds())
	case r.name == "cancel" && e.Type == contracts.TypeCheckpoint && e.Checkpoint.N == 10:
		s.narrate("longhaul cancel %s", r.name)
		return s.cast.client.Cancel(ctx, e.RunID, contracts.CancelCommand{Reason: "seen enough", By: "demo"})
	}
	return nil
}
