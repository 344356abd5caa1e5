package agentfile_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/agent/agenttest/llm"
	"longhaul/pkg/agent/builtin/agentfile"
	"longhaul/pkg/contracts"
)

// startMCP starts an MCP server that wants a key, and returns its address.
func startMCP(t *testing.T, key string) string {
	t.Helper()
	server := sdk.NewServer(&sdk.Implementation{Name: "stand", Version: "1"}, nil)
	for _, name := range []string{"weather", "mail", "wipe"} {
		sdk.AddTool(server, &sdk.Tool{Name: name, Description: "does " + name}, func(_ context.Context, _ *sdk.CallToolRequest, args struct {
			To string `json:"to"`
		}) (*sdk.CallToolResult, any, error) {
			return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: name + " for " + args.To}}}, nil, nil
		})
	}
	handler := sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return server }, nil)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Key") != key {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		web.CloseClientConnections()
		web.Close()
		for session := range server.Sessions() {
			_ = session.Close()
		}
	})
	return web.URL
}

func TestServers(t *testing.T) {
	t.Setenv("MCP_KEY", "k3y")
	address := startMCP(t, "k3y")
	model := llm.Start(t, "", func(r llm.Request) llm.Reply {
		if r.Turn == 1 {
			return llm.Reply{Calls: []contracts.ToolCall{llm.Call("a", "stand__weather", `{"to":"ann"}`), llm.Call("b", "stand__mail", `{"to":"bob"}`),
				llm.Call("c", "stand__wipe", `{"to":"all"}`), llm.Call("d", "own", "{}"), llm.Call("e", "stand__weather", `{"to":7}`)}}
		}
		return llm.Reply{Text: "done"}
	})
	f := mustLoad(t, write(t, "agents.yaml", fmt.Sprintf(`
tools:
  - {name: own, description: "", exec: {command: [echo, mine]}}
mcp:
  - name: stand
    url: %s
    secret_headers: {X-Key: {env: MCP_KEY}}
    allow: [weather, mail]
    timeout_seconds: 5
    tools:
      mail: {requires_confirmation: true, confirm_within_seconds: 0.1}
  - name: gone
    url: http://127.0.0.1:1/
    connect_timeout_seconds: 1
agents:
  - {key: all, chat: {model: m, base_url: %q, tools: [own, stand/*, stand/mail]}}
  - {key: some, chat: {model: m, base_url: %q, tools: [stand/mail]}}
  - {key: none, chat: {model: m, base_url: %q, tools: [gone/*]}}
`, address, model.URL, model.URL, model.URL)))
	t.Cleanup(f.Close)
	hi := contracts.Submission{MaxAttempts: 1, Input: contracts.Input{Messages: []contracts.Message{contracts.Text("user", "hi")}}}
	if o := agenttest.New(f.Agents[0], hi).Run(t.Context()); o.Status != contracts.StatusSucceeded {
		t.Fatalf("%s, %+v", o.Status, o.Error)
	}
	if got := names(model.Requests()[0].Tools); got != "own stand__mail stand__weather" {
		t.Errorf("the model was shown %s", got)
	}
	told := model.Requests()[1].Messages
	for i, want := range []string{"weather for ann", "error: refused: nobody has confirmed it in time",
		`error: there is no tool "stand__wipe"; there are own, stand__mail, stand__weather`, "mine\n", "error: arguments.to: must be string, not number"} {
		if got := told[2+i].Text(); got != want {
			t.Errorf("the model was told %q, want %q", got, want)
		}
	}
	agenttest.New(f.Agents[1], hi).Run(t.Context())
	if got := names(model.Requests()[2].Tools); got != "stand__mail" {
		t.Errorf("the model was shown %s", got)
	}
	o := agenttest.New(f.Agents[2], hi).Run(t.Context())
	if o.Status != contracts.StatusFailed || o.Error.Type != "ServiceUnreachable" || !o.Error.Retriable || !strings.Contains(o.Error.Message, "MCP server gone: the service cannot be reached") {
		t.Errorf("%s, %+v", o.Status, o.Error)
	}
}

func names(tools []agent.ToolDefinition) string {
	var all []string
	for _, d := range tools {
		all = append(all, d.Function.Name)
	}
	return strings.Join(all, " ")
}

func TestFaultsOfServers(t *testing.T) {
	path := write(t, "agents.yaml", `mcp:
  - name: My Files
    command: [/no/such/server]
    unanswered: maybe
  - name: both
    command: ["true"]
    url: http://localhost/
  - name: web
    url: ftp://me:pw@host/
    token_env: NO_SUCH_TOKEN
    secret_headers:
      X-Key: {env: NO_SUCH_KEY}
      X-Other: {}
    allow: [a]
    tools:
      b: {timeout_seconds: 1}
      a: {timeout_seconds: 0, unanswered: never}
  - name: fine
    url: http://localhost/
    allow: [a]
    timeout: 1
agents:
  - key: one
    chat:
      model: m
      tools: [nobody/a, fine/b, fine/a, fine/, web/a]
`)
	_, err := agentfile.Load(path)
	var faults agentfile.Faults
	if !errors.As(err, &faults) {
		t.Fatalf("error %v", err)
	}
	want := []string{
		`2:5: mcp[0].name: must be 1 to 32 of a-z, 0-9 and -, not "My Files"`,
		`3:5: mcp[0].command: exec: "/no/such/server": stat /no/such/server`,
		`4:5: mcp[0].unanswered: must be refuse or make, not "maybe"`,
		`5:5: mcp[1]: must have exactly one of command and url`,
		`9:5: mcp[2].url: must be an address`,
		`10:5: mcp[2].token_env: the environment has no NO_SUCH_TOKEN`,
		`12:7: mcp[2].secret_headers.X-Key: the environment has no NO_SUCH_KEY`,
		`13:7: mcp[2].secret_headers.X-Other: must name env or file`,
		`16:7: mcp[2].tools.b: is not among those that are allowed`,
		`17:11: mcp[2].tools.a.timeout_seconds: must be above 0, not 0`,
		`17:31: mcp[2].tools.a.unanswered: must be refuse or make, not "never"`,
		`21:5: mcp[3].timeout: is no field here`,
		`26:15: agents[0].chat.tools[0]: there is no MCP server "nobody"; there are My Files, both, fine, web`,
		`26:25: agents[0].chat.tools[1]: "b" is not among what mcp "fine" allows: a`,
		`26:41: agents[0].chat.tools[3]: must be server/tool or server/*`,
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
}
