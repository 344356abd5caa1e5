package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
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
	tools    []tool // by name
	durable  bool   // see Durable
	parallel int    // see Parallel
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
	allowed := &Tools{durable: t.durable, parallel: t.parallel}
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
		both.durable, both.parallel = t.durable, t.parallel
	}
	return both, err
}

// Durable returns the same tools, each call of which is a step, as if all had
// SideEffects: whatever was answered, a refusal too, is not asked again.
func (t *Tools) Durable() *Tools { return &Tools{tools: t.tools, durable: true, parallel: t.parallel} }

// Parallel returns the same tools, of which at most n calls of one answer of a
// model are made at a time; 8 unless told. With 1 they are made one after the
// other, in the model's order.
func (t *Tools) Parallel(n int) *Tools {
	return &Tools{tools: t.tools, durable: t.durable, parallel: max(n, 1)}
}

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
