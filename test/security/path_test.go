package security

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"longhaul/internal/security"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/test/secured"
)

// newStage is a deployment of one broker, its topology and all services, those
// of one agent set: mail, with echo and count.
func newStage(t *testing.T, p security.Plan, statekeeper ...string) *stage {
	t.Helper()
	p.AgentSets = []security.AgentSet{{Name: "mail", Agents: []string{"echo", "count"}}, {Name: "web", Agents: []string{"flaky"}}}
	s := &stage{d: secured.New(t, p)}
	s.d.Topology(t, "main", "echo", "count", "flaky")
	s.start(t, "dispatcher", "dispatcher", "--http", "127.0.0.1:0", s.d.Replicas())
	s.start(t, "statekeeper", append([]string{"statekeeper", "--http", "127.0.0.1:0", s.d.Replicas()}, statekeeper...)...)
	s.start(t, "worker-mail", "worker", "--agent", "echo", "--agent", "count", "--http", "127.0.0.1:0", s.d.Replicas())
	s.waitForAgent(t, "count")
	return s
}

// waitForAgent waits until a worker listens for an agent's work.
func (s *stage) waitForAgent(t *testing.T, key string) {
	t.Helper()
	waitFor(t, "a worker for "+key, func() bool {
		out, _, code := s.cli(t, "subscriber", "agents", "--json")
		var agents []struct {
			Key       string `json:"agent_key"`
			Listening bool   `json:"listening"`
		}
		if code != 0 || json.Unmarshal([]byte(out), &agents) != nil {
			return false
		}
		for _, a := range agents {
			if a.Key == key {
				return a.Listening
			}
		}
		return false
	})
}

// status is what a subscriber is told of a run, "" if it is told nothing.
func (s *stage) status(t *testing.T, id string) string {
	t.Helper()
	var run struct {
		Run contracts.StatusRecord `json:"run"`
	}
	out, _, code := s.cli(t, "subscriber", "get", id, "--json")
	if code == 8 {
		return ""
	}
	if err := json.Unmarshal([]byte(out), &run); err != nil {
		t.Fatalf("get %s: %v in %q", id, err, out)
	}
	return string(run.Run.Status)
}

func (s *stage) waitForStatus(t *testing.T, id, want string) {
	t.Helper()
	waitFor(t, fmt.Sprintf("run %s to be %q", id, want), func() bool { return s.status(t, id) == want })
}

// TestRunPath goes the whole way of a run and of what is asked about runs, each
// step as the user whose step it is. That no service lacks a right is looked at
// when it ends.
func TestRunPath(t *testing.T) { runPath(t, security.Plan{}) }

// TestRunPathOnThree is the same on a cluster of three.
func TestRunPathOnThree(t *testing.T) {
	runPath(t, security.Plan{Nodes: []security.Node{{Name: "n1"}, {Name: "n2"}, {Name: "n3"}}})
}

