package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/contracts"
)

// What a model asks for is called by name, with arguments that are checked
// first. A tool with side effects is called once for each id, whatever happens.
func ExampleTools() {
	weather := agent.NewTool("weather", "The weather in a city.", func(_ context.Context, args struct {
		City string `json:"city" jsonschema:"the city's name"`
	}) (string, error) {
		return "sunny in " + args.City, nil
	})
	mail := agent.NewTool("mail", "Sends a mail.", func(ctx context.Context, args struct {
		To string `json:"to"`
	}) (map[string]string, error) {
		return map[string]string{"sent_to": args.To, "key": agent.StepKey(ctx)}, nil
	})
	mail.SideEffects = true
	tools, err := agent.NewTools(weather, mail)
	if err != nil {
		panic(err)
	}

	assistant := agent.Agent{Key: "assistant", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		for _, call := range []contracts.ToolCall{ // as a model would
			{ID: "1", Function: contracts.ToolFunction{Name: "weather", Arguments: `{"city":"Bonn"}`}},
			{ID: "2", Function: contracts.ToolFunction{Name: "weather", Arguments: `{"town":"Bonn"}`}},
			{ID: "3", Function: contracts.ToolFunction{Name: "mail", Arguments: `{"to":"ann"}`}},
		} {
			answer, err := tools.Call(ctx, run, call)
			if err != nil {
				return agent.Result{}, err
			}
			fmt.Println(answer.Text())
		}
		return agent.Result{}, nil
	}}
	fmt.Println(agenttest.New(assistant, contracts.Submission{}).Run(context.Background()).Status)
	// Output:
	// sunny in Bonn
	// error: 2 faults: arguments.city: is required; arguments.town: is no field here
	// {"key":"0198c0de-7a11-7abc-8def-0123456789ab/tool:mail:3","sent_to":"ann"}
	// succeeded
}

func mustTools(t *testing.T, tools ...agent.Tool) *agent.Tools {
	t.Helper()
	all, err := agent.NewTools(tools...)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func call(id, name, args string) contracts.ToolCall {
	return contracts.ToolCall{ID: id, Type: "function", Function: contracts.ToolFunction{Name: name, Arguments: args}}
}

// calls is an agent that makes these calls, one after the other, and says what they came to.
func calls(tools *agent.Tools, all ...contracts.ToolCall) agent.Agent {
	return agent.Agent{Key: "calls", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		var said []string
		for _, c := range all {
			m, err := tools.Call(ctx, run, c)
			if err != nil {
				return agent.Result{}, err
			}
			if m.Role != contracts.RoleTool || m.ToolCallID != c.ID {
				return agent.Result{}, agent.Permanent(fmt.Errorf("the message is %+v", m))
			}
			said = append(said, m.Text())
		}
		return agent.Result{FinalOutput: strings.Join(said, "|")}, nil
	}}
}

func TestWhatAModelIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		by := func(do func(context.Context, json.RawMessage) (any, error)) agent.Tool {
			return agent.Tool{Name: "it", Do: do, Timeout: time.Second}
		}
		type small struct {
			N int8 `json:"n,omitempty"`
		}
		for want, tool := range map[string]agent.Tool{
			`text`:                       by(func(context.Context, json.RawMessage) (any, error) { return "text", nil }),
			`{"n":1}`:                    by(func(context.Context, json.RawMessage) (any, error) { return small{1}, nil }),
			`null`:                       by(func(context.Context, json.RawMessage) (any, error) { return nil, nil }),
			`error: no`:                  by(func(context.Context, json.RawMessage) (any, error) { return nil, errors.New("no") }),
			`error: the tool broke down`: by(func(context.Context, json.RawMessage) (any, error) { panic("secret") }),
			`error: took longer than its 1s`: by(func(ctx context.Context, _ json.RawMessage) (any, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}),
		} {
			trial := agenttest.New(calls(mustTools(t, tool), call("c1", "it", "")), contracts.Submission{MaxAttempts: 1})
			o := trial.Run(t.Context())
			if got, err := agenttest.Output[string](o); got != want {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
			if got := typesOf(trial); got != "run.queued run.started tool.call tool.result run.succeeded" {
				t.Errorf("%s: events %s", want, got)
			}
			var result contracts.Message
			if err := json.Unmarshal(trial.Events()[3].Payload, &result); err != nil || result.Text() != want || result.ToolCallID != "c1" {
				t.Errorf("tool.result is %s", trial.Events()[3].Payload)
			}
		}
	})
}

// The handler is not reached by what its schema does not admit, and never by
// the name of a tool that is not allowed.
func TestArgumentsAreCheckedFirst(t *testing.T) {
	var times atomic.Int32
	tools := mustTools(t,
		agent.NewTool("a", "", func(context.Context, struct {
			N int8 `json:"n"`
		}) (int, error) {
			return int(times.Add(1)), nil
		}),
		agent.NewTool("b", "", func(context.Context, struct{}) (int, error) { return int(times.Add(1)), nil }))
	allowed, err := tools.Allow("a", "a")
	if err != nil {
		t.Fatal(err)
	}
	o := agenttest.New(calls(allowed, call("1", "a", `{`), call("2", "a", `{"n":"x"}`), call("3", "a", ``), call("4", "b", `{}`), call("5", "a", `{"n":200}`), call("6", "a", `{"n":1,"m":1}`)),
		contracts.Submission{}).Run(t.Context())
	got, err := agenttest.Output[string](o)
	want := `error: arguments: must be JSON|error: arguments.n: must be integer, not string|error: arguments.n: is required|` +
		`error: there is no tool "b"; there are a|error: arguments.n: must be at most 127, not 200|error: arguments.m: is no field here`
	if err != nil || got != want || times.Load() != 0 {
		t.Errorf("called %d times, %v\n got %s\nwant %s", times.Load(), err, got, want)
	}
	if _, err := tools.Allow("a", "c"); err == nil || !strings.Contains(err.Error(), `there is no tool "c"; there are a, b`) {
		t.Errorf("Allow: %v", err)
	}
}

