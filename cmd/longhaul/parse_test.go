package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"longhaul/internal/shell"
	"longhaul/pkg/contracts"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestHelp(t *testing.T) {
	const golden = "testdata/help.txt"
	cmd := newProgram(t, "", "--help")
	cmd.Env = append(cmd.Env, "COLUMNS=100")
	got, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the help is not %s (go test ./cmd/longhaul -run TestHelp -update writes it anew); it is\n%s", golden, got)
	}
}

// Every command has help of its own, with an example if it takes arguments.
func TestCommandHelp(t *testing.T) {
	var grammar cli
	parser, err := newParser(&grammar, newApp(nil, nil, nil, os.Getenv), t.Context())
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range parser.Model.Children {
		if !strings.Contains(string(readme), "`"+node.Name+"`") {
			t.Errorf("the README does not name %s", node.Name)
		}
		if node.Help == "" || strings.HasSuffix(strings.TrimSuffix(node.Help, "."), ".") {
			t.Errorf("%s: help %q", node.Name, node.Help)
		}
		if node.Name != "version" && !strings.Contains(node.Detail, "    longhaul "+node.Name) && !strings.Contains(node.Detail, "longhaul "+node.Name) {
			t.Errorf("%s: no example in %q", node.Name, node.Detail)
		}
		for _, f := range node.Flags {
			if len(f.Envs) != 1 || !strings.HasPrefix(f.Envs[0], "LONGHAUL_") {
				t.Errorf("%s --%s: environment %v", node.Name, f.Name, f.Envs)
			}
		}
	}
}

func TestCandidates(t *testing.T) {
	for words, want := range map[string]string{
		"":                              "demo dev submit watch get list cancel redrive signal confirm checkpoints agents stats dispatcher worker statekeeper topology security doctor top pause resume backup restore bench version completion",
		"ch":                            "checkpoints",
		"checkpoints ":                  "list get next delete",
		"checkpoints d":                 "delete",
		"submit --prio":                 "--priority",
		"submit --priority ":            "high normal low",
		"submit --priority = h":         "high",
		"submit -m completion --follo":  "--follow",
		"--nats url completion ":        "bash zsh fish",
		"list --status t":               "timed_out",
		"submit echo --param n=1 --wai": "--wait",
		"nosuch ":                       "demo dev submit watch get list cancel redrive signal confirm checkpoints agents stats dispatcher worker statekeeper topology security doctor top pause resume backup restore bench version completion",
	} {
		var grammar cli
		parser, err := newParser(&grammar, newApp(nil, nil, nil, os.Getenv), t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := candidates(parser.Model.Node, strings.Split(words, " "))
		if strings.Join(got, " ") != want {
			t.Errorf("%q completes to %q, want %q", words, got, want)
		}
	}
}

func TestCompletionScripts(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		r := longhaul(t, "", "", "completion", shell)
		if r.code != exitOK || !strings.Contains(r.stdout, completeCommand) {
			t.Errorf("%s: %+v", shell, r)
		}
	}
	if r := longhaul(t, "", "", completeCommand, "checkpoints", ""); r.stdout != "list\nget\nnext\ndelete\n" {
		t.Errorf("%+v", r)
	}
}

func TestSplitCommand(t *testing.T) {
	for line, want := range map[string][]string{
		`python3 run.py --fast`:       {"python3", "run.py", "--fast"},
		`  sh -c "echo 'a b' $HOME" `: {"sh", "-c", "echo 'a b' $HOME"},
		`a 'b "c' d\ e ""`:            {"a", `b "c`, "d e", ""},
		`say "a \"b\""`:               {"say", `a "b"`},
		``:                            nil,
	} {
		got, err := splitCommand(line)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v, want %q", line, got, err, want)
		}
	}
	for _, line := range []string{`a "b`, `a 'b`, `a \`} {
		if got, err := splitCommand(line); err == nil {
			t.Errorf("%q: %q, want an error", line, got)
		}
	}
}

func TestParseParams(t *testing.T) {
	got, err := parseParams(`{"n":1,"s":"x"}`, []string{"n=5", "flag=true", "text=hello world", "quoted=\"5\"", "list=[1,2]", "empty=", "eq=a=b"})
	want := `{"empty":"","eq":"a=b","flag":true,"list":[1,2],"n":5,"quoted":"5","s":"x","text":"hello world"}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
	if got, err := parseParams("", nil); got != nil || err != nil {
		t.Errorf("%s, %v, want none", got, err)
	}
	for _, object := range []string{"null", "[]", "5", "{"} {
		if got, err := parseParams(object, nil); err == nil {
			t.Errorf("%s: %s, want an error", object, got)
		}
	}
}

