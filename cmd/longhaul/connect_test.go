package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A flag names the broker; the environment names another one, in another way.
func TestFlagWinsOverEnvironment(t *testing.T) {
	t.Parallel()
	url := startDev(t)
	config := t.TempDir()
	dir := filepath.Join(config, "nats", "context")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, broker := range map[string]string{"good": url, "bad": "nats://127.0.0.1:1"} {
		if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte(`{"url":"`+broker+`"}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		env, args string
		code      int
		says      string
	}{
		{"LONGHAUL_NATS=nats://127.0.0.1:1", "--context good", exitOK, ""},
		{"LONGHAUL_NATS=" + url, "--context bad", exitNoBroker, "connect by the context bad"},
		{"LONGHAUL_CONTEXT=bad", "--nats " + url, exitOK, ""},
		{"LONGHAUL_CONTEXT=good", "", exitOK, ""},
		{"LONGHAUL_CONTEXT=good LONGHAUL_NATS=" + url, "", exitUsage, "give one"},
		{"LONGHAUL_NATS=" + url, "--context nosuch", exitUsage, `there is no NATS context "nosuch"; known are bad, good`},
		{"LONGHAUL_NATS=" + url, "--context " + filepath.Join(dir, "good.json"), exitOK, ""},
	} {
		t.Run(tc.env+" "+tc.args, func(t *testing.T) {
			cmd := newProgram(t, "", append([]string{"stats"}, strings.Fields(tc.args)...)...)
			cmd.Env = append(cmd.Env, append(strings.Fields(tc.env), "XDG_CONFIG_HOME="+config)...)
			out, _ := cmd.CombinedOutput()
			if code := cmd.ProcessState.ExitCode(); code != tc.code || !strings.Contains(string(out), tc.says) {
				t.Errorf("exit code %d, want %d; output, which should hold %q:\n%s", code, tc.code, tc.says, out)
			}
		})
	}
}
