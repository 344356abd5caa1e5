package chat_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/agent/agenttest/llm"
	"longhaul/pkg/agent/builtin/chat"
	"longhaul/pkg/contracts"
)

// story is a conversation of three turns with tools, and what was done in it.
type story struct {
	model *llm.Server
	trial *agenttest.Trial

	mu   sync.Mutex
	done map[string]int // executions of steps, by name
}

func (s *story) count(step string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done[step]++
}

func (s *story) counts() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.done)
}

const moral = "Paris is sunny, and the mail is sent."

func newStory(t *testing.T) *story {
	t.Helper()
	s := &story{done: map[string]int{}}
	s.model = llm.Start(t, secret, func(r llm.Request) llm.Reply {
		s.count(fmt.Sprintf("model:%d", r.Turn))
		usage := agent.Usage{InputTokens: 100, OutputTokens: 10}
		switch r.Turn {
		case 1:
			return llm.Reply{Text: "Let me look.", Usage: usage, Calls: []contracts.ToolCall{ // made at once; the second one is refused
				llm.Call("a", "weather", `{"city":"Paris"}`), llm.Call("b", "weather", `{"town":"Rome"}`), llm.Call("d", "mail", `{"to":"bob"}`)}}
		case 2:
			return llm.Reply{Usage: usage, Calls: []contracts.ToolCall{llm.Call("c", "mail", `{"to":"eve"}`)}}
		}
		return llm.Reply{Text: moral, Usage: usage}
	})
	mail := agent.NewTool("mail", "Sends a mail.", func(ctx context.Context, _ struct {
		To string `json:"to"`
	}) (string, error) {
		s.count(agent.StepKey(ctx))
		return "sent", nil
	})
	mail.SideEffects = true
	tools, err := agent.NewTools(mail, agent.NewTool("weather", "The weather.", func(ctx context.Context, _ struct {
		City string `json:"city"`
	}) (string, error) {
		s.count(agent.StepKey(ctx))
		return "sunny", nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	s.trial = agenttest.New(newChat(t, s.model, func(c *chat.Config) { c.Tools = tools }), says("Mail eve the weather.", ""))
	return s
}

// remembered is the names of the steps that the log has.
func (s *story) remembered(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, e := range s.trial.Events() {
		if e.Type == contracts.TypeStepCompleted {
			var done contracts.StepCompleted
			if err := json.Unmarshal(e.Payload, &done); err != nil {
				t.Fatal(err)
			}
			names = append(names, done.Name)
		}
	}
	return names
}

// execution is what a step's executions are counted under.
func execution(step string) string {
	if step[0] == 't' {
		return agenttest.RunID + "/" + step
	}
	return step
}

// The worker dies before and after each event of the conversation, one after
// the other. Whatever the log has by then is not asked, called or paid again.
func TestCrashAtEachEvent(t *testing.T) {
	plain := newStory(t)
	whole := plain.trial.Run(t.Context())
	if out, err := agenttest.Output[string](whole); out != moral || err != nil {
		t.Fatalf("%q, %v", out, err)
	}
	steps := plain.remembered(t)
	slices.Sort(steps[1:4]) // in the order of their ends
	if fmt.Sprint(steps) != "[model:1 tool:mail:d tool:weather:a tool:weather:b model:2 tool:mail:c model:3]" {
		t.Fatalf("steps %q", steps)
	}
	if want := (agent.Usage{InputTokens: 300, OutputTokens: 30}); whole.Spent != want {
		t.Errorf("spent %+v", whole.Spent)
	}
	events := plain.trial.Types()
	for i := 2; i < len(events)-1; i++ { // from the first one of the agent's own; the last is the worker's
		for _, before := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d-%s-before-%t", i, events[i], before), func(t *testing.T) { crashAt(t, i, before) })
		}
	}
}

func crashAt(t *testing.T, i int, before bool) {
	s := newStory(t)
	crashed := false
	script := func(e contracts.Event) agenttest.Act {
		if crashed || int(e.Seq) != i+1 {
			return agenttest.GoOn
		}
		crashed = true
		return agenttest.Crash
	}
	if before {
		s.trial.Before = script
	} else {
		s.trial.After = script
	}
	s.trial.Attempt(t.Context())
	if !crashed {
		t.Fatal("there was no crash")
	}
	kept, done := s.remembered(t), s.counts()
	o := s.trial.Run(t.Context())
	if out, err := agenttest.Output[string](o); out != moral || err != nil {
		t.Fatalf("%q, %v", out, err)
	}
	after := s.counts()
	for _, step := range kept {
		if name := execution(step); after[name] != done[name] {
			t.Errorf("%s was in the log, and made again", step)
		}
	}
	again := 0
	for name, n := range after {
		if n > 2 {
			t.Errorf("%s was made %d times", name, n)
		}
		again += n - 1
	}
	if again > 2 { // at most those that were lost: both calls of the first turn
		t.Errorf("%d steps were made again: %v", again, after)
	}
	if len(o.FinalMessages) != 8 {
		t.Errorf("final messages %+v", o.FinalMessages)
	}
	// A turn that was lost with its usage in the log already was paid for, too.
	if spent := o.Spent.InputTokens; spent != 300 && (spent != 400 || again != 1) {
		t.Errorf("spent %+v", o.Spent)
	}
}
