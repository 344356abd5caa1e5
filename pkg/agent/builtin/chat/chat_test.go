package chat_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/agent/agenttest/llm"
	"longhaul/pkg/agent/builtin/chat"
	"longhaul/pkg/contracts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// secret is the key of the models of these tests.
const secret = "sk-0123-very-secret"

// newChat makes an agent that talks to model, with its key in a file.
func newChat(t *testing.T, model *llm.Server, change func(*chat.Config)) agent.Agent {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := chat.Config{Key: "assistant", Model: "test-1", BaseURL: model.URL, APIKey: chat.Secret{File: file}}
	if change != nil {
		change(&cfg)
	}
	a, err := chat.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// says is a submission of one message.
func says(text, params string) contracts.Submission {
	return contracts.Submission{Input: contracts.Input{Messages: []contracts.Message{contracts.Text("user", text)}, Params: json.RawMessage(params)}}
}

// streamed is the text of all deltas.
func streamed(t *testing.T, trial *agenttest.Trial) string {
	t.Helper()
	var text string
	for _, e := range trial.Events() {
		if e.Type == contracts.TypeDelta {
			var d contracts.Delta
			if err := json.Unmarshal(e.Payload, &d); err != nil {
				t.Fatal(err)
			}
			text += d.Text
		}
	}
	return text
}

func TestAnswer(t *testing.T) {
	const text = "The weather is fine, as they say: 20 °C."
	model := llm.Start(t, secret, func(llm.Request) llm.Reply {
		return llm.Reply{Text: text, Usage: agent.Usage{InputTokens: 2000, OutputTokens: 500}}
	})
	a := newChat(t, model, func(c *chat.Config) {
		c.System, c.Price = "Be brief.", chat.Price{Input: 2.5, Output: 10}
		c.Request = map[string]json.RawMessage{"reasoning_effort": json.RawMessage(`"low"`)}
		c.Headers = map[string]string{"X-Team": "red"}
		half := 0.5
		c.Params.TopP = &half
	})
	trial := agenttest.New(a, says("What is the weather like?", `{"temperature":0.2,"max_tokens":100,"stop":["END"],"seed":7}`))
	o := trial.Run(t.Context())
	if got, err := agenttest.Output[string](o); got != text || err != nil {
		t.Fatalf("output %q, %v", got, err)
	}
	if got := streamed(t, trial); got != text {
		t.Errorf("streamed %q", got)
	}
	if n := len(o.FinalMessages); n != 2 || o.FinalMessages[0].Role != "user" || o.FinalMessages[1].Text() != text {
		t.Errorf("final messages %+v", o.FinalMessages)
	}
	if want := (agent.Usage{InputTokens: 2000, OutputTokens: 500, Cost: 0.01}); o.Spent != want {
		t.Errorf("spent %+v, want %+v", o.Spent, want)
	}
	if i := slices.Index(trial.Types(), contracts.TypeMessage); i < 0 || trial.Types()[i+1] != contracts.TypeStepCompleted {
		t.Errorf("events %v, want the message, then its step", trial.Types())
	}
	asked := model.Requests()[0]
	if asked.Messages[0].Role != "system" || asked.Messages[0].Text() != "Be brief." || asked.Header.Get("X-Team") != "red" {
		t.Errorf("the model was sent %+v", asked)
	}
	for field, want := range map[string]string{"temperature": "0.2", "max_tokens": "100", "stop": `["END"]`, "seed": "7", "top_p": "0.5",
		"reasoning_effort": `"low"`, "stream_options": `{"include_usage":true}`, "tools": ""} {
		if got := string(asked.Fields[field]); got != want {
			t.Errorf("the request's %s is %q, want %q", field, got, want)
		}
	}
}

func TestParamsAreChecked(t *testing.T) {
	model := llm.Start(t, "", func(llm.Request) llm.Reply { return llm.Reply{Text: "yes"} })
	a := newChat(t, model, func(c *chat.Config) { c.Models, c.MaxTurns = []string{"test-2"}, 5 })
	o := agenttest.New(a, says("hi", `{"temperature":3,"max_turns":6,"model":"dear-1","nonsense":1,"max_tokens":0}`)).Run(t.Context())
	if o.Status != contracts.StatusRejected || len(o.Faults) != 5 {
		t.Errorf("%s, %v", o.Status, o.Faults)
	}
	o = agenttest.New(a, says("hi", `{"model":"test-2"}`)).Run(t.Context())
	if o.Status != contracts.StatusSucceeded || model.Requests()[0].Model != "test-2" {
		t.Errorf("%s, asked %s", o.Status, model.Requests()[0].Model)
	}
	o = agenttest.New(a, contracts.Submission{}).Run(t.Context())
	if o.Status != contracts.StatusFailed || o.Error.Type != chat.TypeNoMessages || o.Error.Retriable {
		t.Errorf("without a message: %s, %+v", o.Status, o.Error)
	}
}

func TestConfig(t *testing.T) {
	hot, t0 := 9.0, chat.Config{
		Key: "No Key", BaseURL: "https://me:secret@example.org", MaxTurns: -1, ParallelTools: -1, IdleTimeout: -1, Price: chat.Price{Output: -1},
		APIKey: chat.Secret{Env: "NO_SUCH_VARIABLE"}, Request: map[string]json.RawMessage{"stream": json.RawMessage("false")},
		InputSchema: json.RawMessage(`{"type":1}`),
	}
	t0.Params.Temperature = &hot
	_, err := chat.New(t0)
	var faults contracts.Faults
	if !errors.As(err, &faults) {
		t.Fatalf("error %v", err)
	}
	var fields []string
	for _, f := range faults {
		fields = append(fields, f.Field)
	}
	want := []string{"api_key", "base_url", "idle_timeout", "input_schema", "key", "max_turns", "model", "parallel_tools", "params.temperature", "price.output", "request.stream"}
	if !slices.Equal(fields, want) {
		t.Errorf("faults of %q, want %q: %v", fields, want, err)
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("a password is shown: %v", err)
	}
}

// What the run comes to where the model does not simply stop.
func TestOtherEnds(t *testing.T) {
	for finish, want := range map[string]string{"length": chat.TypeTruncated, "content_filter": chat.TypeFiltered} {
		model := llm.Start(t, "", func(llm.Request) llm.Reply { return llm.Reply{Text: "I was about", Finish: finish} })
		o := agenttest.New(newChat(t, model, nil), says("hi", "")).Run(t.Context())
		if o.Status != contracts.StatusFailed || o.Error.Type != want || o.Error.Retriable || model.Asked(1) != 1 {
			t.Errorf("%s: %s, %+v, asked %d times", finish, o.Status, o.Error, model.Asked(1))
		}
	}
	model := llm.Start(t, "", func(r llm.Request) llm.Reply {
		return llm.Reply{Calls: []contracts.ToolCall{llm.Call("", "dig", "{}")}}
	})
	o := agenttest.New(newChat(t, model, nil), says("hi", `{"max_turns":3}`)).Run(t.Context())
	if o.Status != contracts.StatusFailed || o.Error.Type != chat.TypeTooManyTurns || len(model.Requests()) != 3 {
		t.Errorf("%s, %+v, asked %d times", o.Status, o.Error, len(model.Requests()))
	}
	if last := model.Requests()[2].Messages; last[2].Text() != `error: there is no tool "dig"; there are none` {
		t.Errorf("the model was told %q", last[2].Text())
	}
	model = llm.Start(t, "", func(llm.Request) llm.Reply {
		return llm.Reply{Text: strings.Repeat(strings.Repeat("x", 1000)+" ", 300)}
	})
	if o := agenttest.New(newChat(t, model, nil), says("hi", "")).Run(t.Context()); o.Error.Type != "AnswerTooLong" || o.Error.Retriable {
		t.Errorf("300 KB: %s, %+v", o.Status, o.Error)
	}
}

// Where an endpoint gives calls no ids, or the same in each turn, they get some
// of their own: each is made, and answered.
func TestCallsWithoutIDs(t *testing.T) {
	for _, id := range []string{"", "call_0", strings.Repeat("long", 30), "call\n"} {
		model := llm.Start(t, "", func(r llm.Request) llm.Reply {
			if r.Turn == 3 {
				return llm.Reply{Text: "done"}
			}
			return llm.Reply{Calls: []contracts.ToolCall{llm.Call(id, "count", "{}"), llm.Call(id, "count", "{}")}}
		})
		var made atomic.Int32
		tools, err := agent.NewTools(agent.NewTool("count", "", func(context.Context, struct{}) (int32, error) { return made.Add(1), nil }))
		if err != nil {
			t.Fatal(err)
		}
		o := agenttest.New(newChat(t, model, func(c *chat.Config) { c.Tools = tools }), says("hi", "")).Run(t.Context())
		if o.Status != contracts.StatusSucceeded || made.Load() != 4 {
			t.Errorf("with ids %.20q: %s, %+v, %d calls made", id, o.Status, o.Error, made.Load())
		}
	}
}

// Two calls that come under one index are two.
func TestCallsUnderOneIndex(t *testing.T) {
	model := llm.Start(t, "", func(r llm.Request) llm.Reply {
		if r.Turn == 2 {
			return llm.Reply{Text: "done"}
		}
		return llm.Reply{OneIndex: true, Calls: []contracts.ToolCall{llm.Call("a", "dig", `{"at":1}`), llm.Call("b", "dig", `{"at":2}`)}}
	})
	o := agenttest.New(newChat(t, model, nil), says("hi", "")).Run(t.Context())
	if len(o.FinalMessages) != 5 || o.FinalMessages[1].ToolCalls[1].Function.Arguments != `{"at":2}` {
		t.Errorf("%s, %+v, final messages %+v", o.Status, o.Error, o.FinalMessages)
	}
}

// Final messages fit into the run's last event, however much the tools said.
func TestFinalMessagesFit(t *testing.T) {
	model := llm.Start(t, "", func(r llm.Request) llm.Reply {
		if r.Turn == 5 {
			return llm.Reply{Text: "done"}
		}
		return llm.Reply{Calls: []contracts.ToolCall{llm.Call(fmt.Sprint("c", r.Turn), "read", "{}")}}
	})
	tools, err := agent.NewTools(agent.NewTool("read", "", func(context.Context, struct{}) (string, error) { return strings.Repeat("x", 200<<10), nil }))
	if err != nil {
		t.Fatal(err)
	}
	o := agenttest.New(newChat(t, model, func(c *chat.Config) { c.Tools = tools }), says("hi", "")).Run(t.Context())
	raw, err := json.Marshal(o.FinalMessages)
	if err != nil || o.Status != contracts.StatusSucceeded || len(o.FinalMessages) != 10 || len(raw) > 400<<10 {
		t.Errorf("%s with %d final messages in %d bytes, %v", o.Status, len(o.FinalMessages), len(raw), err)
	}
	if asked := model.Requests()[4]; len(asked.Messages[2].Text()) != 200<<10 {
		t.Errorf("the model itself was sent %d bytes", len(asked.Messages[2].Text()))
	}
}

// Of a conversation that does not fit the newest part is kept, from somebody's question on: it is
// what the next run of the conversation begins with.
func TestFinalMessagesOfALongConversation(t *testing.T) {
	model := llm.Start(t, "", func(llm.Request) llm.Reply { return llm.Reply{Text: "done"} })
	s := says("and now?", "")
	long := strings.Repeat("x", 100<<10)
	for i := range 5 {
		s.Input.Messages = append([]contracts.Message{contracts.Text("user", fmt.Sprint(i)), contracts.Text("assistant", long)}, s.Input.Messages...)
	}
	o := agenttest.New(newChat(t, model, nil), s).Run(t.Context())
	if n := len(o.FinalMessages); n != 8 || o.FinalMessages[0].Text() != "2" || o.FinalMessages[n-1].Text() != "done" {
		t.Errorf("%s, %d final messages", o.Status, n)
	}
}

// Where a configuration says so, calls are made one after the other, in the model's order.
func TestCallsAreMadeInTurn(t *testing.T) {
	model := llm.Start(t, "", func(r llm.Request) llm.Reply {
		if r.Turn == 2 {
			return llm.Reply{Text: "done"}
		}
		return llm.Reply{Calls: []contracts.ToolCall{llm.Call("a", "note", `{"at":1}`), llm.Call("b", "note", `{"at":2}`), llm.Call("c", "note", `{"at":3}`)}}
	})
	var noted []int // by one at a time
	note := agent.NewTool("note", "", func(_ context.Context, args struct {
		At int `json:"at"`
	}) (int, error) {
		noted = append(noted, args.At)
		return args.At, nil
	})
	a := newChat(t, model, func(c *chat.Config) {
		c.ParallelTools, c.MoreTools = 1, func(context.Context) ([]agent.Tool, error) { return []agent.Tool{note}, nil }
	})
	if o := agenttest.New(a, says("hi", "")).Run(t.Context()); o.Status != contracts.StatusSucceeded || fmt.Sprint(noted) != "[1 2 3]" {
		t.Errorf("%s, %+v, in the order %v", o.Status, o.Error, noted)
	}
}

// The calls of one answer are made at once, and answered in their order.
func TestCallsAreMadeAtOnce(t *testing.T) {
	var asked llm.Request
	model := llm.Start(t, "", func(r llm.Request) llm.Reply {
		if asked = r; r.Turn == 2 {
			return llm.Reply{Text: "done"}
		}
		return llm.Reply{Calls: []contracts.ToolCall{llm.Call("a", "meet", `{"at":1}`), llm.Call("b", "meet", `{"at":2}`), llm.Call("c", "meet", `{"at":3}`)}}
	})
	var all sync.WaitGroup // each waits for the others
	all.Add(3)
	tools, err := agent.NewTools(agent.NewTool("meet", "", func(_ context.Context, args struct {
		At int `json:"at"`
	}) (int, error) {
		all.Done()
		all.Wait()
		return args.At, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	o := agenttest.New(newChat(t, model, func(c *chat.Config) { c.Tools = tools }), says("hi", "")).Run(t.Context())
	if o.Status != contracts.StatusSucceeded || len(asked.Messages) != 5 {
		t.Fatalf("%s, %+v, the model was sent %+v", o.Status, o.Error, asked.Messages)
	}
	for i, m := range asked.Messages[2:] {
		if m.Text() != fmt.Sprint(i+1) {
			t.Errorf("answer %d is %q", i, m.Text())
		}
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
