package worker_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"longhaul/pkg/agent"
	"longhaul/pkg/jsutil"
	"longhaul/services/worker"
)

type shoutParams struct {
	Text string `json:"text" jsonschema:"what to say"`
}

// A program that hosts an agent of its own: connect, describe the agent, run.
func Example() {
	url, stop := brokerWithRun(`{"agent_key": "shout", "input": {"params": {"text": "hello"}}}`)
	defer stop()

	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: url, Name: "shouter", Retry: true})
	if err != nil {
		panic(err)
	}
	defer nc.Close()
	shout := agent.Agent{
		Key:         "shout",
		Description: "Says it louder.",
		InputSchema: agent.SchemaFor[shoutParams](),
		Run: func(_ context.Context, run *agent.Run) (agent.Result, error) {
			params, err := agent.Params[shoutParams](run)
			if err != nil {
				return agent.Result{}, err
			}
			return agent.Result{FinalOutput: strings.ToUpper(params.Text)}, nil
		},
	}
	w, err := worker.New(nc, worker.Config{Agents: []agent.Agent{shout}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}

	// A program calls Run with a context that ends on SIGTERM. Here it ends
	// when the run has been seen to end.
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		fmt.Println(outputOf(url))
		cancel()
	}()
	if err := w.Run(ctx); err != nil {
		panic(err)
	}
	// Output: "HELLO"
}
