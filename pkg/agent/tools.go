package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"longhaul/pkg/agent/schema"
	"longhaul/pkg/contracts"
)

// Tool is something that a model may ask an agent to do.
type Tool struct {
	// Name is what the model calls it by: 1 to 64 of A-Z, a-z, 0-9, _ and -.
	Name string
	// Description tells the model what it does and when to use it.
	Description string
	// Schema is the JSON Schema of the arguments, an object; nil admits any.
	Schema json.RawMessage
	// Do does it, with arguments that satisfy Schema. A string goes to the model as it
	// is, a ToolResult as it says, anything else as JSON. An error goes to the model too, which may mend
	// it; a Permanent one ends the attempt. It is called from several goroutines.
	Do func(ctx context.Context, args json.RawMessage) (any, error)
	// Timeout ends Do's context, which Do must heed; 1 minute unless set.
	Timeout time.Duration
	// SideEffects makes each call a durable step of its own, remembered by the id
	// that the model gave it: no later attempt makes that call again, and
	// StepKey is at hand for what cannot be known (see Step). So the id must be
	// that of a model's answer that is itself remembered, by a step or a checkpoint.
	SideEffects bool
	// RequiresConfirmation has each call wait for somebody's word (longhaul
	// confirm, client.Confirm) before it is made, without holding a worker, as
	// Wait does. It implies SideEffects.
	RequiresConfirmation bool
	// ConfirmWithin is how long it waits; 24 hours unless set.
	ConfirmWithin time.Duration
	// Unanswered is what becomes of a call that nobody has said anything about by then.
	Unanswered Unanswered
}

const (
	defaultToolTimeout = time.Minute
	// maxToolResult bounds what is told to the model of one call, in bytes.
	maxToolResult = 256 << 10
)

// NewTool makes a tool of a function. The schema of the arguments is derived
// from A, a struct (see SchemaFor, which panics if it cannot).
func NewTool[A, R any](name, description string, do func(ctx context.Context, args A) (R, error)) Tool {
	return Tool{Name: name, Description: description, Schema: SchemaFor[A](), Do: func(ctx context.Context, raw json.RawMessage) (any, error) {
		var args A
		if err := json.Unmarshal(raw, &args); err != nil { // such as a number that is too large
			return nil, fmt.Errorf("arguments: %s", strings.TrimPrefix(err.Error(), "json: "))
		}
		return do(ctx, args)
	}}
}

// Tools is a set of tools. It does not change, and may be used by several goroutines.
type Tools struct {
	tools   []tool // by name
	durable bool   // see Durable
}

type tool struct {
	Tool
	args *schema.Schema
}

// NewTools puts tools together. Its error lists every fault of every tool.
func NewTools(tools ...Tool) (*Tools, error) {
	t := &Tools{}
	var faults contracts.Faults
	fault := func(i int, field, message string) {
		faults = append(faults, contracts.Fault{Field: fmt.Sprintf("tools[%d].%s", i, field), Message: message})
	}
	for i, one := range tools {
		if !isToolName(one.Name) {
			fault(i, "name", fmt.Sprintf("must be 1 to 64 of A-Z, a-z, 0-9, _ and -, not %q", one.Name))
		} else if t.find(one.Name) != nil {
			fault(i, "name", fmt.Sprintf("%q is there twice", one.Name))
		}
		if one.Do == nil {
			fault(i, "do", "must be set")
		}
		if one.Timeout < 0 {
			fault(i, "timeout", fmt.Sprintf("must not be negative, not %v", one.Timeout))
		}
		if one.ConfirmWithin < 0 {
			fault(i, "confirm_within", fmt.Sprintf("must not be negative, not %v", one.ConfirmWithin))
		}
		if one.Unanswered != RefuseCall && one.Unanswered != MakeCall {
			fault(i, "unanswered", fmt.Sprintf("must be RefuseCall or MakeCall, not %q", one.Unanswered))
		}
		one.SideEffects = one.SideEffects || one.RequiresConfirmation
		args, err := schema.Compile(one.Schema)
		if err != nil {
			fault(i, "schema", err.Error())
		}
		t.tools = append(t.tools, tool{one, args})
	}
	slices.SortFunc(t.tools, func(a, b tool) int { return cmp.Compare(a.Name, b.Name) })
	if err := faults.Err(); err != nil {
		return nil, err
	}
	return t, nil
}

func isToolName(s string) bool {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
	return s != "" && len(s) <= 64 && strings.Trim(s, letters) == ""
}

