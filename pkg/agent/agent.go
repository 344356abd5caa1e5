// Package agent is what the author of an agent imports.
//
// An agent is a function under a key. A worker calls it once per attempt of a
// run, with a context that ends when the attempt must (context.Cause says why)
// and with a Run through which it reads its input, reports what it does and
// saves its state. It may be called again for the same run, after a failure or
// on another machine after a crash: execution is at least once, and State
// gives back what the last Checkpoint saved.
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"longhaul/pkg/agent/schema"
	"longhaul/pkg/contracts"
)

// Agent is one kind of job. New makes one of a function. Its functions are
// called from many goroutines, one per run.
type Agent struct {
	// Key routes runs to it: 1 to 63 of a-z, 0-9, _ and -.
	Key string
	// Description tells people what it does; shown by `longhaul agents`.
	Description string
	// InputSchema is a JSON Schema of input.params: SchemaFor derives one. It is
	// registered with the agent, shown to people, and dispatchers reject what
	// does not satisfy it before any worker sees it.
	InputSchema json.RawMessage

	// Concurrency is how many of its runs one worker executes at once; 0 for as
	// many as the worker has slots. What is above it waits, for this worker or
	// another one, and leaves the slots to other agents.
	Concurrency int

	// Run does the work. An error fails the attempt; it is tried again unless
	// the error is Permanent or OnError says otherwise. A panic is an error, and
	// so is an end of its goroutine (runtime.Goexit).
	Run func(ctx context.Context, run *Run) (Result, error)

	// Cancel, if set, is called when the run is cancelled, at the same time as
	// Run's context ends, with a context of its own that bounds it.
	Cancel func(ctx context.Context, run *Run)

	// OnError, if set, classifies an error of Run; nil leaves it to the default.
	OnError func(ctx context.Context, run *Run, err error) *contracts.ErrorInfo
}

// New makes an agent of a function from its input to its result. The schema of
// its params is derived from P, and dispatchers reject what does not satisfy it
// (see SchemaFor, which panics if it cannot). R is encoded as JSON and is the
// final output; an R that is Result is the whole result. What else an Agent may
// have is set afterwards.
func New[P, R any](key, description string, do func(ctx context.Context, run *Run, params P) (R, error)) Agent {
	return Agent{Key: key, Description: description, InputSchema: SchemaFor[P](), Run: func(ctx context.Context, run *Run) (Result, error) {
		params, err := Params[P](run)
		if err != nil {
			return Result{}, err
		}
		output, err := do(ctx, run, params)
		if err != nil {
			return Result{}, err
		}
		if whole, ok := any(output).(Result); ok {
			return whole, nil
		}
		return Result{FinalOutput: output}, nil
	}}
}

// Check reports what is wrong with the agent's definition.
func (a Agent) Check() error {
	var faults contracts.Faults
	if err := contracts.CheckAgentKey(a.Key); err != nil {
		faults = append(faults, contracts.Fault{Field: "key", Message: err.Error()})
	}
	if a.Run == nil {
		faults = append(faults, contracts.Fault{Field: "run", Message: "must be set"})
	}
	if a.Concurrency < 0 {
		faults = append(faults, contracts.Fault{Field: "concurrency", Message: fmt.Sprintf("must not be negative, not %d", a.Concurrency)})
	}
	if _, err := schema.Compile(a.InputSchema); err != nil {
		faults = append(faults, contracts.Fault{Field: "input_schema", Message: err.Error()})
	}
	if len(faults) > 0 {
		return fmt.Errorf("agent %q: %w", a.Key, faults)
	}
	return nil
}

// Result is what a run comes to. FinalOutput, Usage and each artifact are
// encoded as JSON.
type Result struct {
	FinalOutput   any
	FinalMessages []contracts.Message
	Usage         any
	Artifacts     []any
}

// The causes with which an agent's context ends (context.Cause).
var (
	// ErrCancelled: somebody cancelled the run.
	ErrCancelled = errors.New("run cancelled")
	// ErrTimeout: the attempt took longer than the run's timeout_seconds.
	ErrTimeout = errors.New("attempt timed out")
	// ErrLeaseLost: another worker has the run now, or may have. Nothing that
	// this attempt still writes is accepted.
	ErrLeaseLost = errors.New("lease lost")
	// ErrShutdown: the worker drains. The run goes on elsewhere from its last checkpoint.
	ErrShutdown = errors.New("worker shutting down")
)

// Permanent marks err as one that another attempt would not mend.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// IsPermanent reports whether err, or one it wraps, was marked by Permanent.
func IsPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}

type permanentError struct{ error }

func (p *permanentError) Unwrap() error { return p.error }
