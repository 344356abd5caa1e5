package e2e

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
	"longhaul/services/worker"
)

// How the dispatcher carries out each cancel is in services/dispatcher, the Cancel hook and
// its bound in services/worker; how fast a running one ends is measured in
// test/recovery. Here is what a user sees of them, and those that take more
// than one process to go wrong.

// startCounting starts a worker that counts, and submits a run
// to it that would go on for minutes; it returns when the run has begun.
func (s *stage) startCounting(t *testing.T, slots string) (w *process, log *runlog.Log, id string) {
	t.Helper()
	w = s.start(t, "worker", "--agent", "count", "--worker-id", "first", "--concurrency", slots)
	s.waitForAgent(t, "count")
	log = s.log(t)
	return w, log, s.submitCount(t, log, contracts.StatusRunning)
}

// submitCount submits a run that would go on for minutes, and waits for a status.
func (s *stage) submitCount(t *testing.T, log *runlog.Log, until contracts.Status) string {
	t.Helper()
	id := contracts.NewRunID()
	if _, stderr, code := s.cli(t, "", "submit", "count", "--run-id", id, "--param", "n=10000", "--param", "pause_ms=20"); code != 0 {
		t.Fatal(stderr)
	}
	waitStatus(t, log, id, until)
	return id
}

func waitStatus(t *testing.T, log *runlog.Log, id string, want contracts.Status) {
	t.Helper()
	waitFor(t, fmt.Sprintf("run %s to be %s", id, want), func() bool {
		e, err := log.Last(t.Context(), id)
		return err == nil && e.Status == want
	})
}

// checkCancelled checks that a run has ended, once, as cancelled, in epoch 1 or none.
func checkCancelled(t *testing.T, log *runlog.Log, id string) {
	t.Helper()
	all := checkLog(t, log, id)
	if end := all[len(all)-1]; end.Status != contracts.StatusCancelled || end.Epoch > 1 {
		t.Errorf("run %s ended %s in epoch %d", id, end.Status, end.Epoch)
	}
}

// A run is cancelled in each state that it may be in; the user sees it end, at
// once and once, and what comes after it is not held up.
func TestCancelInEveryState(t *testing.T) {
	s := newStage(t)
	s.start(t, "dispatcher")
	s.start(t, "statekeeper")
	s.start(t, "worker", "--agent", "flaky", "--retry-backoff-base", "3600", "--retry-backoff-max", "3600", "--cancel-grace-seconds", "0.5",
		"--exec", `deaf=sh -c 'trap "" TERM INT; while kill -0 $PPID; do sleep 0.1; done'`, "--concurrency", "4")
	s.waitForAgent(t, "deaf")
	_, log, running := s.startCounting(t, "1") // the one place of its worker
	waitFor(t, "statekeeper to answer", func() bool {
		_, _, code := s.cli(t, "", "get", running)
		return code == 0
	})
	submit := func(args ...string) string {
		id := contracts.NewRunID()
		if _, stderr, code := s.cli(t, "", append([]string{"submit", "--run-id", id}, args...)...); code != 0 {
			t.Fatal(stderr)
		}
		return id
	}
	for _, c := range []struct {
		state, id string
		at        contracts.EventType // the last event when it is cancelled
		want      contracts.EventType // the one before the end
	}{
		{"scheduled", submit("count", "--not-before", "1h"), contracts.TypeScheduled, contracts.TypeScheduled},
		{"pending", submit("count"), contracts.TypeQueued, contracts.TypeQueued},
		{"in backoff", submit("flaky", "--param", "fail_times=2"), contracts.TypeRetrying, contracts.TypeRetrying},
		{"deaf", submit("deaf"), contracts.TypeStarted, contracts.TypeCancelRequested},
		{"running", running, "", contracts.TypeCancelRequested},
	} {
		t.Run(c.state, func(t *testing.T) {
			if c.at != "" {
				waitFor(t, fmt.Sprintf("the last event of run %s to be %s", c.id, c.at), func() bool {
					e, err := log.Last(t.Context(), c.id)
					return err == nil && e.Type == c.at
				})
			}
			begun := time.Now()
			out, stderr, code := s.cli(t, "", "cancel", c.id, "--wait", "--reason", "enough")
			if code != 0 || out != "Run "+c.id+" is cancelled.\n" {
				t.Errorf("exit code %d: %s%s", code, out, stderr)
			}
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
			all := checkLog(t, log, c.id)
			n := len(all)
			before := n - 2
			for before > 0 && (!all[before].Type.Reserved() || all[before].Type == contracts.TypeCheckpoint) {
				before-- // what the agent still had in hand
			}
			if before < 0 || all[n-1].Type != contracts.TypeCancelled || all[before].Type != c.want {
				t.Errorf("the log ends with %s after %s, want it after %s", all[n-1].Type, all[max(before, 0)].Type, c.want)
			}
			if out, _, _ := s.cli(t, "", "get", c.id); !strings.Contains(out, "cancelled") || !strings.Contains(out, "enough") {
				t.Errorf("get shows\n%s", out)
			}
			if out, _, code := s.cli(t, "", "watch", c.id); code != 5 || !strings.Contains(out, "run.cancelled") {
				t.Errorf("watch: exit code %d:\n%s", code, out)
			}
		})
	}
}

