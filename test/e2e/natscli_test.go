package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"longhaul/pkg/contracts"
)

// natsCLI is the version of the official command that docs/protocol.md is tried with.
const natsCLI = "github.com/nats-io/natscli/nats@v0.5.1"

// TestNATSCommandAsClient uses the official nats command and nothing of ours:
// submit, watch, read the status, cancel, list, look at streams and consumers.
func TestNATSCommandAsClient(t *testing.T) {
	s := newStage(t)
	s.start(t, "dispatcher")
	s.start(t, "statekeeper")
	s.start(t, "worker", "--agent", "echo", "--agent", "count")
	s.waitForAgent(t, "count")
	dir := t.TempDir()
	install := exec.Command("go", "install", natsCLI)
	install.Env = append(os.Environ(), "GOBIN="+dir)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("install the nats command: %v\n%s", err, out)
	}
	reach := s.flags("operator")
	if s.secured != nil { // that command takes contexts by their names
		reach[1] = "operator"
		data, err := os.ReadFile(s.reach("operator").Context)
		if err == nil {
			err = os.MkdirAll(filepath.Join(dir, "config", "nats", "context"), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "config", "nats", "context", "operator.json"), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	} else {
		reach[0] = "--server"
	}
	command := func(args ...string) *exec.Cmd {
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		t.Cleanup(cancel)
		cmd := exec.CommandContext(ctx, filepath.Join(dir, "nats"), append(reach[:2:2], args...)...)
		cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Join(dir, "config"), "HOME="+dir) // none of the user's contexts
		return cmd
	}
	nats := func(args ...string) string {
		t.Helper()
		out, err := command(args...).CombinedOutput()
		if err != nil {
			t.Fatalf("nats %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}

	watch := command("sub", "--raw", contracts.SubjectAllEvents)
	events, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = watch.Process.Kill()
		_ = watch.Wait()
	}()
	lines := bufio.NewScanner(events)
	seen := make(chan string, 1000)
	go func() {
		defer close(seen)
		for lines.Scan() {
			seen <- lines.Text()
		}
	}()
	waitForLine := func(parts ...string) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			select {
			case line, ok := <-seen:
				all := ok
				for _, p := range parts {
					all = all && strings.Contains(line, p)
				}
				if all {
					return
				}
				if !ok {
					t.Fatalf("nats sub has ended, waited for %v", parts)
				}
			case <-deadline:
				t.Fatalf("waited in vain for an event with %v", parts)
			}
		}
	}
	// Until the subscription stands, events are not seen: say hello till they are.
	for hello := 0; ; hello++ {
		nats("pub", contracts.SubjectSubmit, `{"agent_key":"echo","input":{"messages":[{"role":"user","content":"hi"}]}}`)
		select {
		case <-seen:
		case <-time.After(time.Second):
			if hello > 20 {
				t.Fatal("nats sub sees no event")
			}
			continue
		}
		break
	}

	id := contracts.NewRunID()
	nats("pub", contracts.SubjectSubmit, fmt.Sprintf(`{"run_id":%q,"agent_key":"count","input":{"params":{"n":1000,"pause_ms":50}},"metadata":{"who":"nats"}}`, id))
	waitForLine(id, `"type":"run.started"`)
	nats("pub", contracts.CancelSubject(id), `{"reason":"enough"}`)
	waitForLine(id, `"type":"run.cancelled"`, "enough")
	waitFor(t, "the status record to say cancelled", func() bool {
		return strings.Contains(nats("kv", "get", contracts.BucketRuns, contracts.StatusKey(id), "--raw"), `"status":"cancelled"`)
	})
	if out := nats("req", "--raw", contracts.APISubject(contracts.EndpointList), `{"metadata":{"who":"nats"}}`); !strings.Contains(out, id) {
		t.Errorf("list: %s", out)
	}
	if out := nats("stream", "ls", "--all"); !strings.Contains(out, contracts.StreamLog) || !strings.Contains(out, contracts.StreamWork) {
		t.Errorf("streams:\n%s", out)
	}
	if out := nats("consumer", "ls", contracts.StreamWork); !strings.Contains(out, contracts.WorkConsumer("count", contracts.PriorityHigh)) {
		t.Errorf("consumers:\n%s", out)
	}
	if out := nats("micro", "ls"); !strings.Contains(out, contracts.ServiceName) {
		t.Errorf("services:\n%s", out)
	}
}
