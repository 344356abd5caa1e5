package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
)

// decodeLines decodes JSON lines.
func decodeLines[T any](t *testing.T, text string) []T {
	t.Helper()
	var all []T
	for line := range strings.Lines(text) {
		var v T
		mustDecode(t, line, &v)
		all = append(all, v)
	}
	return all
}

// Where an agent's input comes from stdin.
func TestSubmitReadsStdin(t *testing.T) {
	t.Parallel()
	url := startDev(t)
	for _, tc := range []struct{ name, stdin, args, want string }{
		{"submissions", `{"input":{"messages":[{"role":"user","content":"one"}]}}`, "submit echo - --wait", "one\n"},
		{"submissions, by file", `{"input":{"messages":[{"role":"user","content":"one"}]}}`, "submit echo --file - --wait", "one\n"},
		{"message", "line one\nline two\n", "submit echo --message - --wait", "line one\nline two\n"},
		{"params", `{"n": 2}`, "submit count --param-json - --param pause_ms=1 --wait", "2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := longhaul(t, url, tc.stdin, strings.Fields(tc.args)...)
			if r.code != exitOK || !strings.Contains(r.stdout, tc.want) {
				t.Errorf("%+v, want the output %q", r, tc.want)
			}
		})
	}
	if r := longhaul(t, url, "not JSON\n", "submit", "echo", "-"); r.code != exitUsage || !strings.Contains(r.stderr, "--message -") {
		t.Errorf("text where submissions are expected: %+v", r)
	}
}

// Events that are yet to come are waited for, in words; if the run ends
// before, that is said, and how.
func TestWatchFromBeyondTheEnd(t *testing.T) {
	t.Parallel()
	url := startDev(t)
	ends := mustSubmit(t, url, "count", "-p", "n=1000", "-p", "pause_ms=20")
	goesOn := mustSubmit(t, url, "count", "-p", "n=1000", "-p", "pause_ms=20")
	waits := start(t, url, "watch", goesOn, "--from", "40", "--json", "--no-until-end")
	told := start(t, url, "watch", ends, "--from", "100000")
	told.says("waiting for number 100000")
	var e contracts.Event
	if mustDecode(t, waits.line(), &e); e.Seq != 40 {
		t.Errorf("first event is %d", e.Seq)
	}
	waits.signal(os.Interrupt)
	waits.end()
	for _, id := range []string{ends, goesOn} {
		if r := longhaul(t, url, "", "cancel", id, "--wait"); r.code != exitOK {
			t.Errorf("%+v", r)
		}
	}
	if code, _ := told.end(); code != exitCancelled || !strings.Contains(told.stderr.String(), "cancelled. There is no number 100000.") {
		t.Errorf("exit code %d: %s", code, told.stderr)
	}
}

