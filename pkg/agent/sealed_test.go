package agent_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/contracts"
	"longhaul/pkg/seal"
)

// What was not sealed for this run, whole and by the key, does not reach a
// sealed agent: the run fails, and its words are sealed.
func TestSealedAgentTakesNothingElse(t *testing.T) {
	line, err := seal.NewKey("k1")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := seal.ParseKeys(line)
	if err != nil {
		t.Fatal(err)
	}
	called := false
	a, err := agent.Sealed(agent.Agent{Key: "sealed", InputSchema: json.RawMessage(`{"type":"object","required":["n"]}`),
		Run: func(_ context.Context, run *agent.Run) (agent.Result, error) {
			called = true
			return agent.Result{FinalOutput: len(run.Messages)}, nil
		}}, keys)
	if err != nil {
		t.Fatal(err)
	}
	if a.InputSchema != nil {
		t.Error("the schema is registered, which no dispatcher can hold a sealed input against")
	}
	plain := contracts.Input{Params: json.RawMessage(`{"n":1}`), Messages: []contracts.Message{contracts.Text("user", "a"), contracts.Text("user", "b")}}
	sealed := func(run, key string, in contracts.Input) contracts.Input {
		in, err := keys.SealInput(run, key, "", in)
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	const other = "0198c0de-0000-7000-8000-0000000000ff"
	good := sealed(agenttest.RunID, "sealed", plain)
	for name, tc := range map[string]struct {
		in   contracts.Input
		says string // "": succeeds
	}{
		"as it should be":      {good, ""},
		"in the clear":         {plain, "not sealed"},
		"nothing at all":       {contracts.Input{}, "not sealed"},
		"another run's":        {sealed(other, "sealed", plain), "forged"},
		"another agent's":      {sealed(agenttest.RunID, "other", plain), "forged"},
		"a message taken away": {contracts.Input{Params: good.Params, Messages: good.Messages[:1]}, "forged"},
		"in another order":     {contracts.Input{Params: good.Params, Messages: []contracts.Message{good.Messages[1], good.Messages[0]}}, "forged"},
		"a message added":      {contracts.Input{Params: good.Params, Messages: append(good.Messages[:2:2], sealed(other, "sealed", plain).Messages...)}, "forged"},
		"a message in between": {contracts.Input{Params: good.Params, Messages: append(good.Messages[:2:2], contracts.Text("user", "c"))}, "not sealed"},
		"against the schema":   {sealed(agenttest.RunID, "sealed", contracts.Input{Params: json.RawMessage(`{"m":1}`)}), "input.params"},
	} {
		t.Run(name, func(t *testing.T) {
			called = false
			out := agenttest.New(a, contracts.Submission{Input: tc.in}).Run(t.Context())
			if tc.says == "" {
				if !called || out.Status != contracts.StatusSucceeded {
					t.Errorf("ended %s: %+v", out.Status, out.Error)
				}
				return
			}
			said, err := keys.OpenText(out.Error.Message, agenttest.RunID, seal.KindError)
			if called || out.Status != contracts.StatusFailed || out.Error.Retriable || err != nil || !strings.Contains(said, tc.says) || strings.Contains(out.Error.Message, tc.says) {
				t.Errorf("ended %s, %q (%v), called %v; want %q", out.Status, said, err, called, tc.says)
			}
		})
	}
}