func runPath(t *testing.T, p security.Plan) {
	s := newStage(t, p, "--retention-for", "timed_out=2s")
	for _, service := range s.processes {
		s.ready(t, service)
	}

	// Submit, wait, and the same key once more.
	if out := s.must(t, "client", "submit", "echo", "--message", "hi", "--wait", "--idempotency-key", "k1"); !strings.Contains(out, "hi") {
		t.Errorf("wait: %s", out)
	}
	first, again := contracts.RunIDFromKey("k1"), s.must(t, "submitter", "submit", "echo", "--message", "hi", "--idempotency-key", "k1")
	if !strings.Contains(again, first) {
		t.Errorf("the same key: %s, want run %s", again, first)
	}

	// Follow live what another user submits; cancel it while it goes on.
	counting := contracts.NewRunID()
	s.must(t, "submitter", "submit", "count", "--run-id", counting, "--param", "n=1000", "--param", "pause_ms=50")
	s.waitForStatus(t, counting, "running")
	s.must(t, "submitter", "cancel", counting, "--reason", "enough")
	out, _, code := s.cli(t, "subscriber", "watch", counting, "--json")
	if code != 5 || !strings.Contains(out, `"run.cancelled"`) || strings.Count(out, `"run.started"`) != 1 {
		t.Errorf("watch ended with %d:\n%s", code, out)
	}
	s.must(t, "submitter", "redrive", counting)
	s.waitForStatus(t, counting, "running")
	s.must(t, "submitter", "cancel", counting)
	s.waitForStatus(t, counting, "cancelled")

	// A delayed run, and a worker that is killed while it executes one.
	delayed := contracts.NewRunID()
	s.must(t, "submitter", "submit", "echo", "--run-id", delayed, "--not-before", "2s")
	s.waitForStatus(t, delayed, "scheduled")
	killed := contracts.NewRunID()
	s.must(t, "submitter", "submit", "count", "--run-id", killed, "--param", "n=20", "--param", "pause_ms=100")
	s.waitForStatus(t, killed, "running")
	s.processes[2].kill()
	s.start(t, "worker-mail", "worker", "--agent", "echo", "--agent", "count", s.d.Replicas())
	begun := time.Now()
	s.waitForStatus(t, killed, "succeeded")
	if took := time.Since(begun); took > 25*time.Second {
		t.Errorf("a killed worker's run took %v, nearly its lease", took)
	}
	s.waitForStatus(t, delayed, "succeeded")

	// Retention of a run that timed out: its log is gone too.
	expired := contracts.NewRunID()
	s.must(t, "submitter", "submit", "count", "--run-id", expired, "--param", "n=1000", "--timeout", "1s")
	s.waitForStatus(t, expired, "timed_out")
	s.waitForStatus(t, expired, "")

	// Queries, and what the operator looks at.
	if list := s.must(t, "subscriber", "list", "--json"); !strings.Contains(list, killed) || strings.Contains(list, expired) {
		t.Errorf("list:\n%s", list)
	}
	s.must(t, "subscriber", "stats")
	s.must(t, "subscriber", "top", "--json")
	s.must(t, "operator", "topology", "verify", s.d.Replicas())
	s.must(t, "operator", "topology", "create", s.d.Replicas())
	s.must(t, "operator", "checkpoints", "list", killed)
	out, errs, code := s.cli(t, "operator", "doctor", "--json", s.d.Replicas(), "--system-context", s.d.Context("system"))
	// flaky was given queues, and nobody executes it: nothing else is wrong.
	if strings.Count(out, `"wrong"`) > 1 || strings.Contains(out, "cannot be looked at") || !strings.Contains(out, `"repairs","state":"ok"`) {
		t.Errorf("doctor ended with %d:\n%s%s", code, out, errs)
	}
	var report struct {
		Findings []struct {
			What, State string
			Names       []string
		}
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, f := range report.Findings {
		if f.What == "fsync" || f.What == "disk" {
			asked++
			if f.State != "ok" || len(f.Names) != len(s.d.Made.Brokers) { // the shipped configuration syncs every write
				t.Errorf("by the system account: %+v", f)
			}
		}
	}
	if asked != 2 {
		t.Errorf("the servers were not asked:\n%s", out)
	}
	if len(p.Nodes) == 0 {
		s.refused(t)
	}
}

// refused has users ask for what is the operator's: they are told so.
func (s *stage) refused(t *testing.T) {
	t.Helper()
	if _, errs, code := s.cli(t, "dispatcher", "topology", "create", s.d.Replicas(), "--agent", "other"); code == 0 || !strings.Contains(errs, "the operator's user") {
		t.Errorf("topology create by a dispatcher ended with %d:\n%s", code, errs)
	}
	if out, _, code := s.cli(t, "dispatcher", "doctor", "--json"); code == 0 || !strings.Contains(out, `"permissions","state":"wrong"`) || !strings.Contains(out, "needs the operator's user") {
		t.Errorf("as the dispatcher's user the doctor ended with %d:\n%s", code, out)
	}
	if out, _, code := s.cli(t, "operator", "doctor", "--system-context", s.d.Context("main-client")); code == 0 || !strings.Contains(out, "no server answers") {
		t.Errorf("by a user of another account the doctor ended with %d:\n%s", code, out)
	}
}

// ready waits until a service's /readyz says that it is able to work, and has
// its metrics read, for which it asks the broker too.
func (s *stage) ready(t *testing.T, p *process) {
	t.Helper()
	var address string
	waitFor(t, p.name+" to serve", func() bool {
		for line := range strings.Lines(p.out.String()) {
			var said struct {
				Msg, Purpose, Address string
			}
			if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "serving http" && said.Purpose == "http" {
				address = said.Address
			}
		}
		return address != ""
	})
	var body string
	waitFor(t, p.name+" to be ready", func() bool {
		var code int
		code, body = get(t, "http://"+address+"/readyz")
		return code == http.StatusOK
	})
	_, body = get(t, "http://"+address+"/metrics")
	bounded := strings.Contains(body, "\nlonghaul_statekeeper_storage_limit_bytes ") && strings.Contains(body, "\nlonghaul_statekeeper_storage_used_bytes ")
	if strings.HasPrefix(p.name, "statekeeper") != bounded || !strings.Contains(body, "longhaul_") {
		t.Errorf("metrics of %s:\n%s", p.name, body)
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// TestViewer shows one run to somebody, with all of its history, and no other.
func TestViewer(t *testing.T) {
	s := newStage(t, security.Plan{})
	mine, other := contracts.NewRunID(), contracts.NewRunID()
	for _, id := range []string{mine, other} {
		s.must(t, "client", "submit", "echo", "--run-id", id, "--message", "of "+id, "--wait")
	}
	user, err := security.Grant(s.d.Dir, "main", mine)
	if err != nil {
		t.Fatal(err)
	}
	s.d.Reload(t)
	s.d.Reload(t) // the broker joins an account that is new to it to others only now
	viewer := strings.TrimPrefix(user, "main-")
	out, errs, code := s.cli(t, viewer, "watch", mine, "--json")
	if code != 0 || strings.Count(out, "\n") < 3 || !strings.Contains(out, `"run.queued"`) || !strings.Contains(out, `"run.succeeded"`) {
		t.Errorf("watch ended with %d:\n%s%s", code, out, errs)
	}
	if out := s.must(t, viewer, "get", mine, "--json"); !strings.Contains(out, `"succeeded"`) {
		t.Errorf("get: %s", out)
	}
	for _, args := range [][]string{{"get", other}, {"list"}} {
		if out, _, code := s.cli(t, viewer, args...); code == 0 || strings.Contains(out, other) {
			t.Errorf("%v ended with %d: %s", args, code, out)
		}
	}
	stolen := filepath.Join(t.TempDir(), "stolen.json")
	text := s.d.Read(t, "users/"+user+".json")
	seed := filepath.Join(filepath.Dir(stolen), "stolen.nk")
	text = strings.ReplaceAll(text, filepath.Join(s.d.Dir, "users", user+".nk"), seed)
	for path, data := range map[string]string{stolen: text, seed: s.d.Read(t, "users/"+user+".nk")} {
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if nc, err := jsutil.Connect(jsutil.ConnectConfig{Context: stolen}); err != nil {
		t.Errorf("before the revocation: %v", err)
	} else {
		nc.Close()
	}
	if n, err := security.Revoke(s.d.Dir, "main", mine); n != 1 || err != nil {
		t.Fatalf("%d revoked: %v", n, err)
	}
	s.d.Reload(t)
	if _, err := jsutil.Connect(jsutil.ConnectConfig{Context: stolen}); err == nil {
		t.Error("a revoked viewer is let in")
	}
}