// Allow returns the tools of these names alone: an agent's allow-list. A name
// that there is no tool of is an error.
func (t *Tools) Allow(names ...string) (*Tools, error) {
	allowed := &Tools{durable: t.durable}
	for _, name := range names {
		one := t.find(name)
		if one == nil {
			return nil, fmt.Errorf("there is no tool %q; there are %s", name, t.names())
		}
		if allowed.find(name) == nil {
			allowed.tools = append(allowed.tools, *one)
		}
	}
	slices.SortFunc(allowed.tools, func(a, b tool) int { return cmp.Compare(a.Name, b.Name) })
	return allowed, nil
}

// With returns these tools and more; t may be nil. Its error is that of NewTools.
func (t *Tools) With(more ...Tool) (*Tools, error) {
	if t == nil {
		return NewTools(more...)
	}
	all := make([]Tool, 0, len(t.tools)+len(more))
	for _, one := range t.tools {
		all = append(all, one.Tool)
	}
	both, err := NewTools(append(all, more...)...)
	if err == nil {
		both.durable = t.durable
	}
	return both, err
}

// Durable returns the same tools, each call of which is a step, as if all had
// SideEffects: whatever was answered, a refusal too, is not asked again.
func (t *Tools) Durable() *Tools { return &Tools{tools: t.tools, durable: true} }

func (t *Tools) find(name string) *tool {
	for i := range t.tools {
		if t.tools[i].Name == name {
			return &t.tools[i]
		}
	}
	return nil
}

func (t *Tools) names() string {
	var names []string
	for _, one := range t.tools {
		names = append(names, one.Name)
	}
	return cmp.Or(strings.Join(names, ", "), "none")
}

// ToolDefinition is how a model is told of a tool, in the OpenAI form.
type ToolDefinition struct {
	Type     string `json:"type"` // function
	Function struct {
		Name        string          `json:"name"`
		Description string          `json:"description,omitempty"`
		Parameters  json.RawMessage `json:"parameters,omitempty"`
	} `json:"function"`
}

// Definitions returns what to tell a model of the tools, in the order of their names.
func (t *Tools) Definitions() []ToolDefinition {
	all := make([]ToolDefinition, len(t.tools))
	for i, one := range t.tools {
		all[i].Type = "function"
		all[i].Function.Name, all[i].Function.Description, all[i].Function.Parameters = one.Name, one.Description, one.Schema
	}
	return all
}

// Call makes one call that a model has asked for and returns the message to
// answer it with. It emits tool.call, the call, and tool.result, the message;
// neither if the call is remembered. What the model can do something about is in the
// message: a tool that there is not, arguments that do not satisfy the schema, a
// refusal of somebody who was asked (the tool is then not called), an error, a
// timeout, a panic. An error of Call itself ends the attempt: its time is over,
// it waits for somebody's word, or the tool says Permanent.
func (t *Tools) Call(ctx context.Context, run *Run, call contracts.ToolCall) (contracts.Message, error) {
	fail := func(err error) (contracts.Message, error) {
		return contracts.Message{}, fmt.Errorf("tool %q: %w", call.Function.Name, err)
	}
	one, refusal := t.admit(call)
	if refusal == "" && one.RequiresConfirmation {
		var err error
		if refusal, err = one.confirm(ctx, run, call); err != nil {
			return fail(err)
		}
	}
	do := func(ctx context.Context) (answer, error) { return answer{Failed: true, Content: refusal}, nil }
	if refusal == "" {
		do = func(ctx context.Context) (answer, error) { return one.do(ctx, run, call) }
	}
	observed := func(ctx context.Context) (answer, error) {
		if err := run.emit(contracts.TypeToolCall, contracts.VisibilityUser, call); err != nil {
			return answer{}, err
		}
		a, err := do(ctx)
		if err == nil {
			err = run.emit(contracts.TypeToolResult, contracts.VisibilityUser, toolResult{a.message(call), a.attachments})
		}
		return a, err
	}
	var a answer
	var err error
	if t.durable || refusal == "" && one.SideEffects {
		if call.ID == "" {
			return fail(Permanent(errors.New("the call has no id to remember it by")))
		}
		name := call.Function.Name
		if !isToolName(name) {
			name = "?" // whatever the model has called it
		}
		a, err = Step(ctx, run, "tool:"+name+":"+call.ID, observed)
	} else {
		a, err = observed(ctx)
	}
	if err != nil {
		return fail(err)
	}
	return a.message(call), nil
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
	timeout := cmp.Or(t.Timeout, defaultToolTimeout)
	within, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			run.log.Error("tool panicked", "tool", t.Name, "panic", v, "stack", string(debug.Stack()))
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