// Two users cancel a run at once, and a third one later; a run that is unknown
// is told from one that has ended.
func TestCancelTwiceAndAfterwards(t *testing.T) {
	s := newStage(t)
	s.start(t, "dispatcher")
	s.start(t, "statekeeper")
	_, log, id := s.startCounting(t, "2")
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if out, stderr, code := s.cli(t, "", "cancel", id, "--wait"); code != 0 {
				t.Errorf("exit code %d: %s%s", code, out, stderr)
			}
		})
	}
	both.Wait()
	checkCancelled(t, log, id)
	events := 0
	for e, err := range log.Read(t.Context(), id, 1) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == contracts.TypeCancelRequested || e.Type == contracts.TypeCancelled {
			events++
		}
	}
	if events != 2 {
		t.Errorf("%d events of a cancel, want one requested and one done", events)
	}
	if out, _, code := s.cli(t, "", "cancel", id); code != 0 || !strings.Contains(out, "has ended already: cancelled") {
		t.Errorf("of a cancelled run: exit code %d: %s", code, out)
	}
	unknown := contracts.NewRunID()
	if _, stderr, code := s.cli(t, "", "cancel", unknown); code != 8 || !strings.Contains(stderr, unknown) {
		t.Errorf("of an unknown run: exit code %d: %s", code, stderr)
	}
}

// The worker was killed, and the cancel comes before another one has the run:
// it is ended by whoever takes it, or was taken over and is cancelled there.
func TestCancelOfADeadWorkersRun(t *testing.T) {
	for name, other := range map[string]bool{"another worker comes later": false, "another worker is there": true} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.start(t, "dispatcher")
			s.start(t, "statekeeper")
			first, log, id := s.startCounting(t, "2")
			second := func() { s.start(t, "worker", "--agent", "count", "--worker-id", "second") }
			if other {
				second()
			}
			first.kill()
			if _, stderr, code := s.cli(t, "", "cancel", id); code != 0 {
				t.Fatal(stderr)
			}
			if !other {
				waitStatus(t, log, id, contracts.StatusCancelling)
				second()
			}
			all := checkLog(t, log, id)
			if end := all[len(all)-1]; end.Status != contracts.StatusCancelled || !other && end.Epoch != 1 {
				t.Errorf("run ended %s in epoch %d", end.Status, end.Epoch)
			}
		})
	}
}

