package main

import (
	"encoding/json"
	"strings"
	"syscall"
	"testing"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

func startBroker(t *testing.T) string {
	t.Helper()
	b, err := jsutil.StartEmbedded(jsutil.EmbeddedConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Shutdown)
	return b.URL()
}

func TestServicesAsProcesses(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	withSecret := strings.Replace(url, "nats://", "nats://user:hunter2@", 1)
	dispatcher := start(t, withSecret, "dispatcher", "--storage", "memory")
	statekeeper := start(t, withSecret, "statekeeper", "--storage", "memory")
	worker := start(t, withSecret, "worker", "--storage", "memory", "--agent", "echo", "--agent", "count", "--concurrency", "5", "--worker-id", "w-test")
	worker.says("worker takes work")

	if r := longhaul(t, url, "", "submit", "echo", "-m", "hi", "--wait"); r.code != exitOK || r.stdout != "hi\n" {
		t.Fatalf("%+v\n%s", r, dispatcher.stderr)
	}
	for name, p := range map[string]*program{"dispatcher": dispatcher, "statekeeper": statekeeper, "worker": worker} {
		p.signal(syscall.SIGTERM)
		code, stdout := p.end()
		logs := p.stderr.String()
		if code != exitOK || stdout != "" {
			t.Errorf("%s: exit code %d, stdout %q, stderr:\n%s", name, code, stdout, logs)
		}
		if strings.Contains(logs, "hunter2") {
			t.Errorf("%s logs a password:\n%s", name, logs)
		}
		if !strings.Contains(logs, `"msg":"configuration"`) {
			t.Errorf("%s does not say how it is configured:\n%s", name, logs)
		}
		for line := range strings.Lines(logs) {
			if !json.Valid([]byte(line)) {
				t.Errorf("%s: a log line that is no JSON: %s", name, line)
			}
		}
	}
}

// The first signal lets a run go on, the second ends the worker at once.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	start(t, url, "dispatcher", "--storage", "memory")
	worker := start(t, url, "worker", "--storage", "memory", "--agent", "count", "--drain-timeout-seconds", "60")
	worker.says("worker takes work")
	id := mustSubmit(t, url, "count", "-p", "n=10000", "-p", "pause_ms=20")
	watch := start(t, url, "watch", id)
	for !strings.Contains(watch.line(), "run.started") {
	}
	worker.signal(syscall.SIGTERM)
	worker.says("worker drains")
	watch.line() // it goes on
	worker.signal(syscall.SIGTERM)
	if code, _ := worker.end(); code != exitInterrupted {
		t.Errorf("exit code %d, stderr:\n%s", code, worker.stderr)
	}
}

func TestWorkerOnce(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	start(t, url, "dispatcher", "--storage", "memory", "--accept-unknown-agents")
	var id string
	waitFor(t, "the dispatcher to make the streams", func() bool {
		r := longhaul(t, url, "", "submit", "echo")
		id = strings.TrimSpace(r.stdout)
		return r.code == exitOK
	})
	waitFor(t, "the run to wait for a worker", func() bool {
		return longhaul(t, url, "", "checkpoints", "next", id).code == exitOK
	})
	var once struct{ Executed bool }
	r := longhaul(t, url, "", "worker", "--storage", "memory", "--agent", "echo", "--once", "--json")
	mustDecode(t, r.stdout, &once)
	if r.code != exitOK || !once.Executed {
		t.Fatalf("%+v", r)
	}
	if r := longhaul(t, url, "", "watch", id, "--json"); r.code != exitOK || !strings.Contains(r.stdout, string(contracts.TypeSucceeded)) {
		t.Errorf("%+v", r)
	}
	if r := longhaul(t, url, "", "worker", "--storage", "memory", "--agent", "echo", "--once"); r.code != exitNotFound {
		t.Errorf("%+v", r)
	}
}

func TestWorkerSettingsFromTheEnvironment(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	cmd := newProgram(t, url, "worker", "--once")
	cmd.Env = append(cmd.Env, "LONGHAUL_AGENT=echo,count", "LONGHAUL_CONCURRENCY=2")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != exitNotFound {
		t.Errorf("two agents stand for themselves; got %v: %s", err, out)
	}
	cmd = newProgram(t, url, "worker", "--once")
	cmd.Env = append(cmd.Env, "LONGHAUL_AGENT=echo", "LONGHAUL_RETRY_BACKOFF_MAX=-1", "LONGHAUL_CONCURRENCY=0")
	out, err = cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != exitUsage || !strings.Contains(string(out), "--retry-backoff-max must be above 0") ||
		!strings.Contains(string(out), "--concurrency must be above 0, not 0") {
		t.Errorf("got %v: %s", err, out)
	}
}
