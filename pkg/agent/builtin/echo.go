package builtin

import (
	"context"
	"encoding/json"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// KeyEcho is the key of Echo.
const KeyEcho = "echo"

// Echo returns an agent that answers with its messages: the text of the last
// one is its final output, and its final messages are the input's and one of
// the assistant's that repeats that text. It takes no params.
func Echo() agent.Agent {
	return agent.Agent{
		Key:         KeyEcho,
		Description: "answers with the last message it was sent",
		InputSchema: json.RawMessage(`{"type":"object","properties":{},"additionalProperties":false}`),
		Run:         echo,
	}
}

func echo(_ context.Context, run *agent.Run) (agent.Result, error) {
	if err := run.Params(&struct{}{}); err != nil {
		return agent.Result{}, err
	}
	var text string
	if n := len(run.Messages); n > 0 {
		text = run.Messages[n-1].Text()
	}
	answer := contracts.Text("assistant", text)
	if err := run.Message(answer); err != nil {
		return agent.Result{}, err
	}
	messages := make([]contracts.Message, 0, len(run.Messages)+1)
	messages = append(append(messages, run.Messages...), answer)
	return agent.Result{FinalOutput: text, FinalMessages: messages}, nil
}
