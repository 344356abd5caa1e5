package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"longhaul/pkg/contracts"
)

// TestPause pauses a queue while a run of it is executed: that one goes on to
// its end, nothing else begins, whatever is restarted meanwhile; the doctor
// finds nothing stuck, and a resume has all of it executed.
func TestPause(t *testing.T) {
	s := newStage(t)
	s.start(t, "dispatcher")
	keeper := s.start(t, "statekeeper")
	worker := s.start(t, "worker", "--agent", "count", "--worker-id", "w-old", "--lease-ttl-seconds", "6", "--heartbeat-interval-seconds", "2")
	s.waitForAgent(t, "count")
	submit := func(args ...string) string {
		t.Helper()
		out, stderr, code := s.cli(t, "", append([]string{"submit", "count"}, args...)...)
		if code != 0 {
			t.Fatalf("submit: %s", stderr)
		}
		return strings.TrimSpace(out)
	}
	must := func(args ...string) string {
		t.Helper()
		out, stderr, code := s.cli(t, "", args...)
		if code != 0 {
			t.Fatalf("%v: exit code %d\n%s%s", args, code, out, stderr)
		}
		return out
	}
	log := s.log(t)
	status := func(id string) contracts.Event {
		last, err := log.Last(t.Context(), id)
		if err != nil {
			return contracts.Event{}
		}
		return last.Event
	}
	// The one ends behind the pause, the other is there when its worker dies.
	ends, orphan := submit("-p", "n=20", "-p", "pause_ms=100"), submit("-p", "n=100000", "-p", "pause_ms=100")
	waitFor(t, "both runs to be executed", func() bool {
		return status(ends).Status == contracts.StatusRunning && status(orphan).Status == contracts.StatusRunning
	})
	if out := must("pause", "count", "--reason", "the model is down"); strings.Count(out, "paused until it is resumed") != 3 {
		t.Errorf("pause:\n%s", out)
	}
	waits := submit("-p", "n=2")
	waitFor(t, "the run to be queued", func() bool { return status(waits).Status == contracts.StatusPending })
	if out, stderr, code := s.cli(t, "", "watch", ends); code != 0 {
		t.Errorf("the run that was executed did not end well: %d\n%s%s", code, out, stderr)
	}
	worker.kill()
	s.stopBroker()
	s.startBroker(t)
	s.start(t, "worker", "--agent", "count", "--worker-id", "w-new", "--lease-ttl-seconds", "6", "--heartbeat-interval-seconds", "2").waitFor(t, "worker takes work")
	var found struct {
		OK       bool
		Findings []struct {
			What, State string
			Names       []string
		}
	}
	// Only then would a queue that is not paused hand the orphan out.
	keeper.waitFor(t, "gave its leases back")
	var out, stderr string
	code := -1
	waitFor(t, "the doctor to be content, when statuses have caught up with the brokers' restart", func() bool {
		out, stderr, code = s.cli(t, "", "doctor", "--json")
		return code == 0
	})
	if err := json.Unmarshal([]byte(out), &found); err != nil || code != 0 {
		t.Errorf("the doctor ended with %d: %v\n%s%s", code, err, out, stderr)
	}
	named := false
	for _, f := range found.Findings {
		named = named || f.What == "queues" && len(f.Names) == 3 && strings.Contains(f.Names[1], "the model is down")
	}
	if !named {
		t.Errorf("the doctor does not name the paused queues:\n%s", out)
	}
	if h := status(waits); h.Seq != 1 {
		t.Errorf("the run behind the pause has gone on: %+v", h)
	}
	if h := status(orphan); h.Epoch != 1 {
		t.Errorf("the orphan was taken over behind the pause: %+v", h)
	}
	if out := must("agents"); !strings.Contains(out, "paused until it is resumed") || !strings.Contains(out, "the model is down") {
		t.Errorf("agents:\n%s", out)
	}
	must("resume", "count")
	must("watch", waits)
	waitFor(t, "the orphan to be taken over", func() bool { return status(orphan).Epoch == 2 })
	must("cancel", orphan, "--wait")
	for _, id := range []string{ends, orphan, waits} {
		checkLog(t, log, id)
	}
	if out, _, code := s.cli(t, "", "pause", "nobody"); code != 8 {
		t.Errorf("pause of an unknown agent: exit code %d\n%s", code, out)
	}
}

// waitFor waits until the process has printed text.
func (p *process) waitFor(t *testing.T, text string) {
	t.Helper()
	waitFor(t, p.name+" to say "+text, func() bool { return strings.Contains(p.out.String(), text) })
}
