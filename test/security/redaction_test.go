package security

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// Secrets that a deployment is given, each unlike all others: none may ever be
// seen in a log, in an event, in a status, in what a command prints or in a
// metric.
var secrets = map[string]string{
	"the broker's password in a URL": "hunter2-in-the-url",
	"a chat agent's key":             "sk-chat-0000000000000001",
	"an http agent's token":          "tok-http-000000000000002",
	"an mcp server's token":          "tok-mcp-0000000000000003",
	"an mcp server's secret header":  "hdr-mcp-0000000000000004",
	"a program's environment":        "env-exec-000000000000005",
	"the worker's own environment":   "env-worker-0000000000006",
	"a collector's header":           "hdr-otlp-000000000000007",
	"a user's nkey that is damaged":  "SUAIBDPBAUTWCWBKIO6XHQNINK5FWJW4OHLXC3HQ2KFE4PEJUA44CNHTXX",
	"a seal key":                     "c2VhbC1rZXktMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA=",
}

// visible is no secret: that it is found shows that the search finds.
const visible = "visible-000000000000000"

// TestRedaction runs all services with every kind of secret, against servers
// that repeat what they are sent, at the lowest log level, and looks for the
// secrets everywhere.
func TestRedaction(t *testing.T) {
	url := startPasswordBroker(t)
	// A server that refuses, and tells in its answer all that it was sent.
	echo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_ = r.Header.Write(w)
	}))
	defer echo.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "agents.yaml")
	keys, nkey := filepath.Join(dir, "seal.keys"), filepath.Join(dir, "user.nk")
	for path, text := range map[string]string{
		config: fmt.Sprintf(`
agents:
  - key: talk
    chat: {model: gpt-x, base_url: %[1]q, api_key_env: T_CHAT}
  - key: http
    http: {url: %[1]q, token_env: T_HTTP}
  - key: exec
    exec: {command: [sh, -c, "echo broken >&2; exit 3"], env: {T_EXEC: %[2]q}}
`, echo.URL, secrets["a program's environment"]),
		filepath.Join(dir, "mcp.yaml"): fmt.Sprintf(`
mcp:
  - {name: files, url: %[1]q, token_env: T_MCP, secret_headers: {X-Secret: {env: T_HDR}}, connect_timeout_seconds: 2}
agents:
  - key: chat
    chat: {model: gpt-x, base_url: %[1]q, api_key_env: T_CHAT, tools: [files]}
`, echo.URL),
		nkey: secrets["a user's nkey that is damaged"] + "\n",
		keys: "k1 " + secrets["a seal key"] + "\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := append(os.Environ(), "LONGHAUL_NATS="+url, "LONGHAUL_LOG_LEVEL=debug", "T_CHAT="+secrets["a chat agent's key"], "T_HTTP="+secrets["an http agent's token"],
		"T_MCP="+secrets["an mcp server's token"], "T_HDR="+secrets["an mcp server's secret header"], "T_OTHER="+secrets["the worker's own environment"],
		"OTEL_EXPORTER_OTLP_ENDPOINT="+echo.URL, "OTEL_EXPORTER_OTLP_HEADERS=X-Team="+secrets["a collector's header"], "OTEL_BSP_SCHEDULE_DELAY=20")
	var all output
	start := func(args ...string) {
		t.Helper()
		cmd := exec.Command(binary, args...) // a cleanup outlives the test's context
		cmd.Env, cmd.Stdout, cmd.Stderr = env, &all, &all
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
		})
	}
	run := func(args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, binary, args...)
		cmd.Env, cmd.Stdout, cmd.Stderr = env, &all, &all
		_ = cmd.Run() // that it fails may be the point
		if ctx.Err() != nil {
			t.Errorf("%v does not end:\n%s", args, &all)
		}
	}
	start("dispatcher", "--accept-unknown-agents", "--http", "127.0.0.1:0")
	start("statekeeper", "--http", "127.0.0.1:0")
	start("worker", "--config", config, "--retry-backoff-base", "0.1", "--http", "127.0.0.1:0")
	start("worker", "--config", filepath.Join(dir, "mcp.yaml"), "--retry-backoff-base", "0.1")
	start("worker", "--agent", "echo", "--seal-keys", keys)
	run("worker", "--config", config, "--check", "--json")
	run("worker", "--config", filepath.Join(dir, "mcp.yaml"), "--check")
	for _, key := range []string{"chat", "talk", "http", "exec"} {
		run("submit", key, "--message", "hi", "--max-attempts", "2", "--timeout", "5s", "--start-timeout", "5s", "--metadata", "m="+visible, "--follow", "--verbose")
	}
	run("submit", "echo", "--message", "hi", "--wait", "--start-timeout", "5s", "--seal-keys", keys)
	run("submit", "echo", "--message", "hi", "--wait", "--start-timeout", "5s") // refused for want of a seal
	run("submit", "echo", "--seal-keys", config)                                // no keys in there
	run("list", "--json")
	run("doctor", "--json")
	run("topology", "verify", "--nats", strings.Replace(url, "@127.0.0.1", "@127.0.0.1:1", 1)+"x") // no URL
	run("topology", "verify", "--nats", "nats://ann:"+secrets["the broker's password in a URL"]+"@127.0.0.1:1")
	run("topology", "verify", "--nats", strings.Replace(url, "ann:", "bob:", 1))
	run("topology", "verify", "--nkey", nkey)
	run("topology", "verify", "--creds", nkey)

	// Every stream, every subject.
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for _, stream := range []string{contracts.StreamLog, contracts.StreamRuns, contracts.StreamAgents, contracts.StreamWork, contracts.StreamInbox} {
		for seq := uint64(1); ; seq++ {
			m, err := jsutil.GetFromLeader(t.Context(), nc, stream, jsutil.GetRequest{Seq: seq, NextFor: ">"})
			if err != nil {
				break
			}
			seq = m.Sequence
			fmt.Fprintf(&all, "%s %s\n", m.Subject, m.Data)
		}
	}
	for line := range strings.Lines(all.String()) { // metrics and probes
		if _, rest, ok := strings.Cut(line, `"purpose":"http","address":"`); ok {
			address, _, _ := strings.Cut(rest, `"`)
			for _, page := range []string{"metrics", "readyz", "debug/pprof/cmdline"} {
				_, body := get(t, "http://"+address+"/"+page)
				_, _ = all.Write([]byte(body))
			}
		}
	}
	text := all.String()
	for name, secret := range secrets {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("%s is shown: …%s…", name, text[max(0, at-200):min(len(text), at+len(secret)+50)])
		}
	}
	for _, want := range []string{visible, "401", `"longhaul_`, "files"} {
		if !strings.Contains(text, strings.Trim(want, `"`)) {
			t.Errorf("the search has not seen %q, which is to be there", want)
		}
	}
	if testing.Verbose() {
		t.Logf("%d bytes searched", len(bytes.TrimSpace([]byte(text))))
	}
}

// startPasswordBroker starts a broker with users and passwords and returns a URL
// with one in it.
func startPasswordBroker(t *testing.T) string {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true,
		Username: "ann", Password: secrets["the broker's password in a URL"]})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the broker is not ready")
	}
	return strings.Replace(s.ClientURL(), "nats://", "nats://ann:"+secrets["the broker's password in a URL"]+"@", 1)
}