func TestOutput(t *testing.T) {
	t.Parallel()
	url := startDev(t)
	run := func(args ...string) string {
		t.Helper()
		r := longhaul(t, url, "", args...)
		if r.code != exitOK {
			t.Fatalf("longhaul %s: exit code %d: %s", strings.Join(args, " "), r.code, r.stderr)
		}
		return r.stdout
	}

	t.Run("submit prints the id alone in a pipe", func(t *testing.T) {
		if err := contracts.CheckRunID(mustSubmit(t, url, "echo")); err != nil {
			t.Error(err)
		}
	})
	t.Run("wait prints the output alone", func(t *testing.T) {
		if got := run("submit", "echo", "-m", "a <b> & c", "--wait"); got != "a <b> & c\n" {
			t.Errorf("printed %q", got)
		}
		if got := run("submit", "count", "-p", "n=2", "--wait"); got != "{\"count\":2}\n" {
			t.Errorf("printed %q", got)
		}
	})
	t.Run("wait as JSON", func(t *testing.T) {
		var doc outcomeDocument
		mustDecode(t, run("submit", "count", "-p", "n=2", "--wait", "--json"), &doc)
		if doc.Status != contracts.StatusSucceeded || doc.Attempt != 1 || !strings.Contains(string(doc.Result), `{"count":2}`) {
			t.Errorf("%+v", doc)
		}
	})
	t.Run("follow shows text as text", func(t *testing.T) {
		out := run("submit", "count", "-p", "n=2", "--follow", "-v")
		for _, want := range []string{"run.queued", "attempt 1 of 3", "\n1 of 2\n", "state.checkpoint      2  {\"i\":2}", "run.succeeded         {\"count\":2}"} {
			if !strings.Contains(strings.ReplaceAll(out, "2 {\"i\"", "2  {\"i\""), want) {
				t.Errorf("%q is not in\n%s", want, out)
			}
		}
	})
	t.Run("follow as JSON is gapless, and watch goes on from anywhere", func(t *testing.T) {
		events := decodeLines[contracts.Event](t, run("submit", "count", "-p", "n=3", "--follow", "--json"))
		for i, e := range events {
			if e.Seq != uint64(i+1) {
				t.Fatalf("event %d has seq %d", i, e.Seq)
			}
		}
		rest := decodeLines[contracts.Event](t, run("watch", events[0].RunID, "--from", "4", "--json"))
		if len(rest) != len(events)-3 || rest[0].Seq != 4 {
			t.Errorf("%d events from 4 on of %d", len(rest), len(events))
		}
	})
	t.Run("the same key is the same run", func(t *testing.T) {
		a, b := mustSubmit(t, url, "echo", "--idempotency-key", "k1"), mustSubmit(t, url, "echo", "--idempotency-key", "k1")
		if a != b {
			t.Errorf("%s and %s", a, b)
		}
	})
	t.Run("get", func(t *testing.T) {
		id := mustSubmit(t, url, "echo", "-m", "hello", "--metadata", "user=u1", "--priority", "high", "--conversation", "c9")
		run("watch", id)
		out := run("get", id)
		for _, want := range []string{id, "succeeded", "1 of 3", "high", "c9", "user=u1", "hello"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not in\n%s", want, out)
			}
		}
		var doc contracts.GetResponse
		mustDecode(t, run("get", id, "--json"), &doc)
		if doc.Run.Metadata["user"] != "u1" || !strings.Contains(string(doc.Result), "hello") {
			t.Errorf("%+v", doc)
		}
		var page contracts.ListResponse
		waitFor(t, "the run to be listed", func() bool {
			mustDecode(t, run("list", "--metadata", "user=u1", "--status", "succeeded", "--created-after", "1h", "--json"), &page)
			return len(page.Runs) == 1 && page.Runs[0].RunID == id
		})
		if out := run("list", "--conversation", "c9"); !strings.Contains(out, id) {
			t.Errorf("not in the list:\n%s", out)
		}
	})
	t.Run("checkpoints", func(t *testing.T) {
		id := mustSubmit(t, url, "count", "-p", "n=3")
		run("watch", id)
		if got := decodeLines[client.Checkpoint](t, run("checkpoints", "list", id, "--json")); len(got) != 3 || string(got[1].State) != `{"i":2}` {
			t.Errorf("%+v", got)
		}
		if got := run("checkpoints", "get", id, "--number", "2"); got != "{\n  \"i\": 2\n}\n" {
			t.Errorf("printed %q", got)
		}
		if got := run("checkpoints", "next", id); got != "4\n" {
			t.Errorf("printed %q", got)
		}
		if got := run("checkpoints", "delete", id); got != "Deleted 3 checkpoints.\n" {
			t.Errorf("printed %q", got)
		}
	})
	t.Run("redrive", func(t *testing.T) {
		id := contracts.NewRunID()
		if r := longhaul(t, url, "", "submit", "flaky", "-p", "fail_times=5", "--max-attempts", "1", "--run-id", id, "--wait"); r.code != exitFailed {
			t.Fatalf("%+v", r)
		}
		r := longhaul(t, url, "", "redrive", id, "--wait", "--json")
		if r.code != exitFailed {
			t.Fatalf("%+v", r)
		}
		var doc outcomeDocument
		mustDecode(t, r.stdout, &doc)
		if doc.Seq <= 3 {
			t.Errorf("%+v", doc)
		}
		r = longhaul(t, url, "", "redrive", id, "--follow", "--json")
		events := decodeLines[contracts.Event](t, r.stdout)
		if r.code != exitFailed || len(events) != 3 || events[0].Seq != doc.Seq+1 {
			t.Errorf("exit code %d, events %+v", r.code, events)
		}
		if r := longhaul(t, url, "", "watch", id, "--from", "100"); r.code != exitFailed {
			t.Errorf("%+v", r)
		}
	})
	t.Run("agents, stats, topology and version", func(t *testing.T) {
		var agents []client.Agent
		mustDecode(t, run("agents", "--json"), &agents)
		if len(agents) != 3 || agents[0].AgentKey != "count" || !json.Valid(agents[0].InputSchema) {
			t.Errorf("%+v", agents)
		}
		if out := run("agents"); !strings.Contains(out, "n, pause_ms") {
			t.Errorf("agents:\n%s", out)
		}
		var stats contracts.StatsResponse
		mustDecode(t, run("stats", "--json"), &stats)
		if stats.Total == 0 {
			t.Errorf("%+v", stats)
		}
		if out := run("stats"); !strings.Contains(out, "SUCCEEDED") {
			t.Errorf("stats:\n%s", out)
		}
		if out := run("topology", "verify"); !strings.Contains(out, "as it should be") {
			t.Errorf("topology:\n%s", out)
		}
		if out := run("topology", "create", "--json"); !strings.Contains(out, `"streams":6`) {
			t.Errorf("topology:\n%s", out)
		}
		var b build
		mustDecode(t, run("version", "--json"), &b)
		if b.Version == "" || b.Go == "" {
			t.Errorf("%+v", b)
		}
	})
}

