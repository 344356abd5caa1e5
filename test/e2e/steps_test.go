package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/services/worker"
)

// This test binary is a worker, too: one whose agent dies by its own hand,
// once at each of the points that matter, and keeps a ledger of what it did.
const (
	workerURL = "E2E_STEPS_URL" // set, to a URL or the path of a context: be that worker
	ledgerDir = "E2E_STEPS_DIR"
	// nap is well above what the agent sleeps in place.
	nap = agent.SleepInPlace + 2*time.Second
)

// ledger notes what was done, past the death of whoever did it.
func ledger(line string) {
	f, err := os.OpenFile(filepath.Join(os.Getenv(ledgerDir), "ledger"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, line)
	}
	if err != nil {
		panic(err)
	}
}

// dieOnce is kill -9, the first time that it comes by here.
func dieOnce(where string) {
	if os.Mkdir(filepath.Join(os.Getenv(ledgerDir), where), 0o700) == nil {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func suicidal(ctx context.Context, run *agent.Run) (agent.Result, error) {
	step := func(name string) error {
		_, err := agent.Step(ctx, run, name, func(context.Context) (string, error) {
			dieOnce("before " + name)
			ledger(name)
			dieOnce("in " + name)
			return name, nil
		})
		if err == nil {
			dieOnce("after " + name)
		}
		return err
	}
	for _, name := range []string{"one", "two"} {
		if err := step(name); err != nil {
			return agent.Result{}, err
		}
	}
	ledger("sleeps")
	if err := agent.Sleep(ctx, run, "nap", nap); err != nil {
		return agent.Result{}, err
	}
	dieOnce("awake")
	return agent.Result{FinalOutput: "done"}, step("three")
}

// runStepsWorker is the worker's main.
func runStepsWorker() int {
	cfg := jsutil.ConnectConfig{Name: "suicidal", Retry: true}
	if at := os.Getenv(workerURL); strings.HasSuffix(at, ".json") {
		cfg.Context = at
	} else {
		cfg.URL = at
	}
	nc, err := jsutil.Connect(cfg)
	if err == nil {
		var w *worker.Worker
		w, err = worker.New(nc, worker.Config{Agents: []agent.Agent{{Key: "suicidal", Run: suicidal}, {Key: "asks", Run: asks}, {Key: "mails", Run: mails}, {Key: "talks", Run: talks}}, MaxAttempts: 20,
			Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
		if err == nil {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
			defer stop()
			err = w.Run(ctx)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// keepWorker starts that worker, and again whenever it has died, until the test
// ends. It is the channel's one element while it lives.
func (s *stage) keepWorker(t *testing.T, dir string) chan *os.Process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	kept, alive := make(chan struct{}), make(chan *os.Process, 1)
	at := s.flags("worker")[1] // it stays the same, but a restart of the broker writes it anew
	go func() {
		defer close(kept)
		for ctx.Err() == nil {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), workerURL+"="+at, ledgerDir+"="+dir)
			if err := cmd.Start(); err != nil {
				t.Error(err)
				return
			}
			alive <- cmd.Process
			ended := make(chan struct{})
			go func() { _ = cmd.Wait(); close(ended) }()
			select {
			case <-ended:
			case <-ctx.Done():
				_ = cmd.Process.Kill()
				<-ended
			}
			select {
			case <-alive: // or the test that ends has it in hand
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-kept })
	return alive
}

// A worker is killed before, in and after each step, while its run sleeps and
// when it wakes up, and the broker is restarted meanwhile: what is in the log is
// not done again, what was lost is, and the sleep is as long as it was to be.
func TestStepsAndSleepOverKill9(t *testing.T) {
	s := newStage(t)
	s.start(t, "dispatcher")
	s.start(t, "statekeeper")
	dir := t.TempDir()
	alive := s.keepWorker(t, dir)
	s.waitForAgent(t, "suicidal")
	log := s.log(t)
	id := contracts.NewRunID()
	if _, stderr, code := s.cli(t, "", "submit", "suicidal", "--run-id", id); code != 0 {
		t.Fatal(stderr)
	}
	waitFor(t, "the run to sleep", func() bool {
		e, err := log.Last(t.Context(), id)
		return err == nil && e.Type == contracts.TypeSleeping
	})
	p := <-alive
	_ = p.Kill()
	alive <- p
	s.stopBroker()
	s.startBroker(t)

	all := checkLog(t, log, id)
	done, ended := map[string]int{}, all[len(all)-1]
	data, err := os.ReadFile(filepath.Join(dir, "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Fields(string(data)) {
		done[line]++
	}
	// Killed in a step: executed again. Killed before or after it: not.
	for _, name := range []string{"one", "two", "three"} {
		if done[name] != 2 {
			t.Errorf("step %s was executed %d times, want 2: the one that was lost, and the one that counts", name, done[name])
		}
	}
	if ended.Status != contracts.StatusSucceeded {
		t.Errorf("the run is %s: %s", ended.Status, ended.Payload)
	}
	late := 15 * time.Second
	if onThree() { // all of which were stopped, and have to find one another
		late *= 3
	}
	completed, sleeping, started := 0, 0, 0
	for i, e := range all {
		switch e.Type {
		case contracts.TypeStepCompleted:
			completed++
		case contracts.TypeStarted:
			started++
		case contracts.TypeSleeping:
			sleeping++
			if next := all[i+1]; next.Type != contracts.TypeStarted || next.Time.Before(e.NotBefore) || next.Time.Sub(e.NotBefore) > late || next.Attempt != e.Attempt+1 {
				t.Errorf("after %+v comes %s at %v as attempt %d", e.Position, next.Type, next.Time, next.Attempt)
			}
		}
	}
	// Nine deaths at steps, one when awake; a sleep is not charged.
	if completed != 4 || sleeping != 1 || started != 12 || ended.Attempt != 11 {
		t.Errorf("%d steps completed, %d sleeps, %d starts, ended in attempt %d", completed, sleeping, started, ended.Attempt)
	}
}
