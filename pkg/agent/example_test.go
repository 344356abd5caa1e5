package agent_test

import (
	"context"
	"fmt"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/contracts"
)

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