func TestTimes(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	c := console{now: func() time.Time { return now }}
	for d, want := range map[time.Duration]string{
		0: "0µs", 1500 * time.Microsecond: "1ms", 1250 * time.Millisecond: "1.2s", 59 * time.Second: "59s",
		61 * time.Second: "1m1s", time.Hour: "1h", 25*time.Hour + 3*time.Minute: "25h3m", 72 * time.Hour: "3d",
	} {
		if got := short(d); got != want {
			t.Errorf("%s is shown as %s, want %s", d, got, want)
		}
	}
	for at, want := range map[time.Time]string{
		{}: "", now: "just now", now.Add(-time.Minute): "1m ago", now.Add(time.Hour): "in 1h",
	} {
		if got := c.ago(at); got != want {
			t.Errorf("%s is %q, want %q", at, got, want)
		}
	}
	for text, want := range map[string]time.Duration{"90": 90 * time.Second, "1.5": 1500 * time.Millisecond, "5m": 5 * time.Minute, "7d": 168 * time.Hour} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-5", "-5m", "soon", "1e99", "NaN"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("%q: %s, want an error", text, got)
		}
	}
	if got, err := parsePast("1h", now); err != nil || !got.Equal(now.Add(-time.Hour)) {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := parseFuture("2026-11-23T00:00:00Z", now); err != nil || !got.Equal(now.Add(14*time.Hour)) {
		t.Errorf("%s, %v", got, err)
	}
	if number(1234567) != "1,234,567" || number(999) != "999" {
		t.Errorf("%s, %s", number(1234567), number(999))
	}
}

func TestWithoutSecrets(t *testing.T) {
	for url, want := range map[string]string{
		"nats://user:hunter2@h:4222": "nats://h:4222",
		"nats://token@h":             "nats://h",
		"tls://h:1?x=secret":         "tls://h:1",
		"hunter2":                    "(not shown)",
	} {
		if got := shell.WithoutSecrets(url); got != want {
			t.Errorf("%s is shown as %s, want %s", url, got, want)
		}
	}
}

// A stranger's text must not steer the terminal.
func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[31mb\r\nc\u009bd\te\u00e4"); got != "a[31mb\nc"+"d\teä" {
		t.Errorf("%q", got)
	}
	if got := oneLine("a\n b\tc", 10); got != "a b c" {
		t.Errorf("%q", got)
	}
	if got := oneLine("äöüäöü", 4); got != "äöü…" {
		t.Errorf("%q", got)
	}
}

func TestTableAlignsColours(t *testing.T) {
	var out bytes.Buffer
	c := console{w: &out, color: true}
	c.table([]string{"A", "B"}, [][]string{{c.red("x"), "1"}, {"long", c.status(contracts.StatusTimedOut)}})
	want := "\x1b[2mA\x1b[0m     \x1b[2mB\x1b[0m\n\x1b[31mx\x1b[0m     1\nlong  \x1b[31mtimed out\x1b[0m\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

// What agent.Tools emits is shown in words, any other form as it is.
func TestToolWords(t *testing.T) {
	for payload, want := range map[string]string{
		`tool.call {"id":"a","type":"function","function":{"name":"search","arguments":"{\"words\":\"sea\"}"}}`: `search({"words":"sea"})`,
		`tool.result {"role":"tool","content":"found","tool_call_id":"a"}`:                                      "found",
		`tool.call {"name":"fetch"}`: `{"name":"fetch"}`,
		`tool.result [1]`:            `[1]`,
	} {
		kind, body, _ := strings.Cut(payload, " ")
		if got := summary(contracts.Event{Type: contracts.EventType(kind), Payload: json.RawMessage(body)}, console{}); got != want {
			t.Errorf("%s: %q, want %q", payload, got, want)
		}
	}
}
