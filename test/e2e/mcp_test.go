package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"longhaul/pkg/agent/agenttest/llm"
	"longhaul/pkg/contracts"
)

// mcpServerDir has the test's binary be an MCP server that keeps its books there.
const mcpServerDir = "E2E_MCP_SERVER_DIR"

// runMCPServer has two tools, which note what they do. The first call of
// "mail" that is made with a new key stays where it is behind its effect.
func runMCPServer(dir string) int {
	enter := func(book, line string) {
		f, err := os.OpenFile(filepath.Join(dir, book), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = fmt.Fprintln(f, line)
		}
		if err != nil {
			panic(err)
		}
		_ = f.Close()
	}
	enter("servers", strconv.Itoa(os.Getpid()))
	server := sdk.NewServer(&sdk.Implementation{Name: "office", Version: "1"}, nil)
	text := func(s string) *sdk.CallToolResult {
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: s}}}
	}
	sdk.AddTool(server, &sdk.Tool{Name: "pay"}, func(_ context.Context, r *sdk.CallToolRequest, args struct {
		Amount int `json:"amount"`
	}) (*sdk.CallToolResult, any, error) {
		enter("ledger", fmt.Sprint("pay ", args.Amount, " ", r.Params.Meta["longhaul/idempotency-key"]))
		return text("paid"), nil, nil
	})
	sdk.AddTool(server, &sdk.Tool{Name: "mail"}, func(ctx context.Context, r *sdk.CallToolRequest, _ struct{}) (*sdk.CallToolResult, any, error) {
		enter("ledger", fmt.Sprint("mail ", r.Params.Meta["longhaul/idempotency-key"]))
		if os.Mkdir(filepath.Join(dir, "mailed"), 0o700) == nil {
			<-ctx.Done() // nobody cancels it
		}
		return text("mailed"), nil, nil
	})
	if err := server.Run(context.Background(), &sdk.StdioTransport{}); err != nil {
		return 1
	}
	return 0
}

// A worker that is killed in the midst of a conversation, and of a call of an
// MCP server, leaves no server behind. The next worker starts one of its own and
// goes on: the call that had been made is not made again.
func TestMCPOverKill9(t *testing.T) {
	dir := t.TempDir()
	model := llm.Start(t, "", func(r llm.Request) llm.Reply {
		switch r.Turn {
		case 1:
			return llm.Reply{Calls: []contracts.ToolCall{llm.Call("a", "office__pay", `{"amount":7}`), llm.Call("b", "office__pay", `{"amount":"all"}`)}}
		case 2:
			return llm.Reply{Calls: []contracts.ToolCall{llm.Call("c", "office__mail", `{}`)}}
		}
		return llm.Reply{Text: "Paid, and told."}
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "agents.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
mcp:
  - name: office
    command: [%q]
    env: {%s: %q}
    tools: {mail: {side_effects: true}}
agents:
  - {key: clerk, chat: {model: m, base_url: %q, tools: [office/*]}}
`, self, mcpServerDir, dir, model.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	book := func(name string) []string {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil
		}
		return strings.Split(strings.TrimSpace(string(data)), "\n")
	}

	s := newStage(t)
	out, stderr, code := s.cli(t, "", "worker", "--config", config, "--check")
	if want := "The configuration is sound. Agents: clerk\nMCP server office: office__mail (side effects), office__pay (side effects)\n"; code != 0 || out != want {
		t.Fatalf("exit code %d: %s%s", code, out, stderr)
	}
	s.start(t, "dispatcher")
	s.start(t, "statekeeper")
	w := s.start(t, "worker", "--config", config)
	s.waitForAgent(t, "clerk")
	log, id := s.log(t), contracts.NewRunID()
	if _, stderr, code := s.cli(t, "", "submit", "clerk", "--run-id", id, "-m", "Pay, and tell."); code != 0 {
		t.Fatal(stderr)
	}
	waitFor(t, "the call that hangs", func() bool { return len(book("ledger")) == 2 })
	w.kill()
	w = s.start(t, "worker", "--config", config)

	all := checkLog(t, log, id)
	end := all[len(all)-1]
	var result contracts.Succeeded
	if err := json.Unmarshal(end.Payload, &result); err != nil || string(result.FinalOutput) != `"Paid, and told."` || end.Attempt != 2 {
		t.Fatalf("attempt %d ended by %s: %s, %v", end.Attempt, end.Type, end.Payload, err)
	}
	pay, mail := "pay 7 "+id+"/tool:office__pay:a", "mail "+id+"/tool:office__mail:c"
	if got := book("ledger"); !slices.Equal(got, []string{pay, mail, mail}) { // the mail's result was not in the log; its key is the same
		t.Errorf("the server did %q", got)
	}
	if told := model.Requests()[1].Messages[3].Text(); told != "error: arguments.amount: must be integer, not string" {
		t.Errorf("the model was told %q", told)
	}
	for turn := 1; turn <= 3; turn++ {
		if n := model.Answered(turn); n != 1 {
			t.Errorf("turn %d was answered %d times", turn, n)
		}
	}
	w.end(t)
	for _, pid := range book("servers") {
		n, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, "no server to be left", func() bool { return ended(n) })
	}
}

// ended reports whether a process has ended, collected or not.
func ended(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return true
	}
	state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(state), ") Z ")
}
