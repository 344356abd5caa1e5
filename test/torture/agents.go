package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/test/cluster"
	"longhaul/test/torture/history"
)

// act is the params of a run: what its agent is to do.
type act struct {
	Steps   int `json:"steps,omitempty"`
	PauseMS int `json:"pause_ms,omitempty"` // before each step
	// Save has a checkpoint after each step; Bytes makes it larger by as much.
	Save  bool `json:"save,omitempty"`
	Bytes int  `json:"bytes,omitempty"`
	// Deltas are pieces of text in each step.
	Deltas int `json:"deltas,omitempty"`
	// Durable has each step remembered by its name, in place of checkpoints, and
	// SleepMS puts the run to sleep before the second one.
	Durable bool `json:"durable,omitempty"`
	SleepMS int  `json:"sleep_ms,omitempty"`
	// Deaf does not listen to its context.
	Deaf bool `json:"deaf,omitempty"`

	// Asks is how many messages the run has of its own, if it is one of a
	// conversation, and Says what it leaves to the next one.
	Asks int    `json:"asks,omitempty"`
	Says string `json:"says,omitempty"`

	// What goes wrong at step At, while the attempt is no higher than Attempts.
	Wrong    string `json:"wrong,omitempty"`
	At       int    `json:"at,omitempty"`
	Attempts int    `json:"attempts,omitempty"`
}

// The ways to go wrong.
const (
	wrongFail      = "fail"      // an error that may be tried again
	wrongPermanent = "permanent" // one that may not
	wrongPanic     = "panic"
	wrongExit      = "exit" // of the whole process
)

// What a run leaves to the next one of its conversation, beside nothing.
const (
	saysAll   = "all"   // what it was given, and its answer
	saysTools = "tools" // the same, with the call of a tool in between
	saysOwn   = "own"   // forgets what was before it
)

// agentExit is its exit code then.
const agentExit = 37

// saved is a checkpoint's state, or what an event or a result says: which step,
// and who says so.
type saved struct {
	history.Stamped
	Step int    `json:"step"`
	Fill string `json:"fill,omitempty"`
}

// performance is one execution.
type performance struct {
	*troupe
	run *agent.Run
	act act
	id  int64

	serial int
}

// perform is the agents' Run: it writes down that it begins, each step before
// the checkpoint that covers it, and how it ended.
func (t *troupe) perform(ctx context.Context, run *agent.Run) (agent.Result, error) {
	p := &performance{troupe: t, run: run, id: t.out.NextID()}
	if err := run.Params(&p.act); err != nil {
		return agent.Result{}, err
	}
	var at saved
	if _, err := run.State(&at); err != nil {
		return agent.Result{}, err
	}
	p.note(history.KindExec, history.OpBegin, history.Exec{Resumed: at.Stamp, Step: at.Step, Heard: p.heard()})
	err := p.steps(ctx, at)
	p.end(ctx, err)
	if err != nil {
		return agent.Result{}, err
	}
	return agent.Result{FinalOutput: p.stamp(p.act.Steps), FinalMessages: p.says()}, nil
}

// heard is what was said before the run, nil if it is of no conversation.
func (p *performance) heard() json.RawMessage {
	if p.act.Asks == 0 {
		return nil
	}
	all, _ := json.Marshal(p.run.Messages[:max(0, len(p.run.Messages)-p.act.Asks)]) // it was decoded
	return all
}

// says is what the run leaves to the next one.
func (p *performance) says() []contracts.Message {
	all := slices.Clone(p.run.Messages)
	switch p.act.Says {
	case "":
		return nil
	case saysOwn:
		all = all[max(0, len(all)-p.act.Asks):]
	case saysTools:
		all = append(all, contracts.Message{Role: contracts.RoleAssistant, ToolCalls: []contracts.ToolCall{
			{ID: p.run.ID, Type: "function", Function: contracts.ToolFunction{Name: "look", Arguments: "{}"}},
		}}, contracts.Message{Role: contracts.RoleTool, ToolCallID: p.run.ID, Content: json.RawMessage(`"found"`)})
	}
	return append(all, contracts.Text(contracts.RoleAssistant, fmt.Sprintf("done by %s in epoch %d", p.worker, p.run.Epoch)))
}

func (p *performance) steps(ctx context.Context, at saved) error {
	if p.act.At == 0 {
		if err := p.goWrong(0); err != nil {
			return err
		}
	}
	if p.act.Durable {
		return p.durably(ctx)
	}
	for at.Step < p.act.Steps {
		pause := ctx
		if p.act.Deaf {
			pause = context.WithoutCancel(ctx)
		}
		if err := cluster.Sleep(pause, time.Duration(p.act.PauseMS)*time.Millisecond); err != nil {
			return err
		}
		at.Step++
		p.note(history.KindStep, history.OpInfo, history.Exec{Step: at.Step})
		if err := p.goWrong(at.Step); err != nil {
			return err
		}
		if err := p.report(ctx, at); err != nil && !p.act.Deaf {
			return err
		}
	}
	return nil
}