// A call with side effects is made once, also if it came to an error, and its
// answer is the same ever after. One without is made again.
func TestSideEffectsHappenOnce(t *testing.T) {
	var paid, failed, looked atomic.Int32
	pay := agent.NewTool("pay", "", func(ctx context.Context, _ struct{}) (string, error) {
		return fmt.Sprint(paid.Add(1), " ", agent.StepKey(ctx)), nil
	})
	fails := agent.NewTool("fails", "", func(context.Context, struct{}) (string, error) {
		return "", fmt.Errorf("no %d", failed.Add(1))
	})
	pay.SideEffects, fails.SideEffects = true, true
	look := agent.NewTool("look", "", func(context.Context, struct{}) (int32, error) { return looked.Add(1), nil })
	a := calls(mustTools(t, pay, fails, look), call("c1", "pay", "{}"), call("c2", "pay", "{}"), call("c3", "fails", "{}"), call("c4", "look", "{}"))
	trial := agenttest.New(a, contracts.Submission{})
	trial.After = func(e contracts.Event) agenttest.Act { // after each step, and before the end
		if e.Attempt == 1 && e.Type == contracts.TypeStepCompleted && strings.Contains(string(e.Payload), "c3") || e.Attempt == 2 && e.Type == contracts.TypeToolResult {
			return agenttest.Crash
		}
		return agenttest.GoOn
	}
	got, err := agenttest.Output[string](trial.Run(t.Context()))
	want := "1 " + agenttest.RunID + "/tool:pay:c1|2 " + agenttest.RunID + "/tool:pay:c2|error: no 1|2"
	if err != nil || got != want || paid.Load() != 2 || failed.Load() != 1 {
		t.Errorf("paid %d times, failed %d times, %v\n got %s\nwant %s", paid.Load(), failed.Load(), err, got, want)
	}
	n := 0
	for _, eventType := range trial.Types() {
		if eventType == contracts.TypeToolCall {
			n++
		}
	}
	if n != 5 { // three and the look twice; a remembered call is not told again
		t.Errorf("%d tool.call events", n)
	}
}

func TestCallsThatEndTheAttempt(t *testing.T) {
	stop := agent.NewTool("stop", "", func(context.Context, struct{}) (string, error) { return "", agent.Permanent(errors.New("never")) })
	o := agenttest.New(calls(mustTools(t, stop), call("1", "stop", "")), contracts.Submission{}).Run(t.Context())
	if o.Status != contracts.StatusFailed || o.Error.Retriable || o.Error.Message != `tool "stop": never` {
		t.Errorf("%s, %+v", o.Status, o.Error)
	}
	noID := agent.NewTool("pay", "", func(context.Context, struct{}) (string, error) { return "", nil })
	noID.SideEffects = true
	o = agenttest.New(calls(mustTools(t, noID), call("", "pay", "")), contracts.Submission{}).Run(t.Context())
	if o.Status != contracts.StatusFailed || !strings.Contains(o.Error.Message, "the call has no id") {
		t.Errorf("%s, %+v", o.Status, o.Error)
	}
	// A tool that is at it when the run is cancelled has no answer for the model.
	slow := agent.NewTool("slow", "", func(ctx context.Context, _ struct{}) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	})
	trial := agenttest.New(calls(mustTools(t, slow), call("1", "slow", "")), contracts.Submission{})
	trial.After = agenttest.At(agenttest.Cancel, contracts.TypeToolCall, "")
	if wantStatus(t, trial.Run(t.Context()), contracts.StatusCancelled); strings.Contains(typesOf(trial), "tool.result") {
		t.Errorf("events %s", typesOf(trial))
	}
}

func TestToolDefinitions(t *testing.T) {
	do := func(context.Context, json.RawMessage) (any, error) { return nil, nil }
	tools := mustTools(t, agent.Tool{Name: "b", Do: do},
		agent.Tool{Name: "a", Description: "does a", Schema: json.RawMessage(`{"type":"object"}`), Do: do})
	raw, err := json.Marshal(tools.Definitions())
	if want := `[{"type":"function","function":{"name":"a","description":"does a","parameters":{"type":"object"}}},{"type":"function","function":{"name":"b"}}]`; err != nil || string(raw) != want {
		t.Errorf("got %s, %v", raw, err)
	}
	_, err = agent.NewTools(agent.Tool{Name: "a b"}, agent.Tool{Name: "c", Do: do, Timeout: -1, Schema: json.RawMessage(`{`)}, agent.Tool{Name: "c", Do: do})
	if err == nil {
		t.Fatal("bad tools are taken")
	}
	for _, want := range []string{"tools[0].name: must be 1 to 64", "tools[0].do: must be set", "tools[1].timeout: ", "tools[1].schema: must be JSON", `tools[2].name: "c" is there twice`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

// However much a tool says, its answer fits.
func TestToolResultsAreCut(t *testing.T) {
	long := agent.NewTool("long", "", func(context.Context, struct{}) (string, error) { return strings.Repeat("ä", 1<<20), nil })
	got, err := agenttest.Output[string](agenttest.New(calls(mustTools(t, long), call("1", "long", "")), contracts.Submission{}).Run(t.Context()))
	if err != nil || len(got) > 256<<10+len("…") || !strings.HasSuffix(got, "ä…") {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