// A cancel is kept while no dispatcher runs, and carried out when one does.
func TestCancelWhileNoDispatcherRuns(t *testing.T) {
	s := newStage(t)
	dispatcher := s.start(t, "dispatcher")
	_, log, running := s.startCounting(t, "1")
	pending := s.submitCount(t, log, contracts.StatusPending) // the one place is taken
	dispatcher.kill()
	for _, id := range []string{running, pending} {
		if _, stderr, code := s.cli(t, "", "cancel", id); code != 0 {
			t.Fatal(stderr)
		}
	}
	for id, want := range map[string]contracts.Status{running: contracts.StatusRunning, pending: contracts.StatusPending} {
		if e, err := log.Last(t.Context(), id); err != nil || e.Status != want {
			t.Errorf("without a dispatcher run %s became %s, %v", id, e.Status, err)
		}
	}
	s.start(t, "dispatcher")
	for _, id := range []string{running, pending} {
		checkCancelled(t, log, id)
	}
}

// Agents return at the very moment of their cancel: a little before, a little
// after. Either may win, and exactly one of them does.
func TestCancelBesideTheEnd(t *testing.T) {
	const tries = 100
	s := newStage(t)
	s.start(t, "dispatcher")
	gates := make(map[string]chan struct{}, tries)
	for range tries {
		gates[contracts.NewRunID()] = make(chan struct{})
	}
	w, err := worker.New(s.connect(t, "worker"), worker.Config{Concurrency: tries, Logger: slog.New(slog.DiscardHandler), Agents: []agent.Agent{{
		Key: "gated", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
			select {
			case <-gates[run.ID]:
				return agent.Result{FinalOutput: "done"}, nil
			case <-ctx.Done():
				return agent.Result{}, context.Cause(ctx)
			}
		},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	s.waitForAgent(t, "gated")
	c, err := client.New(s.connect(t, "client"))
	if err != nil {
		t.Fatal(err)
	}
	log := s.log(t)
	for id := range gates {
		if _, err := c.Submit(t.Context(), contracts.Submission{RunID: id, AgentKey: "gated"}); err != nil {
			t.Fatal(err)
		}
	}
	ends := map[contracts.Status]int{}
	try := 0
	for id, gate := range gates {
		waitStatus(t, log, id, contracts.StatusRunning)
		// From 3 ms before the command is stored to 7 ms after it. The first one
		// has ended by then, and the last one does not return by itself.
		opened := make(chan struct{})
		after := time.Duration(try-30) * 100 * time.Microsecond
		open := func() { close(gate); close(opened) }
		switch {
		case try == 0:
			open()
			waitStatus(t, log, id, contracts.StatusSucceeded)
		case try == tries-1:
			close(opened)
		case after <= 0:
			time.AfterFunc(0, open)
			time.Sleep(-after)
		}
		if err := c.Cancel(t.Context(), id, contracts.CancelCommand{}); err != nil {
			t.Fatal(err)
		}
		if after > 0 && try < tries-1 {
			time.AfterFunc(after, open)
		}
		<-opened
		all := checkLog(t, log, id)
		ends[all[len(all)-1].Status]++
		try++
	}
	t.Logf("ends: %v", ends)
	if ends[contracts.StatusSucceeded] == 0 || ends[contracts.StatusCancelled] == 0 || len(ends) != 2 {
		t.Errorf("ends: %v", ends)
	}
	// What was acknowledged is carried out, and changed nothing any more.
	js, err := jsutil.JetStream(s.connect(t, "operator"))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "every command to be carried out", func() bool {
		inbox, err := js.Stream(t.Context(), contracts.StreamInbox)
		return err == nil && inbox.CachedInfo().State.Msgs == 0
	})
	for id := range gates {
		if n := terminalEvents(t, log, id); n != 1 {
			t.Errorf("run %s has %d terminal events", id, n)
		}
	}
}

func terminalEvents(t *testing.T, log *runlog.Log, id string) (n int) {
	t.Helper()
	for e, err := range log.Read(t.Context(), id, 1) {
		if err != nil && !errors.Is(err, runlog.ErrMalformed) {
			t.Fatal(err)
		}
		if e.Type.Terminal() {
			n++
		}
	}
	return n
}
