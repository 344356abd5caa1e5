package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"longhaul/pkg/contracts"
	"longhaul/pkg/tracing"
)

// defaultParallel is how many calls of one answer are made at a time.
const defaultParallel = 8

// Call makes one call that a model has asked for, as Calls does.
func (t *Tools) Call(ctx context.Context, run *Run, call contracts.ToolCall) (contracts.Message, error) {
	answers, err := t.Calls(ctx, run, []contracts.ToolCall{call})
	if err != nil {
		return contracts.Message{}, err
	}
	return answers[0], nil
}

// Calls makes the calls that one answer of a model asks for, beside one another,
// as many at a time as Parallel says, and returns the messages to answer them
// with, in the order of the calls. What the model can do something about is in
// the message: a tool that there is not, arguments that do not satisfy the schema, a
// refusal of somebody who was asked (the tool is then not called), an error, a
// timeout, a panic.
//
// An error of Calls itself ends the attempt: its time is over, it waits for
// somebody's word, or a tool says Permanent; of several it is that of the first
// call. None is begun then, and those under way are waited for.
//
// Somebody's word is asked for first, for all the calls that need one, by
// tool.confirm. Then comes a tool.call for each call as it begins, and tool.result,
// the message, as it ends: neither if the call is remembered. tool.confirm and
// tool.call come in the order of the calls. When all have ended that can be
// made, the run is put to sleep for the words that are missing.
func (t *Tools) Calls(ctx context.Context, run *Run, calls []contracts.ToolCall) ([]contracts.Message, error) {
	all := make([]*called, len(calls))
	for i, call := range calls {
		all[i] = &called{ToolCall: call}
		if err := t.prepare(ctx, run, all[i]); err != nil {
			return nil, all[i].failed(err)
		}
	}
	waiting := t.make(ctx, run, all)
	answers := make([]contracts.Message, len(all))
	for i, c := range all {
		if c.err != nil {
			return nil, c.failed(c.err)
		}
		answers[i] = c.answer.message(c.ToolCall)
	}
	for _, c := range waiting { // joined: any of the words ends it
		run.host.Sleep(contracts.Sleeping{Name: c.word.name, WakeAt: c.word.deadline, Signal: c.word.name})
	}
	if len(waiting) > 0 {
		return nil, waiting[0].failed(ErrSleeping)
	}
	return answers, nil
}

// errExited is the error of a call whose tool has ended its goroutine.
var errExited = errors.New("it did not return: it called runtime.Goexit, as t.FailNow does in a test")

// called is a call on its way.
type called struct {
	contracts.ToolCall
	tool    *tool
	step    string // under which it is remembered, "" if it is not
	word    word   // that it waits for, zero if none
	refusal string // why the tool is not called
	answer  answer
	err     error // that ends the attempt
}

func (c *called) failed(err error) error { return fmt.Errorf("tool %q: %w", c.Function.Name, err) }

// prepare finds out what is to become of a call, and asks for somebody's word on it.
func (t *Tools) prepare(ctx context.Context, run *Run, c *called) (err error) {
	c.tool, c.refusal = t.admit(c.ToolCall)
	if c.refusal == "" && c.tool.RequiresConfirmation {
		if c.word, err = c.tool.ask(ctx, run, c.ToolCall); err != nil {
			return err
		}
	}
	if !t.durable && (c.refusal != "" || !c.tool.SideEffects) {
		return nil
	}
	if c.ID == "" {
		return Permanent(errors.New("the call has no id to remember it by"))
	}
	name := c.Function.Name
	if !isToolName(name) {
		name = "?" // whatever the model has called it
	}
	c.step = "tool:" + name + ":" + c.ID
	return nil
}

