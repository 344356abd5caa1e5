package chat

import (
	"context"
	"errors"
	"fmt"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/internal/remote"
	"longhaul/pkg/contracts"
)

// Model is a model that an agent of one's own asks. Several goroutines of a run
// may do so at once.
type Model struct{ chat }

// NewModel returns the model of cfg, whose Tools and MoreTools are what it may call. Key,
// Description, Models and InputSchema are an agent's, and are not looked at.
func NewModel(cfg Config) (*Model, error) {
	cfg.Key, cfg.Models, cfg.InputSchema = "model", nil, nil
	c, err := build(cfg)
	if err != nil {
		return nil, fmt.Errorf("model %s: %w", cfg.Model, err)
	}
	return &Model{chat: c}, nil
}

// Ask asks one question and returns the text of the model's last message. It is Talk with one message.
func (m *Model) Ask(ctx context.Context, run *agent.Run, name, question string) (string, error) {
	said, err := m.Talk(ctx, run, name, contracts.Text(contracts.RoleUser, question))
	if err != nil {
		return "", err
	}
	return said[len(said)-1].Text(), nil
}

// Talk lets the model work on from messages, tools included, until it has
// nothing more to ask, and returns the whole conversation, messages first.
// Each turn is a step of the run, <name>:1, <name>:2 …, and each call of a tool
// is one, so that nothing is paid for twice. A name, 1 to 24 bytes, stands for
// one talk of the run. Each turn is emitted as assistant.message when it is
// whole: several talks at once would not be readable as a stream.
// An agent's OnError should be this package's.
func (m *Model) Talk(ctx context.Context, run *agent.Run, name string, messages ...contracts.Message) ([]contracts.Message, error) {
	if name == "" || len(name) > maxTalkName {
		return nil, agent.Permanent(fmt.Errorf("talk %q: its name must have 1 to %d bytes", name, maxTalkName))
	}
	if len(messages) == 0 {
		return nil, agent.Permanent(fmt.Errorf("talk %s: %w", name, errNoMessages))
	}
	p := m.cfg.Params
	p.Model, p.MaxTurns = m.cfg.Model, or(p.MaxTurns, m.cfg.MaxTurns)
	talk := conversation{name: name, messages: messages}
	last, err := m.talk(ctx, run, p, &talk)
	if err == nil {
		err = last.fault()
	}
	if err != nil {
		return nil, fmt.Errorf("talk %s: %w", name, err)
	}
	return talk.messages, nil
}

var errNoMessages = errors.New("at least one message is needed")

// maxTalkName keeps ids of calls, which begin with it, below the 40 bytes that some endpoints admit.
const maxTalkName = 24

// OnError classifies errors of a model and of what is called over HTTP, as the
// table in docs/agents.md has it; nil for any other. It is an agent's OnError.
func OnError(ctx context.Context, run *agent.Run, err error) *contracts.ErrorInfo {
	return remote.Classify(ctx, run, err)
}