// durably takes steps that the engine remembers. An entry is written where one
// is executed, with its name.
func (p *performance) durably(ctx context.Context) error {
	for n := 1; n <= p.act.Steps; n++ {
		if n == 2 && p.act.SleepMS > 0 {
			if err := agent.Sleep(ctx, p.run, "nap", time.Duration(p.act.SleepMS)*time.Millisecond); err != nil {
				return err
			}
		}
		name := fmt.Sprintf("s%d", n)
		_, err := agent.Step(ctx, p.run, name, func(ctx context.Context) (saved, error) {
			if err := cluster.Sleep(ctx, time.Duration(p.act.PauseMS)*time.Millisecond); err != nil {
				return saved{}, err
			}
			p.noteText(history.Durable(name), history.KindStep, history.OpInfo, history.Exec{Step: n})
			return p.stamp(n), nil
		})
		if err == nil {
			err = p.goWrong(n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// report tells the log of a step.
func (p *performance) report(ctx context.Context, at saved) error {
	for d := range p.act.Deltas {
		if err := p.run.Delta(fmt.Sprintf("%d.%d ", at.Step, d)); err != nil {
			return err
		}
	}
	if err := p.run.Emit("work.done", p.stamp(at.Step)); err != nil || !p.act.Save {
		return err
	}
	state := p.stamp(at.Step)
	state.Fill = strings.Repeat("x", p.act.Bytes)
	e := history.Exec{Stamp: state.Stamp, Step: at.Step}
	id := p.out.NextID()
	p.noteAs(id, "", history.KindCheckpoint, history.OpInvoke, e, nil)
	err := p.run.Checkpoint(ctx, state)
	op := history.OpOK
	if err != nil {
		op = history.OpUnknown // the answer may have been lost
	}
	p.noteAs(id, "", history.KindCheckpoint, op, e, err)
	return err
}

// stamp says that a step is done.
func (p *performance) stamp(step int) saved {
	p.serial++
	s := &history.Stamp{Epoch: p.run.Epoch, Worker: p.worker, Step: step, Serial: p.serial}
	return saved{Stamped: history.Stamped{Stamp: s}, Step: step}
}

func (p *performance) goWrong(step int) error {
	if p.act.Wrong == "" || step != p.act.At || p.run.Attempt > p.act.Attempts {
		return nil
	}
	switch p.act.Wrong {
	case wrongPanic:
		p.note(history.KindExec, history.OpEnd, history.Exec{Outcome: history.OutcomeFailed})
		panic("as told")
	case wrongExit:
		os.Exit(agentExit)
	case wrongPermanent:
		return agent.Permanent(errors.New("as told, for good"))
	}
	return errors.New("as told")
}

// end writes down how it ended, as far as an agent can tell.
func (p *performance) end(ctx context.Context, err error) {
	e := history.Exec{Outcome: history.OutcomeSucceeded}
	switch cause := context.Cause(ctx); {
	case cause == nil && err != nil:
		e.Outcome = history.OutcomeFailed
	case cause == nil:
	case errors.Is(cause, agent.ErrCancelled):
		e.Outcome, e.Cause = history.OutcomeCancelled, history.CauseCancelled
	case errors.Is(cause, agent.ErrTimeout):
		e.Outcome, e.Cause = history.OutcomeAbandoned, history.CauseTimeout
	case errors.Is(cause, agent.ErrLeaseLost):
		e.Outcome, e.Cause = history.OutcomeAbandoned, history.CauseLeaseLost
	case errors.Is(cause, agent.ErrShutdown):
		e.Outcome, e.Cause = history.OutcomeAbandoned, history.CauseShutdown
	default:
		e.Outcome, e.Cause = history.OutcomeAbandoned, history.CauseOther
	}
	if err == nil && e.Outcome != history.OutcomeSucceeded {
		e.Outcome = history.OutcomeSucceeded // it returned a result all the same
	}
	p.note(history.KindExec, history.OpEnd, e)
}

func (p *performance) note(kind history.Kind, op history.Op, e history.Exec) {
	p.noteAs(p.id, "", kind, op, e, nil)
}

func (p *performance) noteText(text string, kind history.Kind, op history.Op, e history.Exec) {
	p.noteAs(p.id, text, kind, op, e, nil)
}

func (p *performance) noteAs(id int64, text string, kind history.Kind, op history.Op, e history.Exec, err error) {
	e.Agent, e.Worker, e.Epoch, e.Attempt, e.PID, e.Deaf = p.run.AgentKey, p.worker, p.run.Epoch, p.run.Attempt, os.Getpid(), p.act.Deaf
	entry := history.Entry{Kind: kind, Op: op, ID: id, Run: p.run.ID, Text: text, Exec: &e}
	if err != nil {
		entry.Error = err.Error()
	}
	p.write(entry)
}
