package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/contracts"
)

// atOnce is an agent that makes these calls as those of one answer, and says what they came to.
func atOnce(tools *agent.Tools, all ...contracts.ToolCall) agent.Agent {
	return agent.Agent{Key: "calls", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		answers, err := tools.Calls(ctx, run, all)
		if err != nil {
			return agent.Result{}, err
		}
		var said []string
		for i, m := range answers {
			if m.Role != contracts.RoleTool || m.ToolCallID != all[i].ID {
				return agent.Result{}, agent.Permanent(fmt.Errorf("message %d is %+v", i, m))
			}
			said = append(said, m.Text())
		}
		return agent.Result{FinalOutput: strings.Join(said, "|")}, nil
	}}
}

// sleeper is a tool that takes as many seconds as it is told, and notes what it does.
type sleeper struct {
	mu        sync.Mutex
	made      map[int]int // how often each was made to its end
	now, most int         // how many are at it
}

type seconds struct {
	S int `json:"s"`
}

func (s *sleeper) tool(name string) agent.Tool {
	s.made = map[int]int{}
	return agent.NewTool(name, "", func(ctx context.Context, args seconds) (int, error) {
		s.mu.Lock()
		s.now++
		s.most = max(s.most, s.now)
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			s.now--
			s.mu.Unlock()
		}()
		select {
		case <-time.After(time.Duration(args.S) * time.Second):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		s.mu.Lock()
		s.made[args.S]++
		s.mu.Unlock()
		if args.S == 13 {
			return 0, agent.Permanent(errors.New("unlucky"))
		}
		return args.S, nil
	})
}

// told are the calls, or results, of which events of this type tell, in their order.
func told(t *testing.T, trial *agenttest.Trial, of contracts.EventType) string {
	t.Helper()
	var ids []string
	for _, e := range trial.Events() {
		if e.Type != of {
			continue
		}
		var p struct {
			ID         string
			ToolCallID string `json:"tool_call_id"`
			Call       contracts.ToolCall
			Name       string
		}
		if err := json.Unmarshal(e.Payload, &p); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, p.ID+p.ToolCallID+p.Call.ID+p.Name)
	}
	return strings.Join(ids, " ")
}

// The calls of one answer are made at the same time, as many as are allowed to; they
// are told of in their order, and answered in it, however long each takes.
func TestCallsAreMadeAtOnce(t *testing.T) {
	for most, want := range map[int]struct {
		took    time.Duration
		results string
	}{
		0: {5 * time.Second, "c b d e a"}, 8: {5 * time.Second, "c b d e a"}, 1: {15 * time.Second, "a b c d e"}, 2: {9 * time.Second, "b c a d e"}, -3: {15 * time.Second, "a b c d e"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var s sleeper
			tools := mustTools(t, s.tool("sleep"))
			if most != 0 {
				tools = tools.Parallel(most).Durable()
			}
			trial := agenttest.New(atOnce(tools, call("a", "sleep", `{"s":5}`), call("b", "sleep", `{"s":2}`), call("c", "sleep", `{"s":1}`),
				call("d", "sleep", `{"s":3}`), call("e", "sleep", `{"s":4}`)), contracts.Submission{})
			begun := time.Now()
			got, err := agenttest.Output[string](trial.Run(t.Context()))
			if err != nil || got != "5|2|1|3|4" {
				t.Errorf("%d: got %q, %v", most, got, err)
			}
			if took := time.Since(begun); took != want.took {
				t.Errorf("%d: it took %v, want %v", most, took, want.took)
			}
			if calls, results := told(t, trial, contracts.TypeToolCall), told(t, trial, contracts.TypeToolResult); calls != "a b c d e" || results != want.results {
				t.Errorf("%d: calls %s, results %s, want %s", most, calls, results, want.results)
			}
			if limit := min(max(most, 1), 5); most != 0 && s.most != limit {
				t.Errorf("%d: %d at a time", most, s.most)
			}
		})
	}
}

// A worker that dies among calls leaves those that have ended: they are not made
// again, nor told again. The others are.
func TestCallsOverACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sleeper
		tool := s.tool("sleep")
		tool.SideEffects = true
		trial := agenttest.New(atOnce(mustTools(t, tool), call("a", "sleep", `{"s":3}`), call("b", "sleep", `{"s":1}`), call("c", "sleep", `{"s":2}`)), contracts.Submission{})
		trial.After = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, "tool:sleep:c")
		got, err := agenttest.Output[string](trial.Run(t.Context()))
		if err != nil || got != "3|1|2" || fmt.Sprint(s.made) != "map[1:1 2:1 3:1]" {
			t.Errorf("got %q, %v, made %v", got, err, s.made)
		}
		if calls, results := told(t, trial, contracts.TypeToolCall), told(t, trial, contracts.TypeToolResult); calls != "a b c a" || results != "b c a" {
			t.Errorf("calls %s, results %s", calls, results)
		}
	})
}

