// Package lint checks the checks: that the import walls of .golangci.yaml bite,
// for a rule whose pattern matches nothing looks just like a tree without a
// fault; and that the documents name what exists.
package lint

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// imports are the files of a small module laid out as this one, and what each
// imports. A forbidden import begins with !. There is no cycle in them, since
// a module with one is not linted at all.
var imports = map[string][]string{
	"pkg/contracts/a.go":           {"strings", "github.com/google/uuid", "!github.com/x/y", "!longhaul/pkg/jsutil/up"},
	"pkg/contracts/a_test.go":      {"github.com/x/y", "!longhaul/pkg/runlog/up"},
	"pkg/jsutil/a.go":              {"longhaul/pkg/contracts", "github.com/x/y", "!longhaul/pkg/runlog/up", "!github.com/nats-io/nats-server/v2/server"},
	"pkg/jsutil/a_test.go":         {"github.com/nats-io/nats-server/v2/server", "!longhaul/pkg/client/up"},
	"pkg/jsutil/embedded.go":       {"github.com/nats-io/nats-server/v2/server"},
	"pkg/jsutil/up/a.go":           nil,
	"pkg/runlog/a.go":              {"longhaul/pkg/contracts", "longhaul/pkg/jsutil", "longhaul/internal/sabotage", "!longhaul/pkg/agent/up", "!longhaul/pkg/client/up"},
	"pkg/runlog/up/a.go":           nil,
	"pkg/agent/a.go":               {"longhaul/pkg/contracts", "longhaul/pkg/jsutil", "longhaul/pkg/runlog", "!longhaul/services/worker/up"},
	"pkg/agent/builtin/a.go":       {"longhaul/pkg/agent", "!longhaul/pkg/client/up"},
	"pkg/agent/up/a.go":            nil,
	"pkg/agent/b.go":               {"!github.com/modelcontextprotocol/x", "!longhaul/pkg/agent/mcp"},
	"pkg/agent/mcp/a.go":           {"github.com/modelcontextprotocol/x"},
	"pkg/agent/builtin/chat/a.go":  {"!longhaul/pkg/agent/mcp", "!github.com/modelcontextprotocol/x"},
	"pkg/agent/builtin/file/a.go":  {"longhaul/pkg/agent/mcp"},
	"pkg/client/a.go":              {"longhaul/pkg/contracts", "longhaul/pkg/jsutil", "longhaul/pkg/runlog", "!longhaul/pkg/agent", "!longhaul/services/worker/up", "!github.com/prometheus/x"},
	"pkg/client/up/a.go":           nil,
	"pkg/metrics/a.go":             {"longhaul/pkg/jsutil", "github.com/prometheus/x", "!longhaul/pkg/agent/up", "!longhaul/services/worker/up"},
	"pkg/tracing/a.go":             {"longhaul/pkg/contracts", "longhaul/pkg/runlog", "go.opentelemetry.io/otel", "!go.opentelemetry.io/otel/sdk", "!longhaul/pkg/jsutil"},
	"pkg/tracing/otlp/a.go":        {"longhaul/pkg/tracing", "go.opentelemetry.io/otel/sdk"},
	"pkg/client/b.go":              {"longhaul/pkg/tracing", "!longhaul/pkg/tracing/otlp"},
	"internal/shell/a.go":          {"longhaul/pkg/tracing/otlp", "longhaul/services/worker", "!go.opentelemetry.io/otel/sdk"},
	"cmd/longhaul/b.go":            {"longhaul/pkg/tracing/otlp", "!go.opentelemetry.io/otel/sdk"},
	"services/dispatcher/a.go":     {"longhaul/pkg/runlog", "longhaul/pkg/client", "!longhaul/services/worker", "!longhaul/cmd/longhaul/up", "!log"},
	"services/worker/a.go":         {"log/slog", "longhaul/pkg/agent/builtin", "!longhaul/services/statekeeper", "!github.com/nats-io/nats-server/v2/server"},
	"services/worker/up/a.go":      nil,
	"services/statekeeper/a.go":    {"longhaul/pkg/runlog", "!longhaul/services/worker/up", "!math/rand"},
	"services/statekeeper/b/a.go":  {"longhaul/services/statekeeper", "!longhaul/services/dispatcher"},
	"cmd/longhaul/a.go":            {"longhaul/services/dispatcher", "longhaul/services/worker", "longhaul/pkg/client", "!github.com/nats-io/nats-server/v2/server"},
	"cmd/longhaul/up/a.go":         nil,
	"internal/sabotage/a.go":       nil,
	"test/torture/history/a.go":    {"encoding/json", "!longhaul/pkg/contracts", "!github.com/x/y"},
	"test/torture/check/a.go":      {"longhaul/test/torture/history", "github.com/x/y", "!longhaul/pkg/contracts", "!longhaul/pkg/runlog", "!longhaul/internal/sabotage"},
	"test/torture/check/a_test.go": {"longhaul/test/torture/history", "!longhaul/pkg/contracts"},
	"test/bench/a.go":              {"longhaul/services/worker", "github.com/nats-io/nats-server/v2/server"},
}