func TestSubmitManyFromStdin(t *testing.T) {
	t.Parallel()
	url := startDev(t)
	var in strings.Builder
	for i := range 500 {
		fmt.Fprintf(&in, `{"agent_key":"echo","metadata":{"i":"%d"}}`+"\n", i)
		if i == 100 {
			in.WriteString("{\"agent_key\":5}\n\n{\"metadata\":{}}\n")
		}
	}
	r := longhaul(t, url, in.String(), "submit", "-", "--json")
	lines := decodeLines[bulkLine](t, r.stdout)
	if r.code != exitUsage || len(lines) != 502 {
		t.Fatalf("exit code %d, %d lines; stderr:\n%s", r.code, len(lines), r.stderr)
	}
	for i, l := range lines {
		if bad := i == 101 || i == 102; l.Line != i+1 || (l.RunID == "") != bad || (len(l.Faults) > 0) != bad {
			t.Fatalf("line %d: %+v", i+1, l)
		}
	}
	// Once more, with the agent from the command line and a wait: the one that named none is good then.
	r = longhaul(t, url, "{\"metadata\":{}}\n{\"agent_key\":\"count\",\"input\":{\"params\":{\"n\":1}}}\n", "submit", "echo", "--file", "/dev/stdin", "--wait")
	if r.code != exitOK || !strings.Contains(r.stderr, "2 runs submitted") || !strings.Contains(r.stderr, "2 succeeded") ||
		strings.Count(r.stdout, "\n") != 2 {
		t.Errorf("%+v", r)
	}
	r = longhaul(t, url, "{\"agent_key\":\"echo\"}\n{\"agent_key\":\"flaky\",\"input\":{\"params\":{\"retriable\":false}}}\n", "submit", "-", "--wait")
	if r.code != exitFailed {
		t.Errorf("%+v", r)
	}
}

func TestSubmitOneDocument(t *testing.T) {
	t.Parallel()
	url := startDev(t)
	doc := "{\n  \"agent_key\": \"echo\",\n  \"input\": {\"messages\": [{\"role\": \"user\", \"content\": \"from a file\"}]}\n}\n"
	file := filepath.Join(t.TempDir(), "s.json")
	if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, r := range []result{
		longhaul(t, url, "", "submit", "--file", file, "--wait"),
		longhaul(t, url, doc, "submit", "-", "--wait"),
		longhaul(t, url, strings.ReplaceAll(doc, "\n", ""), "submit", "-", "--wait"),
	} {
		if r.code != exitOK || r.stdout != "from a file\n" {
			t.Errorf("%+v", r)
		}
	}
	for stdin, says := range map[string]string{
		"":                             "no submission",
		"nonsense":                     "submission",
		`{"agent_key":"echo","nme":1}`: "nme",
	} {
		if r := longhaul(t, url, stdin, "submit", "-"); r.code != exitUsage || !strings.Contains(r.stderr, says) {
			t.Errorf("%q: %+v", stdin, r)
		}
	}
}

func TestExecAgent(t *testing.T) {
	t.Parallel()
	url := startDev(t, "--exec", `shout=sh -c "echo working; echo '{\"type\":\"result\",\"payload\":\"LOUD\"}'"`, "--exec", `broken=sh -c "echo sorry >&2; exit 3"`)
	if r := longhaul(t, url, "", "submit", "shout", "--wait"); r.code != exitOK || r.stdout != "LOUD\n" {
		t.Errorf("%+v", r)
	}
	if r := longhaul(t, url, "", "submit", "broken", "--max-attempts", "1", "--wait"); r.code != exitFailed || !strings.Contains(r.stderr, "exit status 3: sorry") {
		t.Errorf("%+v", r)
	}
}
