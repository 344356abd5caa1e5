package agent_test

import (
	"context"
	"encoding/json"
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

// payer is a tool that asks first, and counts.
func payer(paid *atomic.Int32, unanswered agent.Unanswered) agent.Tool {
	pay := agent.NewTool("pay", "", func(context.Context, struct{}) (string, error) { return fmt.Sprint("paid ", paid.Add(1)), nil })
	pay.RequiresConfirmation, pay.ConfirmWithin, pay.Unanswered = true, time.Hour, unanswered
	return pay
}

// A call waits for a word, and is made once, or not at all.
func TestConfirmation(t *testing.T) {
	for name, c := range map[string]struct {
		answer     any // nil: none
		unanswered agent.Unanswered
		want       string
		paid       int32
	}{
		"confirmed":            {contracts.Confirmation{Confirmed: true}, agent.RefuseCall, "paid 1", 1},
		"refused":              {contracts.Confirmation{}, agent.MakeCall, "error: refused", 0},
		"refused for a reason": {contracts.Confirmation{Reason: "too much"}, agent.RefuseCall, "error: refused: too much", 0},
		"an odd answer":        {"yes", agent.MakeCall, "error: refused: the answer could not be understood", 0},
		"a null answer":        {json.RawMessage("null"), agent.MakeCall, "error: refused", 0},
		"no answer":            {nil, agent.RefuseCall, "error: refused: nobody has confirmed it in time", 0},
		"no answer, made":      {nil, agent.MakeCall, "paid 1", 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			var paid atomic.Int32
			trial := agenttest.New(calls(mustTools(t, payer(&paid, c.unanswered)), call("c1", "pay", "{}")), contracts.Submission{MaxAttempts: 1})
			wantStatus(t, trial.Attempt(t.Context()), contracts.StatusPending)
			at := trial.Events()[len(trial.Events())-1]
			var ask contracts.ToolConfirm
			if err := json.Unmarshal(trial.Events()[2].Payload, &ask); err != nil || trial.Events()[2].Type != contracts.TypeToolConfirm ||
				ask.Call != call("c1", "pay", "{}") || ask.Signal != "confirm:c1" || !ask.Deadline.Equal(at.NotBefore) || at.WaitsFor != ask.Signal || paid.Load() != 0 {
				t.Errorf("%s: it asks %+v, %v and stands at %+v", name, ask, err, at)
			}
			if c.answer != nil {
				if err := trial.Signal(ask.Signal, c.answer); err != nil {
					t.Fatal(err)
				}
			}
			begun := time.Now()
			got, err := agenttest.Output[string](trial.Run(t.Context()))
			if err != nil || got != c.want || paid.Load() != c.paid {
				t.Errorf("%s: got %q, %v, paid %d times", name, got, err, paid.Load())
			}
			if waited := time.Since(begun); (waited == time.Hour) != (c.answer == nil) {
				t.Errorf("%s: it waited for %v", name, waited)
			}
			if types := typesOf(trial); !strings.HasSuffix(types, "tool.call tool.result step.completed run.succeeded") && c.paid == 1 || strings.Count(types, "tool.confirm") != 1 {
				t.Errorf("%s: events %s", name, types)
			}
		})
	}
}

// What was said is said for all attempts, and a call that is made is made once.
func TestConfirmationOverCrashes(t *testing.T) {
	for _, at := range []string{"wait:confirm:c1", "signal:confirm:c1", "tool:pay:c1"} {
		for name, script := range map[string]func(*agenttest.Trial, func(contracts.Event) agenttest.Act){
			"before": func(tr *agenttest.Trial, act func(contracts.Event) agenttest.Act) { tr.Before = act },
			"after":  func(tr *agenttest.Trial, act func(contracts.Event) agenttest.Act) { tr.After = act },
		} {
			synctest.Test(t, func(t *testing.T) {
				var paid atomic.Int32
				trial := agenttest.New(calls(mustTools(t, payer(&paid, agent.RefuseCall)), call("c1", "pay", "{}")), contracts.Submission{})
				script(trial, agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, at))
				for trial.Events() == nil || trial.Events()[len(trial.Events())-1].WaitsFor == "" {
					trial.Attempt(t.Context())
				}
				if err := trial.Signal("confirm:c1", contracts.Confirmation{Confirmed: true}); err != nil {
					t.Fatal(err)
				}
				if err := trial.Signal("confirm:c1", contracts.Confirmation{}); err != nil { // too late
					t.Fatal(err)
				}
				wantStatus(t, trial.Run(t.Context()), contracts.StatusSucceeded)
				want := int32(1)
				if name == "before" && at == "tool:pay:c1" {
					want = 2 // it was done, and nobody knows: StepKey is for that
				}
				if paid.Load() != want {
					t.Errorf("%s %s: paid %d times", name, at, paid.Load())
				}
			})
		}
	}
}

func TestConfirmationIsAskedOnlyForWhatCanBeCalled(t *testing.T) {
	var paid atomic.Int32
	tools := mustTools(t, payer(&paid, agent.RefuseCall))
	o := agenttest.New(calls(tools, call("c1", "pay", `{"n":1}`)), contracts.Submission{}).Run(t.Context())
	if got, err := agenttest.Output[string](o); err != nil || got != "error: arguments.n: is no field here" {
		t.Errorf("got %q, %v", got, err)
	}
	for id, want := range map[string]string{"": "the call has no id", strings.Repeat("x", 93): "name: must be 1 to 100 bytes"} {
		o := agenttest.New(calls(tools, call(id, "pay", `{}`)), contracts.Submission{}).Run(t.Context())
		if wantStatus(t, o, contracts.StatusFailed); !strings.Contains(o.Error.Message, want) {
			t.Errorf("id %q: %s", id, o.Error.Message)
		}
	}
	_, err := agent.NewTools(agent.Tool{Name: "a", Do: payer(&paid, "").Do, ConfirmWithin: -1, Unanswered: "maybe"})
	if err == nil || !strings.Contains(err.Error(), "tools[0].confirm_within: must not be negative") || !strings.Contains(err.Error(), "tools[0].unanswered: must be RefuseCall or MakeCall") {
		t.Errorf("got %v", err)
	}
}
