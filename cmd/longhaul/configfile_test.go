package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"longhaul/pkg/agent/builtin/agentfile"
)

// checks runs worker --check with an environment and arguments.
func checks(t *testing.T, env []string, args ...string) result {
	t.Helper()
	cmd := newProgram(t, "nats://127.0.0.1:1", append([]string{"worker", "--check"}, args...)...)
	cmd.Env = append(cmd.Env, env...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // its exit code says all
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// The file that comes with the repository is sound, for who has a key.
func TestExampleFile(t *testing.T) {
	r := checks(t, []string{"OPENAI_API_KEY=sk-1"}, "--config", "../../deploy/agents.yaml")
	if r.code != exitOK || r.stdout != "The configuration is sound. Agents: assistant, local, translate, words, echo\n" || r.stderr != "" {
		t.Errorf("%+v", r)
	}
	r = checks(t, nil, "--config", "../../deploy/agents.yaml")
	if r.code != exitUsage || !strings.Contains(r.stderr, "agents.yaml:27:7: agents[0].chat.api_key_env: the environment has no OPENAI_API_KEY") {
		t.Errorf("without a key: %+v", r)
	}
}

// A flag wins over the environment, that over the file, and that over the default.
func TestSettingsOfTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agents.yaml")
	text := "worker: {concurrency: 7, max_attempts: 8, run_timeout_seconds: 1.5, lease_ttl_seconds: 90, drain_timeout_seconds: 0}\nagents: [{key: mine, echo: {}, concurrency: 4}]\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, from := range []struct {
		env, args []string
	}{{nil, []string{"--config", path}}, {[]string{"LONGHAUL_CONFIG=" + path}, nil}} {
		var got map[string]any
		r := checks(t, append(from.env, "LONGHAUL_MAX_ATTEMPTS=9", "LONGHAUL_RUN_TIMEOUT_SECONDS=5"),
			append(from.args, "--json", "--run-timeout-seconds", "6", "--agent", "count", "--agent-concurrency", "count=2")...)
		if r.code != exitOK {
			t.Fatalf("%+v", r)
		}
		mustDecode(t, r.stdout, &got)
		want := map[string]any{"concurrency": 7.0, "max_attempts": 9.0, "run_timeout": "6s", "lease": "1m30s", "heartbeat_interval": "30s",
			"drain_timeout": "1ns", "cancel_grace": "10s"}
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s is %v, want %v", name, got[name], value)
			}
		}
		if limits := fmt.Sprint(got["agent_concurrency"]); limits != "map[count:2 mine:4]" {
			t.Errorf("agent_concurrency %s", limits)
		}
		if agents, _ := got["agents"].([]any); len(agents) != 2 || agents[1] != "mine" {
			t.Errorf("agents %v", got["agents"])
		}
	}
}

// Every setting of the file is a flag.
func TestEverySettingIsAFlag(t *testing.T) {
	var grammar cli
	a := newApp(strings.NewReader(""), &strings.Builder{}, &strings.Builder{}, os.Getenv)
	parser, err := newParser(&grammar, a, context.Background())
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string]bool{}
	for _, node := range parser.Model.Node.Children {
		if node.Name == "worker" {
			for _, f := range node.Flags {
				flags[strings.ReplaceAll(f.Name, "-", "_")] = true
			}
		}
	}
	settings := reflect.TypeFor[agentfile.Settings]()
	for i := range settings.NumField() {
		if name, _, _ := strings.Cut(settings.Field(i).Tag.Get("json"), ","); !flags[name] {
			t.Errorf("there is no flag for %s", name)
		}
	}
}

func TestConfigFileFaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agents.yaml")
	if err := os.WriteFile(path, []byte("worker: {concurrency: no}\nagents: [{key: A, echo: {}}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--config", path}, {"--config", path, "--json"}} {
		r := checks(t, nil, args...)
		for _, want := range []string{path + ":1:10: worker.concurrency: must be integer, not string", path + ":2:11: agents[0].key: must be 1 to 63"} {
			if r.code != exitUsage || !strings.Contains(r.stderr, want) {
				t.Errorf("%v: %+v\nwant %s", args, r, want)
			}
		}
	}
	if r := checks(t, nil, "--config", "/no/such/file"); r.code != exitUsage || !strings.Contains(r.stderr, "/no/such/file") {
		t.Errorf("%+v", r)
	}
	if r := checks(t, nil, "--config", "../../deploy/agents.yaml", "--agent", "echo"); !strings.Contains(r.stderr, "api_key_env") {
		t.Errorf("%+v", r)
	}
}