// make makes the calls, and returns when these have ended. Those whose word
// has not come are left.
func (t *Tools) make(ctx context.Context, run *Run, all []*called) (left []*called) {
	var under sync.WaitGroup
	defer under.Wait()
	var failed atomic.Bool
	slots := make(chan struct{}, cmp.Or(t.parallel, defaultParallel))
	for _, c := range all {
		if c.word.name != "" && !run.spoken(c.word) {
			left = append(left, c)
			continue
		}
		slots <- struct{}{} // until the first of those under way has ended
		if failed.Load() {
			return nil
		}
		if c.err = c.begin(ctx, run, t.durable); c.err != nil {
			return nil
		}
		under.Go(func() {
			c.err = errExited // unless it returns
			defer func() {
				if c.err != nil {
					failed.Store(true)
				}
				<-slots
			}()
			c.err = c.make(ctx, run)
		})
	}
	return left
}

// begin hears what was said of the call, and tells of it.
func (c *called) begin(ctx context.Context, run *Run, durable bool) (err error) {
	if c.word.name != "" {
		if c.refusal, err = c.tool.heard(ctx, run, c.word); err != nil {
			return err
		}
		if c.refusal != "" && !durable {
			c.step = "" // the word is remembered, and so the refusal
		}
	}
	if remembered, err := run.remembers(ctx, c.step); err != nil || remembered {
		return err
	}
	return run.emit(contracts.TypeToolCall, contracts.VisibilityUser, c.ToolCall)
}

// make makes the call, or remembers it.
func (c *called) make(ctx context.Context, run *Run) (err error) {
	do := func(ctx context.Context) (a answer, err error) {
		if a = (answer{Failed: true, Content: c.refusal}); c.refusal == "" {
			a, err = c.tool.do(ctx, run, c.ToolCall)
		}
		if err == nil {
			err = run.emit(contracts.TypeToolResult, contracts.VisibilityUser, toolResult{a.message(c.ToolCall), a.attachments})
		}
		return a, err
	}
	if c.step == "" {
		c.answer, err = do(ctx)
	} else {
		c.answer, err = Step(ctx, run, c.step, do)
	}
	return err
}

// admit finds the tool of a call, or says why there is no calling it.
func (t *Tools) admit(call contracts.ToolCall) (*tool, string) {
	one := t.find(call.Function.Name)
	if one == nil {
		return nil, fmt.Sprintf("there is no tool %q; there are %s", call.Function.Name, t.names())
	}
	args := json.RawMessage(call.Function.Arguments)
	if len(args) > 0 && !json.Valid(args) {
		return nil, "arguments: must be JSON"
	}
	if faults := one.args.Check(args, "arguments"); len(faults) > 0 {
		return nil, faults.Error()
	}
	return one, ""
}

// answer is what a call came to, as it is remembered.
type answer struct {
	Content string `json:"content"`
	Failed  bool   `json:"failed,omitempty"`

	attachments []Attachment // which are told, and not remembered
}

func (a answer) message(call contracts.ToolCall) contracts.Message {
	text := a.Content
	if a.Failed {
		text = "error: " + text
	}
	m := contracts.Text(contracts.RoleTool, text)
	m.ToolCallID = call.ID
	return m
}

// do calls the tool's function. The error ends the attempt.
func (t *tool) do(ctx context.Context, run *Run, call contracts.ToolCall) (a answer, err error) {
	ctx, span := tracing.Tool(ctx, t.Name, call.ID)
	defer func() { span.EndTool(a.Failed, err) }()
	timeout := cmp.Or(t.Timeout, defaultToolTimeout)
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			run.log().Error("tool panicked", "tool", t.Name, "panic", v, "stack", string(debug.Stack()))
			a, err = answer{Failed: true, Content: "the tool broke down"}, nil
		}
	}()
	args := json.RawMessage(cmp.Or(call.Function.Arguments, "{}"))
	v, err := t.Do(within, args)
	switch {
	case err == nil:
		return answerOf(v)
	case ctx.Err() != nil:
		return answer{}, fmt.Errorf("%w: %w", context.Cause(ctx), err)
	case IsPermanent(err):
		return answer{}, err
	case within.Err() != nil:
		err = fmt.Errorf("took longer than its %v", timeout)
	}
	return answer{Failed: true, Content: contracts.Shorten(err.Error(), maxToolResult)}, nil
}
