package chat

import (
	"cmp"
	"strings"

	"github.com/openai/openai-go/v3"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/internal/remote"
	"longhaul/pkg/contracts"
)

// maxAnswer bounds one answer of a model, text and arguments, in bytes: it has
// to fit into an event.
const maxAnswer = 256 << 10

// answer is put together from the chunks of a stream. The client's own
// accumulator insists on what not all endpoints do: one id for all chunks, and
// an index for each call.
type answer struct {
	run    *agent.Run
	whole  bool // it is not streamed
	text   strings.Builder
	calls  []*call
	finish string
	usage  openai.CompletionUsage
	model  string // that has answered
	size   int
}

type call struct {
	index    int64
	id, name string
	args     strings.Builder
}

func (a *answer) add(chunk openai.ChatCompletionChunk) error {
	if chunk.JSON.Usage.Valid() {
		a.usage = chunk.Usage
	}
	a.model = cmp.Or(chunk.Model, a.model)
	for _, choice := range chunk.Choices {
		if choice.Index != 0 {
			continue // we have asked for one
		}
		a.finish = cmp.Or(choice.FinishReason, a.finish)
		d := choice.Delta
		text := d.Content + d.Refusal
		a.size += len(text)
		for _, piece := range d.ToolCalls {
			a.size += len(piece.Function.Name) + len(piece.Function.Arguments)
		}
		if a.size > maxAnswer {
			return remote.Fail(remote.TypeAnswerTooLong, false, "the answer is above %d bytes", maxAnswer)
		}
		for _, piece := range d.ToolCalls {
			c := a.call(piece.Index, piece.ID)
			c.name += piece.Function.Name
			c.args.WriteString(piece.Function.Arguments)
		}
		if text == "" {
			continue
		}
		a.text.WriteString(text)
		if a.whole {
			continue
		}
		if err := a.run.Delta(text); err != nil {
			return err
		}
	}
	return nil
}

// call finds the call that a piece belongs to, or begins one: where a new id
// comes under an old index, the endpoint does not count.
func (a *answer) call(index int64, id string) *call {
	for i := len(a.calls) - 1; i >= 0; i-- {
		if c := a.calls[i]; c.index == index && (id == "" || c.id == "" || c.id == id) {
			c.id = cmp.Or(c.id, id)
			return c
		}
	}
	c := &call{index: index, id: id}
	a.calls = append(a.calls, c)
	return c
}

func (a *answer) turn() turn {
	m := contracts.Message{Role: contracts.RoleAssistant}
	if a.text.Len() > 0 || len(a.calls) == 0 {
		m = contracts.Text(contracts.RoleAssistant, a.text.String())
	}
	for _, c := range a.calls {
		m.ToolCalls = append(m.ToolCalls, contracts.ToolCall{ID: c.id, Type: "function",
			Function: contracts.ToolFunction{Name: c.name, Arguments: c.args.String()}})
	}
	return turn{Message: m, Finish: a.finish}
}
