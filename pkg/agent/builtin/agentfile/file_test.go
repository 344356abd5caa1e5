package agentfile_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/agent/agenttest/llm"
	"longhaul/pkg/agent/builtin/agentfile"
	"longhaul/pkg/contracts"
)

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustLoad(t *testing.T, path string) agentfile.File {
	t.Helper()
	f, err := agentfile.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Every fault is told at once, where it stands, and by the name that the file has for it.
func TestFaults(t *testing.T) {
	path := write(t, "agents.yaml", `# a comment
worker:
  concurrency: many
  lease_ttl_seconds: 0
  colour: red
tools:
  - name: no name
    description: x
    exec:
      command: [/no/such/tool]
    unanswered: maybe
agents:
  - key: Bad Key
    chat:
      model: m
      base_url: ftp://x
      api_key_env: NO_SUCH_KEY
      max_turns: 5000
      parallel_tools: -2
      params: {temperature: 9}
      request:
        stream: false
  - key: two
    exec:
      command: ["/no/such/program"]
      dir: nowhere
      timeout_seconds: -1
      pass_env: ["A=B"]
      limits:
        cpu_seconds: soon
  - key: three
    http:
      token_file: nowhere
      url: "http://me:pw@host/"
  - key: four
  - key: five
    echo: {}
    count: {}
  - key: five
    echo: {}
    input_schema: {type: 7}
  - description: has no key
    chat: {model: m, mistake: 1}
`)
	_, err := agentfile.Load(path)
	var faults agentfile.Faults
	if !errors.As(err, &faults) {
		t.Fatalf("error %v", err)
	}
	want := []string{
		"3:3: worker.concurrency: must be integer, not string",
		"4:3: worker.lease_ttl_seconds: must be above 0, not 0",
		"5:3: worker.colour: is no field here",
		"7:5: tools[0].name: must be 1 to 64",
		"10:7: tools[0].exec.command: exec: \"/no/such/tool\": stat /no/such/tool: no such file or directory",
		"11:5: tools[0].unanswered: must be refuse or make, not \"maybe\"",
		"13:5: agents[0].key: must be 1 to 63",
		"16:7: agents[0].chat.base_url: must be an address",
		"17:7: agents[0].chat.api_key_env: the environment has no NO_SUCH_KEY",
		"18:7: agents[0].chat.max_turns: must be 1 to 1000",
		"19:7: agents[0].chat.parallel_tools: must be above 0, not -2",
		"20:16: agents[0].chat.params.temperature: must be at most 2, not 9",
		"22:9: agents[0].chat.request.stream: is the agent's own to say",
		"25:7: agents[1].exec.command: exec: \"/no/such/program\"",
		"26:7: agents[1].exec.dir: must be a directory",
		"27:7: agents[1].exec.timeout_seconds: must be above 0, not -1",
		"28:18: agents[1].exec.pass_env[0]: must be a name",
		"30:9: agents[1].exec.limits.cpu_seconds: must be number, not string",
		"33:7: agents[2].http.token_file: open ",
		"34:7: agents[2].http.url: must not hold a password",
		"35:5: agents[3]: must have exactly one of chat, http, exec, echo, count and flaky (of the last three: {}), not 0",
		"36:5: agents[4]: must have exactly one of",
		"39:5: agents[5].key: \"five\" is there twice",
		"41:5: agents[5].input_schema: must be a JSON Schema",
		"42:5: agents[6].key: is required",
		"43:22: agents[6].chat.mistake: is no field here",
	}
	lines := strings.Split(err.Error(), "\n")
	for i := range max(len(want), len(lines)) {
		switch {
		case i >= len(want):
			t.Errorf("also %s", lines[i])
		case i >= len(lines):
			t.Errorf("not told: %s", want[i])
		case !strings.HasPrefix(lines[i], path+":"+want[i]):
			t.Errorf("told %s\nwant %s:%s", lines[i], path, want[i])
		}
	}
	if strings.Contains(err.Error(), "pw") {
		t.Errorf("a password is shown: %v", err)
	}
}

func TestSyntax(t *testing.T) {
	for text, want := range map[string]string{
		"agents:\n  - key: a\n   echo: {}\n": "3:",
		"agents: [\n":                        "1:",
		"":                                   "1:1: there is nothing in the file",
		"agents: []\n":                       "1:1: agents: there must be at least one",
		"worker: {}\n":                       "1:1: agents: is required",
		"agents:\n- {key: a, echo: {}}\nagents: []\n": "3:1: mapping key \"agents\" already defined",
		"agents:\n- {key: a, echo: {}}\n---\nb: 1\n":  "4:1: there is more than one document",
		"- a\n": "1:1: must be object, not array",
		"agents:\n- {key: a, echo: {}, concurrency: 0}\n": "2:22: agents[0].concurrency: must be above 0, not 0",
		"agents:\n- {key: a, echo: {}, x: .inf}\n":        "1:1: ",
		"agents:\n- &a {key: a, echo: {}}\n- *a\n":        "3:3: agents[1].key",
		"agents:\n- {key: a, echo: {loud: true}}\n":       "2:19: agents[0].echo.loud: is no field here",
		"{\n\t\"agents\": [{\"key\": 1, \"echo\": {}}]}":  "2:",
	} {
		_, err := agentfile.Load(write(t, "agents.yaml", text))
		if err == nil || !strings.Contains(err.Error(), "agents.yaml:"+want) {
			t.Errorf("of %q: %v, want %s", text, err, want)
		}
	}
	if _, err := agentfile.Load("/no/such/file"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// A fault of one tool hides none of another, nor another of its own.
func TestFaultsOfTools(t *testing.T) {
	_, err := agentfile.Load(write(t, "agents.yaml", `worker: {concurrency: many}
tools:
- {name: a b, description: x, parameters: {type: 5}, exec: {command: [/no/such/program]}}
- {name: c d, description: x, exec: {command: ["true"]}}
agents:
- {key: a, chat: {model: m, base_url: "http://x", tools: [s/t]}}
`))
	if err == nil {
		t.Fatal("it was loaded")
	}
	for _, want := range []string{"1:10: worker.concurrency: must be integer", "3:61: tools[0].exec.command: ", "3:4: tools[0].name: ", "3:31: tools[0].parameters: ",
		"4:4: tools[1].name: ", `6:59: agents[0].chat.tools[0]: there is no MCP server "s"; there are none`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("not told: %s", want)
		}
	}
	if t.Failed() {
		t.Logf("told: %v", err)
	}
}

// JSON is a form of YAML.
func TestJSON(t *testing.T) {
	f := mustLoad(t, write(t, "agents.json", "{\n\t\"worker\": {\"concurrency\": 3},\n\t\"agents\": [{\"key\": \"a\", \"echo\": {}, \"description\": \"mine\", \"concurrency\": 2}]\n}\n"))
	if f.Worker.Concurrency != 3 || len(f.Agents) != 1 || f.Agents[0].Concurrency != 2 || f.Agents[0].Key != "a" || f.Agents[0].Description != "mine" {
		t.Errorf("%+v", f)
	}
}

// A whole file, by its agents at work: what the file says arrives where it is meant to.
func TestAgents(t *testing.T) {
	t.Setenv("MODEL_KEY", "sk-of-the-model")
	t.Setenv("PASSED", "on")
	model := llm.Start(t, "sk-of-the-model", func(r llm.Request) llm.Reply {
		if r.Turn == 1 {
			return llm.Reply{Calls: []contracts.ToolCall{llm.Call("a", "shout", `{"text":"hi"}`), llm.Call("b", "shout", `{"text":1}`), llm.Call("c", "secret", `{}`)}}
		}
		return llm.Reply{Text: "done", Usage: agent.Usage{InputTokens: 1e6}}
	})
	path := write(t, "agents.yaml", fmt.Sprintf(`
tools:
  - name: shout
    description: Says it loudly.
    parameters:
      type: object
      properties: {text: {type: string}}
    exec: {command: [sh, -c, "tr a-z A-Z; echo \" $KIND $PASSED $MODEL_KEY.$LONGHAUL_TOOL_CALL\""], env: {KIND: very}, pass_env: [PASSED]}
  - name: secret
    description: Not for everybody.
    exec: {command: ["false"]}
agents:
  - key: talker
    description: talks
    chat:
      model: m
      base_url: %s
      api_key_env: MODEL_KEY
      system: Be brief.
      tools: [shout]
      price: {input: 2, output: 1}
  - key: script
    input_schema: {type: object, required: [n]}
    exec: {command: [../script.sh, x], dir: sub}
`, model.URL))
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "script.sh"), []byte("#!/bin/sh\npwd\necho \"{\\\"type\\\":\\\"result\\\",\\\"payload\\\":\\\"$1$MODEL_KEY\\\"}\"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(filepath.Dir(path), "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	f := mustLoad(t, path)
	hi := contracts.Submission{Input: contracts.Input{Messages: []contracts.Message{contracts.Text("user", "hi")}}}
	o := agenttest.New(f.Agents[0], hi).Run(t.Context())
	if out, err := agenttest.Output[string](o); out != "done" || err != nil || o.Spent.Cost != 2 {
		t.Fatalf("%q, %v, spent %+v", out, err, o.Spent)
	}
	asked := model.Requests()[0]
	if asked.Messages[0].Text() != "Be brief." || len(asked.Tools) != 1 || asked.Tools[0].Function.Description != "Says it loudly." {
		t.Errorf("the model was sent %+v, tools %+v", asked.Messages, asked.Tools)
	}
	told := model.Requests()[1].Messages
	for i, want := range []string{
		`{"TEXT":"HI"} very on .` + agenttest.RunID + "/tool:shout:a\n",
		"error: arguments.text: must be string, not number",
		`error: there is no tool "secret"; there are shout`, // which is not on the list
	} {
		if got := told[3+i].Text(); got != want {
			t.Errorf("the model was told %q, want %q", got, want)
		}
	}
	trial := agenttest.New(f.Agents[1], agenttest.Params(map[string]int{"n": 1}))
	if out, err := agenttest.Output[string](trial.Run(t.Context())); out != "x" || err != nil {
		t.Errorf("%q, %v: the worker's secrets are not the program's", out, err)
	}
	dir, _ := filepath.EvalSymlinks(filepath.Dir(path))
	if p := string(trial.Events()[2].Payload); !strings.Contains(p, dir+"/sub") {
		t.Errorf("the program ran in %s, not in %s", p, dir)
	}
	if o := agenttest.New(f.Agents[1], contracts.Submission{}).Run(t.Context()); o.Status != contracts.StatusRejected {
		t.Errorf("without n: %s", o.Status)
	}
	if raw := f.Agents[0].InputSchema; !json.Valid(raw) || f.Agents[0].Description != "talks" {
		t.Errorf("%+v", f.Agents[0])
	}
}

// What needs somebody's word waits for it.
func TestToolsThatAsk(t *testing.T) {
	model := llm.Start(t, "", func(r llm.Request) llm.Reply {
		if r.Turn == 1 {
			return llm.Reply{Calls: []contracts.ToolCall{llm.Call("a", "pay", "{}"), llm.Call("b", "give", "{}")}}
		}
		return llm.Reply{Text: "done"}
	})
	f := mustLoad(t, write(t, "agents.yaml", fmt.Sprintf(`
tools:
  - {name: pay, description: "", exec: {command: [echo, paid]}, requires_confirmation: true, confirm_within_seconds: 0.1}
  - {name: give, description: "", exec: {command: [echo, given]}, requires_confirmation: true, confirm_within_seconds: 0.1, unanswered: make}
agents:
  - {key: talker, chat: {model: m, base_url: "%s", tools: [pay, give]}}
`, model.URL)))
	hi := contracts.Submission{Input: contracts.Input{Messages: []contracts.Message{contracts.Text("user", "hi")}}}
	if o := agenttest.New(f.Agents[0], hi).Run(t.Context()); o.Status != contracts.StatusSucceeded {
		t.Fatalf("%s, %+v", o.Status, o.Error)
	}
	told := model.Requests()[1].Messages
	if a, b := told[2].Text(), told[3].Text(); !strings.Contains(a, "nobody has confirmed it") || b != "given\n" {
		t.Errorf("the model was told %q and %q", a, b)
	}
}

// A tool that fails, or takes too long, is told to the model.
func TestToolsThatFail(t *testing.T) {
	model := llm.Start(t, "", func(r llm.Request) llm.Reply {
		if r.Turn == 1 {
			return llm.Reply{Calls: []contracts.ToolCall{llm.Call("a", "fails", "{}"), llm.Call("b", "hangs", "{}")}}
		}
		return llm.Reply{Text: "done"}
	})
	f := mustLoad(t, write(t, "agents.yaml", fmt.Sprintf(`
tools:
  - {name: fails, description: "", exec: {command: [sh, -c, "echo no such city >&2; exit 3"]}}
  - {name: hangs, description: "", exec: {command: [sleep, "60"], timeout_seconds: 0.2, grace_seconds: 0.1}}
agents:
  - {key: talker, chat: {model: m, base_url: "%s", tools: [fails, hangs]}}
`, model.URL)))
	hi := contracts.Submission{Input: contracts.Input{Messages: []contracts.Message{contracts.Text("user", "hi")}}}
	if o := agenttest.New(f.Agents[0], hi).Run(t.Context()); o.Status != contracts.StatusSucceeded {
		t.Fatalf("%s, %+v", o.Status, o.Error)
	}
	told := model.Requests()[1].Messages
	if a, b := told[2].Text(), told[3].Text(); a != "error: exit status 3: no such city" || b != "error: took longer than its 200ms" {
		t.Errorf("the model was told %q and %q", a, b)
	}
}