// A call that ends the attempt lets those under way come to their end, which is
// remembered, and no other one begin.
func TestCallsBesideOneThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sleeper
		tool := s.tool("sleep")
		tool.SideEffects = true
		trial := agenttest.New(atOnce(mustTools(t, tool).Parallel(2), call("a", "sleep", `{"s":20}`), call("b", "sleep", `{"s":13}`), call("c", "sleep", `{"s":1}`)), contracts.Submission{})
		o := trial.Run(t.Context())
		if wantStatus(t, o, contracts.StatusFailed); !strings.HasSuffix(o.Error.Message, "unlucky") {
			t.Errorf("it failed with %s", o.Error.Message)
		}
		if steps := told(t, trial, contracts.TypeStepCompleted); steps != "tool:sleep:a" || s.made[1] > 0 {
			t.Errorf("remembered %s, made %v", steps, s.made)
		}
	})
}

// A tool that ends its goroutine, as t.FailNow does, has answered nothing, and holds nobody up.
func TestToolThatEndsItsGoroutine(t *testing.T) {
	tools := mustTools(t, agent.NewTool("exits", "", func(context.Context, struct{}) (int, error) {
		runtime.Goexit()
		return 0, nil
	})).Parallel(1)
	o := agenttest.New(atOnce(tools, call("1", "exits", "{}"), call("2", "exits", "{}")), contracts.Submission{MaxAttempts: 1}).Run(t.Context())
	if o.Status != contracts.StatusFailed || !strings.Contains(o.Error.Message, `tool "exits"`) || !strings.Contains(o.Error.Message, "runtime.Goexit") {
		t.Errorf("the run is %s, %+v", o.Status, o.Error)
	}
}

// What waits for somebody's word is asked for at once, and holds up no other
// call, nor cuts one off: each is made once, when its own word has come.
func TestCallsOfWhichSomeAskFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s, confirmed sleeper
		plain, asks := s.tool("sleep"), confirmed.tool("asks")
		plain.SideEffects, asks.RequiresConfirmation = true, true
		trial := agenttest.New(atOnce(mustTools(t, plain, asks), call("a", "asks", `{"s":1}`), call("b", "sleep", `{"s":30}`), call("c", "asks", `{"s":40}`),
			call("d", "asks", `{"s":4}`), call("e", "asks", `{"t":1}`)), contracts.Submission{MaxAttempts: 1})
		begun := time.Now()
		wantStatus(t, trial.Attempt(t.Context()), contracts.StatusPending)
		if at := trial.Events()[len(trial.Events())-1]; at.WaitsFor != "*" || time.Since(begun) != 30*time.Second || s.made[30] != 1 {
			t.Errorf("it waits for %q after %v, made %v", at.WaitsFor, time.Since(begun), s.made)
		}
		say := func(id string, yes bool) {
			t.Helper()
			if err := trial.Signal("confirm:"+id, contracts.Confirmation{Confirmed: yes, Reason: "never"}); err != nil {
				t.Fatal(err)
			}
		}
		say("c", true)
		wantStatus(t, trial.Attempt(t.Context()), contracts.StatusPending)
		if confirmed.made[40] != 1 { // the others are waited for when it has come to its end
			t.Errorf("made %v", confirmed.made)
		}
		say("a", true)
		say("d", false)
		got, err := agenttest.Output[string](trial.Run(t.Context()))
		if err != nil || got != "1|30|40|error: refused: never|error: 2 faults: arguments.s: is required; arguments.t: is no field here" {
			t.Errorf("got %q, %v", got, err)
		}
		if fmt.Sprint(s.made, confirmed.made) != "map[30:1] map[1:1 40:1]" {
			t.Errorf("made %v and %v", s.made, confirmed.made)
		}
		if asked, calls := told(t, trial, contracts.TypeToolConfirm), told(t, trial, contracts.TypeToolCall); asked != "a c d" || calls != "b e c e a d e" {
			t.Errorf("asked %s, calls %s", asked, calls)
		}
	})
}

// A cancel ends all calls that are under way.
func TestCallsAreCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sleeper
		var seen atomic.Int32
		trial := agenttest.New(atOnce(mustTools(t, s.tool("sleep")), call("a", "sleep", `{"s":30}`), call("b", "sleep", `{"s":31}`)), contracts.Submission{})
		trial.After = func(e contracts.Event) agenttest.Act {
			if e.Type == contracts.TypeToolCall && seen.Add(1) == 2 {
				return agenttest.Cancel
			}
			return agenttest.GoOn
		}
		begun := time.Now()
		wantStatus(t, trial.Run(t.Context()), contracts.StatusCancelled)
		if took := time.Since(begun); took > 10*time.Second || len(s.made) > 0 || s.now > 0 {
			t.Errorf("after %v made %v, %d at it", took, s.made, s.now)
		}
	})
}
