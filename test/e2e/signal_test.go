package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// asks waits for two signals, the second of which nobody sends; its worker dies
// before and after each thing that is remembered.
func asks(ctx context.Context, run *agent.Run) (agent.Result, error) {
	word, err := agent.Signal[string](ctx, run, "go", time.Hour)
	if err != nil {
		return agent.Result{}, err
	}
	dieOnce("signalled")
	if _, err := agent.Step(ctx, run, "act", func(context.Context) (bool, error) { ledger("acted"); return true, nil }); err != nil {
		return agent.Result{}, err
	}
	_, err = agent.Wait(ctx, run, "more", 3*time.Second)
	if err != nil && strings.Contains(err.Error(), agent.ErrSignalTimeout.Error()) {
		dieOnce("timed out")
		return agent.Result{FinalOutput: word}, nil
	}
	return agent.Result{}, err
}

// A run waits while all processes are killed and the broker is restarted. The
// signal is sent while nothing but the broker runs; then the dispatcher comes
// back, and after it the worker. Until the run goes on no statekeeper is there to mend anything.
func TestSignalOverKill9(t *testing.T) {
	s := newStage(t)
	dispatcher := s.start(t, "dispatcher")
	dir := t.TempDir()
	alive := s.keepWorker(t, dir)
	s.waitForAgent(t, "asks")
	log := s.log(t)
	id := contracts.NewRunID()
	if _, stderr, code := s.cli(t, "", "submit", "asks", "--run-id", id); code != 0 {
		t.Fatal(stderr)
	}
	waitFor(t, "the run to wait", func() bool {
		e, err := log.Last(t.Context(), id)
		return err == nil && e.WaitsFor == "go"
	})
	dispatcher.kill()
	p := <-alive // no other one starts meanwhile
	_ = p.Kill()
	s.stopBroker()
	s.startBroker(t)
	for _, data := range []string{`"first"`, `"second"`} {
		out, stderr, code := s.cli(t, "", "signal", id, "go", "--data", data, "--by", "ann")
		if code != 0 || !strings.Contains(out, "goes on") {
			t.Fatalf("exit code %d: %s%s", code, out, stderr)
		}
	}
	if e, err := log.Last(t.Context(), id); err != nil || e.WaitsFor != "go" {
		t.Fatalf("without a dispatcher: %+v, %v", e.Event, err)
	}
	s.start(t, "dispatcher")
	waitFor(t, "the run to be signalled", func() bool {
		e, err := log.Last(t.Context(), id)
		return err == nil && e.Type == contracts.TypeSignalled
	})
	alive <- p // from now on the worker is started again
	waitFor(t, "the run to go on", func() bool {
		e, err := log.Last(t.Context(), id)
		return err == nil && e.Epoch > 1
	})
	s.start(t, "statekeeper") // for the deaths to come, after which the lease would decide

	all := checkLog(t, log, id)
	if end := all[len(all)-1]; end.Status != contracts.StatusSucceeded || !strings.Contains(string(end.Payload), `"first"`) {
		t.Errorf("the run is %s: %s", end.Status, end.Payload)
	}
	signalled, acted := 0, 0
	for i, e := range all {
		switch {
		case e.Type == contracts.TypeSignalled:
			signalled++
		case e.Type == contracts.TypeSleeping && e.WaitsFor == "more":
			if next := all[i+1]; next.Type != contracts.TypeStarted || next.Time.Before(e.NotBefore) || next.Attempt != e.Attempt+1 {
				t.Errorf("after %+v comes %s at %v as attempt %d", e.Position, next.Type, next.Time, next.Attempt)
			}
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "ledger"))
	if acted = strings.Count(string(data), "acted"); err != nil || acted != 1 || signalled != 2 {
		t.Errorf("acted %d times on %d signals, %v", acted, signalled, err)
	}
	if out, stderr, code := s.cli(t, "", "signal", id, "go"); code != 1 || !strings.Contains(stderr, "takes no signal any more") {
		t.Errorf("of a run that has ended: exit code %d: %s%s", code, out, stderr)
	}
}
