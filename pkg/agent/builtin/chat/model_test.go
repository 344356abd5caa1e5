package chat_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/agent/agenttest/llm"
	"longhaul/pkg/agent/builtin/chat"
	"longhaul/pkg/contracts"
)

// asker is an agent that has two talks at once, both of which call a tool by
// the same id, and puts what they come to together in a third.
func asker(t *testing.T, model *llm.Server, called *[]string) agent.Agent {
	t.Helper()
	var mu sync.Mutex
	look := agent.NewTool("look", "Looks something up.", func(ctx context.Context, args struct {
		What string `json:"what"`
	}) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		*called = append(*called, agent.StepKey(ctx))
		return args.What + " it is", nil
	})
	tools, err := agent.NewTools(look)
	if err != nil {
		t.Fatal(err)
	}
	m, err := chat.NewModel(chat.Config{Model: "test-1", BaseURL: model.URL, Tools: tools})
	if err != nil {
		t.Fatal(err)
	}
	return agent.Agent{Key: "asker", OnError: chat.OnError, Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		var texts [2]string
		var errs [2]error
		var wg sync.WaitGroup
		for i, what := range []string{"red", "green"} {
			wg.Go(func() { texts[i], errs[i] = m.Ask(ctx, run, what, "Look up "+what) })
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				return agent.Result{}, err
			}
		}
		both, err := m.Ask(ctx, run, "both", strings.Join(texts[:], ", "))
		return agent.Result{FinalOutput: both}, err
	}}
}

// answers calls look for what it is asked to look up, and otherwise repeats what it heard last.
func answers(r llm.Request) llm.Reply {
	last := r.Messages[len(r.Messages)-1]
	if what, ok := strings.CutPrefix(last.Text(), "Look up "); ok {
		return llm.Reply{Calls: []contracts.ToolCall{llm.Call("a", "look", fmt.Sprintf(`{"what":%q}`, what))}}
	}
	return llm.Reply{Text: last.Text()}
}

// Talks of one run keep apart, and a crash behind any event pays for nothing twice.
func TestTalks(t *testing.T) {
	const events = 16 // between run.started and run.succeeded
	for crashAt := range events {
		var called []string
		model := llm.Start(t, "", answers)
		trial := agenttest.New(asker(t, model, &called), contracts.Submission{})
		n := 0
		trial.After = func(contracts.Event) agenttest.Act {
			if n++; n == crashAt+2 { // behind run.started, or one more
				return agenttest.Crash
			}
			return agenttest.GoOn
		}
		o := trial.Run(t.Context())
		if got, err := agenttest.Output[string](o); got != "red it is, green it is" || err != nil {
			t.Fatalf("crash at event %d: output %q, %v", crashAt, got, err)
		}
		if got := streamed(t, trial); got != "" {
			t.Errorf("streamed %q", got)
		}
		var steps []string
		for _, e := range trial.Events() {
			if e.Type == contracts.TypeStepCompleted {
				var step contracts.StepCompleted
				if err := json.Unmarshal(e.Payload, &step); err != nil {
					t.Fatal(err)
				}
				steps = append(steps, step.Name)
			}
		}
		slices.Sort(steps)
		if want := []string{"both:1", "green:1", "green:2", "red:1", "red:2", "tool:look:green_1_1", "tool:look:red_1_1"}; !slices.Equal(steps, want) {
			t.Errorf("steps %q, want %q", steps, want)
		}
		slices.Sort(called)
		if want := agenttest.RunID + "/tool:look:green_1_1"; called[0] != want {
			t.Errorf("the tool's calls had the keys %q, want %q first", called, want)
		}
		// Two talks may be under way at the crash, a turn or a call of each.
		if turns := len(model.Requests()); turns > 5+2 || len(called) > 2+2 {
			t.Errorf("crash at event %d: the model was asked %d times, the tool called %d times", crashAt, turns, len(called))
		}
	}
}

func TestTalkIsRefused(t *testing.T) {
	model := llm.Start(t, "", answers)
	m, err := chat.NewModel(chat.Config{Model: "test-1", BaseURL: model.URL})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name     string
		messages []contracts.Message
		want     string
	}{
		{"", []contracts.Message{contracts.Text("user", "hi")}, "must have 1 to 24 bytes"},
		{strings.Repeat("x", 25), []contracts.Message{contracts.Text("user", "hi")}, "must have 1 to 24 bytes"},
		{"hm", nil, "at least one message is needed"},
	} {
		o := agenttest.New(agent.Agent{Key: "a", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
			_, err := m.Talk(ctx, run, tc.name, tc.messages...)
			return agent.Result{}, err
		}}, contracts.Submission{}).Run(t.Context())
		if o.Status != contracts.StatusFailed || o.Error.Retriable || !strings.Contains(o.Error.Message, tc.want) {
			t.Errorf("talk %q: %s, %+v, want %q", tc.name, o.Status, o.Error, tc.want)
		}
	}
	if _, err := chat.NewModel(chat.Config{BaseURL: "no address"}); err == nil || !strings.Contains(err.Error(), "base_url") {
		t.Errorf("a bad configuration: %v", err)
	}
}