// linterCommand is how the Makefile calls the linter, so that the version is named once.
func linterCommand(t *testing.T) []string {
	t.Helper()
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(makefile)) {
		if command, found := strings.CutPrefix(line, "GOLANGCI_LINT := "); found {
			return strings.Fields(command)
		}
	}
	t.Fatal("the Makefile sets no GOLANGCI_LINT")
	return nil
}

func TestWallsBite(t *testing.T) {
	linter := linterCommand(t)
	dir := t.TempDir()
	want := writeModule(t, dir)
	got := lint(t, dir, linter)
	for _, line := range slices.Sorted(maps.Keys(want)) {
		if !got[line] {
			t.Errorf("not refused: %s", line)
		}
	}
	for _, line := range slices.Sorted(maps.Keys(got)) {
		if !want[line] {
			t.Errorf("refused, but allowed: %s", line)
		}
	}
}

// writeModule writes the module of imports and returns "file imports path" for
// each forbidden one.
func writeModule(t *testing.T, dir string) map[string]bool {
	t.Helper()
	config, err := os.ReadFile("../../.golangci.yaml")
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, dir, ".golangci.yaml", string(config))
	mod := "module longhaul\n\ngo 1.26\n"
	for _, stub := range []struct{ module, version, pkg string }{
		{"github.com/x/y", "v0.0.0", ""},
		{"github.com/google/uuid", "v1.0.0", ""},
		{"github.com/prometheus/x", "v0.0.0", ""},
		{"go.opentelemetry.io/otel", "v0.0.0", ""},
		{"go.opentelemetry.io/otel/sdk", "v0.0.0", ""},
		{"github.com/modelcontextprotocol/x", "v0.0.0", ""},
		{"github.com/nats-io/nats-server/v2", "v2.0.0", "/server"},
	} {
		mod += "require " + stub.module + " " + stub.version + "\nreplace " + stub.module + " => ./stub/" + stub.module + "\n"
		mustWrite(t, dir, "stub/"+stub.module+"/go.mod", "module "+stub.module+"\n")
		mustWrite(t, dir, "stub/"+stub.module+stub.pkg+"/a.go", "package stub\n")
	}
	mustWrite(t, dir, "go.mod", mod)
	forbidden := map[string]bool{}
	for file, paths := range imports {
		src := "package stub\n"
		for _, path := range paths {
			bare, bad := strings.CutPrefix(path, "!")
			if bad {
				forbidden[file+" imports "+bare] = true
			}
			src += "import _ \"" + bare + "\"\n"
		}
		mustWrite(t, dir, file, src)
	}
	return forbidden
}

// lint runs depguard alone and returns "file imports path" for each refusal.
func lint(t *testing.T, dir string, linter []string) map[string]bool {
	t.Helper()
	args := slices.Concat(linter[1:], []string{"run", "--enable-only=depguard", "--max-issues-per-linter=0",
		"--max-same-issues=0", "--issues-exit-code=0", "--output.json.path=stdout", "--show-stats=false", "./..."})
	cmd := exec.CommandContext(t.Context(), linter[0], args...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s%s", args, err, &stdout, &stderr)
	}
	var report struct {
		Issues []struct {
			Text string
			Pos  struct{ Filename string }
		}
	}
	if err := json.NewDecoder(&stdout).Decode(&report); err != nil {
		t.Fatalf("read the report: %v\n%s", err, &stderr)
	}
	refused := map[string]bool{}
	for _, issue := range report.Issues {
		_, path, _ := strings.Cut(issue.Text, "import '")
		path, _, ok := strings.Cut(path, "' is not allowed")
		if !ok {
			t.Errorf("%s: %s", issue.Pos.Filename, issue.Text)
			continue
		}
		refused[filepath.ToSlash(issue.Pos.Filename)+" imports "+path] = true
	}
	return refused
}

func mustWrite(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
