package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest/llm"
	"longhaul/pkg/contracts"
)

// chatTool is a tool's program. It notes what it does in a ledger; the first
// time that it comes to a hold it stays there until its worker has died, and
// then does no more.
const chatTool = `#!/bin/sh
hold() {
	if mkdir "$DIR/$1" 2>/dev/null; then
		while kill -0 $PPID 2>/dev/null; do sleep 0.05; done
		exit 1
	fi
}
if [ "$1" != note ]; then hold "before-$1"; fi
echo "$LONGHAUL_TOOL_CALL" >> "$DIR/ledger"
if [ "$1" = weather ]; then hold "after-$1"; fi
echo "$1 done"
`

// A worker is killed in each phase of a conversation of three turns: in the
// midst of each answer of the model, before and after a tool has done what it
// does, and with one tool under way and the one beside it at its end. The next
// worker goes on there. The stand-in for the model counts what it is asked.
func TestChatOverKill9(t *testing.T) {
	model := llm.Start(t, "sk-e2e", func(r llm.Request) llm.Reply {
		reply := llm.Reply{Usage: agent.Usage{InputTokens: 100, OutputTokens: 10}}
		switch r.Turn {
		case 1:
			reply.Text, reply.Calls = "Let me look. ", []contracts.ToolCall{llm.Call("a", "weather", `{"city":"Paris"}`)}
		case 2:
			reply.Text, reply.Calls = "It is fine. ", []contracts.ToolCall{llm.Call("b", "mail", `{"to":"eve"}`), llm.Call("c", "note", `{}`)}
		default:
			reply.Text = "Eve knows by now."
		}
		if r.Try == 1 {
			reply.HoldAfter = 2 // behind the first word, for ever
		}
		return reply
	})
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("tool.sh", chatTool, 0o700)
	write("key", "sk-e2e\n", 0o600)
	config := write("agents.yaml", fmt.Sprintf(`
tools:
  - {name: weather, description: The weather., exec: {command: [./tool.sh, weather], env: {DIR: %q}}}
  - {name: mail, description: Sends a mail., exec: {command: [./tool.sh, mail], env: {DIR: %q}}}
  - {name: note, description: Takes a note., exec: {command: [./tool.sh, note], env: {DIR: %q}}}
agents:
  - {key: assistant, chat: {model: m, base_url: %q, api_key_file: key, tools: [weather, mail, note]}}
`, dir, dir, dir, model.URL), 0o600)

	s := newStage(t)
	s.start(t, "dispatcher")
	s.start(t, "statekeeper")
	w := s.start(t, "worker", "--config", config)
	s.waitForAgent(t, "assistant")
	log, id := s.log(t), contracts.NewRunID()
	if _, stderr, code := s.cli(t, "", "submit", "assistant", "--run-id", id, "--max-attempts", "7", "-m", "Mail eve the weather."); code != 0 {
		t.Fatal(stderr)
	}
	inTurn := func(n int) func() bool {
		return func() bool {
			last, err := log.Last(t.Context(), id)
			return err == nil && last.Type == contracts.TypeDelta && model.Asked(n) == 1
		}
	}
	at := func(hold string) func() bool {
		return func() bool { _, err := os.Stat(filepath.Join(dir, hold)); return err == nil }
	}
	remembers := func(step string) func() bool {
		return func() bool {
			for e, err := range log.Read(t.Context(), id, 1) {
				if err == nil && e.Type == contracts.TypeStepCompleted && strings.Contains(string(e.Payload), step) {
					return true
				}
			}
			return false
		}
	}
	for _, phase := range []struct {
		name string
		here func() bool
	}{
		{"in the midst of the first answer", inTurn(1)}, {"before the weather", at("before-weather")}, {"after the weather", at("after-weather")},
		{"in the midst of the second answer", inTurn(2)}, {"before the mail and behind the note", func() bool { return at("before-mail")() && remembers("tool:note:c")() }}, {"in the midst of the last answer", inTurn(3)},
	} {
		waitFor(t, "the run to be "+phase.name, phase.here)
		w.kill()
		w = s.start(t, "worker", "--config", config)
	}

	all := checkLog(t, log, id)
	end := all[len(all)-1]
	var result contracts.Succeeded
	if err := json.Unmarshal(end.Payload, &result); err != nil || string(result.FinalOutput) != `"Eve knows by now."` || len(result.FinalMessages) != 7 {
		t.Fatalf("ended by %s: %s, %v", end.Type, end.Payload, err)
	}
	if end.Attempt != 7 {
		t.Errorf("ended in attempt %d, want 7: six workers died", end.Attempt)
	}
	for turn := 1; turn <= 3; turn++ {
		if asked, answered := model.Asked(turn), model.Answered(turn); asked != 2 || answered != 1 {
			t.Errorf("turn %d was asked for %d times and answered %d times, want 2, of which one was cut off, and 1", turn, asked, answered)
		}
	}
	if want := (agent.Usage{InputTokens: 300, OutputTokens: 30}); end.Usage != want {
		t.Errorf("spent %+v, want %+v", end.Usage, want)
	}
	// Killed behind its effect and before its result was in the log: made again, by
	// the same key. Killed before it, or behind its result: not.
	data, err := os.ReadFile(filepath.Join(dir, "ledger"))
	weather, mail, note := id+"/tool:weather:a", id+"/tool:mail:b", id+"/tool:note:c"
	if got := strings.Fields(string(data)); err != nil || !slices.Equal(got, []string{weather, weather, note, mail}) {
		t.Errorf("the tools did %q, %v", got, err)
	}
	for _, e := range all {
		if strings.Contains(string(e.Payload), "sk-e2e") {
			t.Errorf("the key is in %s", e.Type)
		}
	}
}
