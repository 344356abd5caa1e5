package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"longhaul/pkg/contracts"
)

// TestServicesStartedBeforeTheBroker starts everything while there is neither a
// broker nor a topology.
func TestServicesStartedBeforeTheBroker(t *testing.T) {
	s := newStage(t)
	s.stopBroker()
	s.start(t, "worker", "--agent", "echo")
	s.start(t, "statekeeper")
	s.start(t, "dispatcher")
	if _, stderr, code := s.cli(t, "", "submit", "echo", "--message", "hi"); code != 7 {
		t.Errorf("submit without a broker: exit code %d, %s", code, stderr)
	}
	s.startBroker(t)
	s.waitForAgent(t, "echo")
	out, stderr, code := s.cli(t, "", "submit", "echo", "--message", "hi", "--wait", "--json")
	if code != 0 || !strings.Contains(out, `"succeeded"`) {
		t.Errorf("exit code %d\n%s%s", code, out, stderr)
	}
}

func (s *stage) waitForAgent(t *testing.T, key string) {
	t.Helper()
	waitFor(t, "agent "+key+" to be registered", func() bool {
		out, _, code := s.cli(t, "", "agents", "--json")
		return code == 0 && strings.Contains(out, `"`+key+`"`)
	})
}

// TestKilledInAnyOrder kills and restarts each service, and the broker, while
// runs are under way: every run ends once, and as it should.
func TestKilledInAnyOrder(t *testing.T) {
	s := newStage(t)
	services := map[string][]string{
		"dispatcher":  {"dispatcher"},
		"statekeeper": {"statekeeper"},
		// A run that a worker was handed and had not begun when it died is the lease's to return.
		"worker-1": {"worker", "--agent", "count", "--agent", "echo", "--concurrency", "20", "--lease-ttl-seconds", "6"},
		"worker-2": {"worker", "--agent", "count", "--agent", "echo", "--concurrency", "20", "--lease-ttl-seconds", "6"},
	}
	running := map[string]*process{}
	for name, args := range services {
		running[name] = s.start(t, args...)
	}
	s.waitForAgent(t, "count")
	s.waitForAgent(t, "echo")

	var ids []string
	submit := func(n int) {
		var in strings.Builder
		for i := range n {
			id := contracts.NewRunID()
			ids = append(ids, id)
			if i%2 == 0 {
				fmt.Fprintf(&in, `{"run_id": %q, "agent_key": "echo", "max_attempts": 10}`+"\n", id)
			} else {
				fmt.Fprintf(&in, `{"run_id": %q, "agent_key": "count", "max_attempts": 10, "input": {"params": {"n": 10, "pause_ms": 50}}}`+"\n", id)
			}
		}
		if out, stderr, code := s.cli(t, in.String(), "submit", "-"); code != 0 {
			t.Fatalf("submit: exit code %d\n%s%s", code, out, stderr)
		}
	}
	for _, name := range []string{"worker-1", "dispatcher", "statekeeper", "worker-2", "dispatcher", "worker-1"} {
		submit(10)
		running[name].kill()
		submit(10) // with one of them gone
		running[name] = s.start(t, services[name]...)
	}
	submit(10)
	s.stopBroker()
	s.startBroker(t)
	submit(10)

	log := s.log(t)
	for _, id := range ids {
		all := checkLog(t, log, id)
		if end := all[len(all)-1]; end.Status != contracts.StatusSucceeded {
			t.Errorf("run %s ended %s: %s", id, end.Status, end.Payload)
		}
	}
	// The projection catches up with all of it.
	waitFor(t, "statekeeper to list every run as succeeded", func() bool {
		out, _, code := s.cli(t, "", "stats", "--json")
		return code == 0 && strings.Contains(strings.ReplaceAll(out, " ", ""), fmt.Sprintf(`"succeeded":%d`, len(ids)))
	})
}

// TestTakeover kills the worker in the middle of a run; another resumes it from
// its checkpoint in about a second, not after the lease of 30.
func TestTakeover(t *testing.T) {
	s := newStage(t)
	s.start(t, "dispatcher")
	s.start(t, "statekeeper")
	first := s.start(t, "worker", "--agent", "count", "--worker-id", "first")
	s.waitForAgent(t, "count")
	id := contracts.NewRunID()
	if _, stderr, code := s.cli(t, "", "submit", "count", "--run-id", id, "--param", "n=100", "--param", "pause_ms=20"); code != 0 {
		t.Fatal(stderr)
	}
	log := s.log(t)
	waitFor(t, "ten checkpoints", func() bool {
		e, err := log.Last(t.Context(), id)
		return err == nil && e.Checkpoint != nil && e.Checkpoint.N >= 10
	})
	s.start(t, "worker", "--agent", "count", "--worker-id", "second")
	first.kill()
	killed := time.Now()
	all := checkLog(t, log, id)
	steps := 0
	for _, e := range all {
		if e.Type == contracts.TypeStarted && e.Epoch == 2 {
			if took := e.Time.Sub(killed); took > 5*time.Second || e.WorkerID != "second" || e.Checkpoint == nil {
				t.Errorf("taken over after %v by %s from %+v", took, e.WorkerID, e.Checkpoint)
			}
		}
		if e.Type == contracts.TypeCheckpoint {
			if steps++; !strings.Contains(string(e.Payload), fmt.Sprintf(`{"i":%d}`, steps)) {
				t.Errorf("checkpoint %d says %s", steps, e.Payload)
			}
		}
	}
	if end := all[len(all)-1]; end.Status != contracts.StatusSucceeded || end.Epoch != 2 || steps != 100 {
		t.Errorf("ended %s in epoch %d with %d checkpoints", end.Status, end.Epoch, steps)
	}
}
