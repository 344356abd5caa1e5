package main

import (
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
)

// A work message and a status deleted by hand: the doctor says so, puts it
// right, and the run comes to its end.
func TestDoctor(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	if r := longhaul(t, url, "", "doctor", "--storage", "memory"); r.code != exitError || !strings.Contains(r.stdout, "topology") {
		t.Errorf("on an empty broker: %+v", r)
	}
	start(t, url, "dispatcher", "--storage", "memory", "--accept-unknown-agents")
	start(t, url, "statekeeper", "--storage", "memory", "--retention-days", "1").says("statekeeper started")
	waitFor(t, "all to be well", func() bool {
		return longhaul(t, url, "", "doctor", "--storage", "memory").code == exitOK
	})
	id := mustSubmit(t, url, "echo", "-m", "hi")
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	work, err := js.Stream(t.Context(), contracts.StreamWork)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the work message", func() bool {
		m, err := work.GetLastMsgForSubject(t.Context(), contracts.WorkSubject("echo", contracts.PriorityNormal, id))
		return err == nil && work.DeleteMsg(t.Context(), m.Sequence) == nil
	})
	var said struct {
		OK       bool
		Findings []finding
	}
	waitFor(t, "the doctor to miss it", func() bool {
		r := longhaul(t, url, "", "doctor", "--storage", "memory", "--json")
		mustDecode(t, r.stdout, &said)
		return r.code == exitError && strings.Contains(r.stdout, id)
	})
	if said.OK {
		t.Errorf("the doctor says that all is well: %+v", said)
	}
	if r := longhaul(t, url, "", "doctor", "--storage", "memory", "--fix"); r.code != exitOK || !strings.Contains(r.stdout, "fixed") || !strings.Contains(r.stdout, id) {
		t.Errorf("with --fix: %+v", r)
	}
	if r := longhaul(t, url, "", "doctor", "--storage", "memory"); !strings.Contains(r.stdout, "since 1 statekeeper began") || !strings.Contains(r.stdout, "1 run that had lost its work queued again") {
		t.Errorf("it does not say what was put right: %+v", r)
	}
	start(t, url, "worker", "--storage", "memory", "--agent", "echo")
	if r := longhaul(t, url, "", "watch", id, "--json"); r.code != exitOK || !strings.Contains(r.stdout, contracts.RequeueWorkLost) {
		t.Errorf("the run did not go on: %+v", r)
	}
}

// The last worker is killed with a run in its hands: there is nobody for its
// agent, and nobody who holds the run, until another one comes.
func TestDoctorOfWorkers(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	start(t, url, "dispatcher", "--storage", "memory")
	start(t, url, "statekeeper", "--storage", "memory").says("statekeeper started")
	worker := start(t, url, "worker", "--storage", "memory", "--agent", "count", "--concurrency", "1")
	told := func() map[string]finding {
		t.Helper()
		var doc struct{ Findings []finding }
		mustDecode(t, longhaul(t, url, "", "doctor", "--storage", "memory", "--json").stdout, &doc)
		found := map[string]finding{}
		for _, f := range doc.Findings {
			found[f.What] = f
		}
		return found
	}
	be := func(state, why string) {
		t.Helper()
		var found map[string]finding
		waitFor(t, "the doctor to find agents and workers "+state+" "+why, func() bool {
			found = told()
			return found["agents"].State == state && found["workers"].State == state
		})
		if state == findingWrong && (!strings.Contains(found["agents"].Names[0], "count") || !strings.Contains(found["workers"].Names[0], "(holds 1 run)")) {
			t.Errorf("it says %+v, %+v", found["agents"], found["workers"])
		}
	}
	be(findingOK, "with a worker")
	mustSubmit(t, url, "count", "-p", "n=100000", "-p", "pause_ms=20")
	waitFor(t, "the run to be held", func() bool {
		return strings.Contains(longhaul(t, url, "", "list", "--status", "running").stdout, "count")
	})
	be(findingOK, "with a worker that has no slot left")
	worker.signal(syscall.SIGKILL)
	worker.end()
	be(findingWrong, "without a worker")
	start(t, url, "worker", "--storage", "memory", "--agent", "count", "--concurrency", "1")
	be(findingOK, "with another worker")
}
