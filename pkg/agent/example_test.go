package agent_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/contracts"
)

type shoutParams struct {
	Text  string `json:"text" jsonschema:"what to shout"`
	Times int    `json:"times,omitempty"`
}

// An agent is a function from its input to its result. The schema of the input
// is registered with it, and a submission that does not satisfy it is rejected
// before a worker sees it.
func ExampleNew() {
	shout := agent.New("shout", "Says it louder.", func(_ context.Context, _ *agent.Run, p shoutParams) (string, error) {
		return strings.Repeat(strings.ToUpper(p.Text)+"!", max(p.Times, 1)), nil
	})

	end := agenttest.New(shout, agenttest.Params(shoutParams{Text: "hello", Times: 2})).Run(context.Background())
	fmt.Println(end.Status, string(end.FinalOutput))
	end = agenttest.New(shout, agenttest.Params(map[string]any{"txt": "hello"})).Run(context.Background())
	fmt.Println(end.Status, end.Faults)
	// Output:
	// succeeded "HELLO!HELLO!"
	// rejected 2 faults: input.params.text: is required; input.params.txt: is no field here
}

// A long loop saves where it is, and a later attempt goes on from there.
func ExampleState() {
	count := agent.Agent{Key: "count", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		from, resumed, err := agent.State[int](run)
		if err != nil {
			return agent.Result{}, err
		}
		fmt.Println("from", from, resumed)
		for i := from + 1; i <= 4; i++ {
			if err := run.Checkpoint(ctx, i); err != nil {
				return agent.Result{}, err
			}
		}
		return agent.Result{FinalOutput: 4}, nil
	}}
	trial := agenttest.New(count, contracts.Submission{})
	trial.After = func(e contracts.Event) agenttest.Act {
		if e.Type == contracts.TypeCheckpoint && e.Checkpoint.N == 2 {
			return agenttest.Crash
		}
		return agenttest.GoOn
	}
	fmt.Println(trial.Run(context.Background()).Status)
	// Output:
	// from 0 false
	// from 2 true
	// succeeded
}

// A step that is done is not done again: here the worker dies after the first,
// and the second attempt goes on with what the first one fetched.
func ExampleStep() {
	report := agent.Agent{Key: "report", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		page, err := agent.Step(ctx, run, "fetch", func(context.Context) (string, error) {
			fmt.Println("fetching")
			return "a long page", nil
		}, agent.WithTries(3), agent.WithTimeout(10*time.Second))
		if err != nil {
			return agent.Result{}, err
		}
		sent, err := agent.Step(ctx, run, "send", func(ctx context.Context) (int, error) {
			fmt.Println("sending with key", agent.StepKey(ctx)) // a mail service that knows the key sends once
			return len(page), nil
		})
		return agent.Result{FinalOutput: sent}, err
	}}

	trial := agenttest.New(report, contracts.Submission{})
	trial.After = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, "fetch")
	end := trial.Run(context.Background())
	fmt.Println(end.Status, string(end.FinalOutput))
	// Output:
	// fetching
	// sending with key 0198c0de-7a11-7abc-8def-0123456789ab/send
	// succeeded 11
}

// Usage is added up over attempts: what is reported within a step is counted once.
func ExampleRun_AddUsage() {
	ask := agent.Agent{Key: "ask", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		answer, err := agent.Step(ctx, run, "ask the model", func(context.Context) (string, error) {
			run.AddUsage(agent.Usage{InputTokens: 812, OutputTokens: 64, Cost: 0.0125})
			return "42", nil
		})
		return agent.Result{FinalOutput: answer}, err
	}}
	trial := agenttest.New(ask, contracts.Submission{})
	trial.After = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, "")
	fmt.Println(string(trial.Run(context.Background()).Usage))
	// Output: {"input_tokens":812,"output_tokens":64,"cost":0.0125}
}
