package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/contracts"
)

type jobParams struct {
	Name string `json:"name"`
	Rows []struct {
		Size int `json:"size"`
	} `json:"rows"`
}

// Params names every fault by its path, and asks for no more than the decoder does.
func TestParams(t *testing.T) {
	for params, want := range map[string][]string{
		``:                 nil,
		`{}`:               nil,
		`{"name":"x"}`:     nil,
		`{"rows":[{},{}]}`: nil,
		`{"rows":null}`:    nil,
		`{"nam":"x"}`:      {"params.nam: is no field here"},
		`{"rows":[{"size":"big"},{"sise":1}],"name":3}`: {
			"3 faults:", "params.rows[0].size: must be integer, not string", "params.rows[1].sise: is no field here", "params.name: must be string, not number"},
		`{"rows":[{"size":9223372036854775808}]}`: {"params.rows.size: must be int, not number 9223372036854775808"},
		`[]`: {"params: must be object, not array"},
	} {
		trial := agenttest.New(of(func(_ context.Context, run *agent.Run) error {
			_, err := agent.Params[jobParams](run)
			return err
		}), contracts.Submission{Input: contracts.Input{Params: json.RawMessage(params)}})
		o := trial.Run(t.Context())
		if (want == nil) != (o.Status == contracts.StatusSucceeded) || o.Error.Retriable {
			t.Errorf("%s: %s, %+v", params, o.Status, o.Error)
		}
		for _, w := range want {
			if !strings.Contains(o.Error.Message, w) {
				t.Errorf("%s: %q does not say %q", params, o.Error.Message, w)
			}
		}
	}
}

func TestSchemaForWhatHasNone(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a function has a schema")
		}
	}()
	agent.SchemaFor[struct{ F func() }]()
}

func TestCheckLooksAtTheSchema(t *testing.T) {
	a := of(func(context.Context, *agent.Run) error { return nil })
	for schema, ok := range map[string]bool{``: true, `{}`: true, `{`: false, `{"type":"strnig"}`: false, `{"$ref":"file:///etc/hosts"}`: false} {
		a.InputSchema = json.RawMessage(schema)
		if err := a.Check(); (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "input_schema: ") {
			t.Errorf("%s: %v", schema, err)
		}
	}
}

// An agent made of a function has its params checked and its result encoded.
func TestNew(t *testing.T) {
	type in struct {
		N int `json:"n"`
	}
	half := agent.New("half", "", func(_ context.Context, _ *agent.Run, p in) (map[string]int, error) {
		if p.N%2 != 0 {
			return nil, agent.Permanent(errors.New("odd"))
		}
		return map[string]int{"half": p.N / 2}, nil
	})
	if o := agenttest.New(half, agenttest.Params(in{N: 4})).Run(t.Context()); string(o.FinalOutput) != `{"half":2}` {
		t.Errorf("%s: %s", o.Status, o.FinalOutput)
	}
	if o := agenttest.New(half, agenttest.Params(in{N: 3})).Run(t.Context()); o.Status != contracts.StatusFailed || o.Error.Message != "odd" || o.FinalOutput != nil {
		t.Errorf("%s: %+v", o.Status, o)
	}
	if o := agenttest.New(half, contracts.Submission{}).Run(t.Context()); o.Status != contracts.StatusRejected {
		t.Errorf("without params: %s", o.Status)
	}
	talks := agent.New("talks", "", func(context.Context, *agent.Run, struct{}) (agent.Result, error) {
		return agent.Result{FinalOutput: 1, FinalMessages: []contracts.Message{contracts.Text("assistant", "hi")}}, nil
	})
	if o := agenttest.New(talks, contracts.Submission{}).Run(t.Context()); string(o.FinalOutput) != "1" || len(o.FinalMessages) != 1 {
		t.Errorf("a whole result: %s, %+v", o.Status, o.Succeeded)
	}
}
