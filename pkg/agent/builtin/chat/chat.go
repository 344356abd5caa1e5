package chat

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unicode"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/internal/remote"
	"longhaul/pkg/contracts"
)

// The types of errors of a chat agent, besides those of any call of a service.
const (
	// TypeNoMessages: the input has no message to answer.
	TypeNoMessages = "NoMessages"
	// TypeTooManyTurns: the model wants to go on beyond the most turns.
	TypeTooManyTurns = "TooManyTurns"
	// TypeTruncated: the answer ended where max_tokens, or the model's own bound, cut it off.
	TypeTruncated = "AnswerTruncated"
	// TypeFiltered: the endpoint held the answer back for its content.
	TypeFiltered = "ContentFiltered"
)

// chat is the agent. It holds no state of a run.
type chat struct {
	cfg  Config
	http *http.Client
}

// run is one attempt: the whole conversation anew, of which each turn that the
// log has is remembered, not made.
func (c *chat) run(ctx context.Context, run *agent.Run) (agent.Result, error) {
	params, err := c.cfg.params(run)
	if err != nil {
		return agent.Result{}, err
	}
	if len(run.Messages) == 0 {
		return agent.Result{}, remote.Fail(TypeNoMessages, false, "input.messages: at least one is needed")
	}
	talk := conversation{messages: run.Messages}
	last, err := c.talk(ctx, run, params, &talk)
	if err == nil {
		err = last.fault()
	}
	if err != nil {
		return agent.Result{}, err
	}
	return agent.Result{FinalOutput: last.Message.Text(), FinalMessages: talk.final()}, nil
}

// talk has the model make its turns, and makes the calls that it asks for, until
// it asks for none. It returns the last turn.
func (c *chat) talk(ctx context.Context, run *agent.Run, p Params, talk *conversation) (turn, error) {
	tools, err := c.tools(ctx)
	if err != nil {
		return turn{}, err
	}
	for n := 1; n <= *p.MaxTurns; n++ {
		said, err := agent.Step(ctx, run, fmt.Sprintf("%s:%d", cmp.Or(talk.name, "model"), n), func(ctx context.Context) (turn, error) {
			return c.traced(ctx, run, p, tools, talk, n)
		})
		if err != nil {
			return turn{}, err
		}
		talk.add(said.Message)
		if len(said.Message.ToolCalls) == 0 {
			return said, nil
		}
		answers, err := tools.Calls(ctx, run, said.Message.ToolCalls)
		if err != nil {
			return turn{}, err
		}
		talk.add(answers...)
	}
	return turn{}, remote.Fail(TypeTooManyTurns, false, "the model has not come to an end within %d turns", *p.MaxTurns)
}

// tools are those of the configuration and what there is besides at the moment.
// A model that calls tools without having any is told that there are none.
func (c *chat) tools(ctx context.Context) (*agent.Tools, error) {
	var more []agent.Tool
	if c.cfg.MoreTools != nil {
		var err error
		if more, err = c.cfg.MoreTools(ctx); err != nil {
			return nil, err
		}
	}
	all := c.cfg.Tools
	if len(more) > 0 || all == nil {
		var err error
		if all, err = all.With(more...); err != nil {
			return nil, agent.Permanent(err)
		}
	}
	if c.cfg.ParallelTools > 0 {
		all = all.Parallel(c.cfg.ParallelTools)
	}
	return all.Durable(), nil
}

// turn is one answer of the model, as it is remembered.
type turn struct {
	Message contracts.Message `json:"message"`
	Finish  string            `json:"finish_reason"`
}

// conversation is what was said so far, the input included.
type conversation struct {
	name     string // of one of the run's talks; empty if it is the run
	messages []contracts.Message
}

// add appends, and leaves the input's own slice alone.
func (t *conversation) add(more ...contracts.Message) {
	t.messages = slices.Concat(t.messages, more)
}

// maxCallID keeps the name of a call's step within bounds.
const maxCallID = 50

// nameCalls gives the calls of the n-th turn ids that tell them from all others
// of the run: they are remembered by them, and some endpoints give none, or the
// same ones in each turn.
func (t *conversation) nameCalls(calls []contracts.ToolCall, n int) {
	taken := map[string]bool{"": true}
	for _, m := range t.messages {
		for _, call := range m.ToolCalls {
			taken[call.ID] = true
		}
	}
	for i := range calls {
		id := calls[i].ID
		if t.name != "" || taken[id] || len(id) > maxCallID || strings.ContainsFunc(id, unicode.IsControl) {
			id = fmt.Sprintf("%s_%d_%d", cmp.Or(t.name, "call"), n, i+1)
			for taken[id] {
				id += "x"
			}
		}
		calls[i].ID, taken[id] = id, true
	}
}

// maxFinalMessages bounds the final messages, encoded: with the final output
// they are one event.
const maxFinalMessages = 400 << 10

// fault says why the model's last words are not what was asked for.
func (t turn) fault() error {
	switch t.Finish {
	case "length":
		return remote.Fail(TypeTruncated, false, "the answer was cut off at its longest: raise max_tokens, or ask for less, and redrive the run from its start")
	case "content_filter":
		return remote.Fail(TypeFiltered, false, "the endpoint has held the answer back for its content")
	}
	return nil
}

// final is the whole conversation, with answers of tools cut short if it is too
// large, and if that does not do, as much of its end as fits, from a message
// that begins something. All is in the log.
func (t *conversation) final() []contracts.Message {
	short, room := t.messages, maxFinalMessages
	if !fits(short) {
		short = make([]contracts.Message, len(t.messages))
		for i, m := range t.messages {
			if m.Role == contracts.RoleTool {
				m.Content = contracts.Text(m.Role, contracts.Shorten(m.Text(), 1<<10)).Content
			}
			short[i] = m
		}
	}
	from := len(short) - 1
	for i, m := range slices.Backward(short) {
		raw, err := contracts.Encode(m)
		if room -= len(raw) + 1; err != nil || room < 0 {
			break
		}
		if i == 0 || m.Role == contracts.RoleUser {
			from = i
		}
	}
	return short[from:]
}

func fits(messages []contracts.Message) bool {
	raw, err := contracts.Encode(messages)
	return err == nil && len(raw) <= maxFinalMessages
}
