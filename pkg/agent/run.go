package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"unicode/utf8"

	"longhaul/pkg/contracts"
)

// Run is one attempt of a run, as its agent sees it. Its methods may be called
// from several goroutines until the agent's Run function returns; its fields
// are not to be changed.
type Run struct {
	ID             string
	AgentKey       string
	Attempt        int // 1 up to MaxAttempts
	MaxAttempts    int
	Epoch          uint64 // counts every start of the run
	ConversationID string
	// Messages are those of the conversation so far, if the run belongs to one,
	// and then those of the input.
	Messages []contracts.Message
	Metadata map[string]string
	// Submission is the whole of what was submitted, defaults filled in, with
	// Messages as its messages.
	Submission contracts.Submission

	ctx   context.Context //nolint:containedctx // the attempt's own context, for Cancelled and for methods that take none
	host  Host
	state *contracts.State // nil without one
	log   func() *slog.Logger

	memory  memory
	spent   spending
	opening opening // of a sealed run
}

// Host is where a Run's reports go. The worker is one; a test is another.
type Host interface {
	// Emit takes an event for the run's log. It returns when the event is
	// queued in order, which may wait for room, not when it is committed.
	Emit(ctx context.Context, t contracts.EventType, v contracts.Visibility, payload json.RawMessage) error
	// Delta takes a piece of text for an assistant.delta event. Pieces that
	// wait for the log may be merged.
	Delta(ctx context.Context, text string) error
	// Checkpoint returns when state is stored and committed to the log.
	Checkpoint(ctx context.Context, state contracts.State) error

	// CompleteStep returns when a step's result is committed to the log.
	CompleteStep(ctx context.Context, done contracts.StepCompleted) error
	// Steps returns every step that was committed before this attempt began,
	// by its name; after a redrive from the start, since that.
	Steps(ctx context.Context) (map[string]StepRef, error)
	// StepAt reads the payload of one of them: contracts.StepCompleted, or of a
	// signal contracts.Signalled.
	StepAt(ctx context.Context, ref StepRef) (json.RawMessage, error)
	// Sleep ends the attempt's context with ErrSleeping; when the agent has
	// returned, the run waits until s.WakeAt or for s.Signal, and for all of
	// them joined if there are several.
	Sleep(s contracts.Sleeping)
}

// Start is what NewRun needs to know.
type Start struct {
	Submission  contracts.Submission
	Attempt     int
	MaxAttempts int
	Epoch       uint64
	State       *contracts.State    // the checkpoint that the attempt resumes from, if any
	History     []contracts.Message // what was said in its conversation before it
	Usage       Usage               // what earlier attempts have spent
	Host        Host
	Log         func() *slog.Logger // called by those who log something
}

// NewRun makes the Run of one attempt under ctx. Only hosts call it.
func NewRun(ctx context.Context, s Start) *Run {
	s.Submission.Input.Messages = slices.Concat(s.History, s.Submission.Input.Messages)
	return &Run{
		ID: s.Submission.RunID, AgentKey: s.Submission.AgentKey, Attempt: s.Attempt, MaxAttempts: s.MaxAttempts, Epoch: s.Epoch,
		ConversationID: s.Submission.ConversationID, Messages: s.Submission.Input.Messages, Metadata: s.Submission.Metadata,
		Submission: s.Submission, ctx: ctx, host: s.Host, state: s.State, log: s.Log,
		spent: spending{total: s.Usage},
	}
}

// Emit appends an event of the agent's own to the run's log, in order. It
// returns when the event is queued; it waits only while too much is queued
// already, and fails when the attempt has ended. Types run.*, state.*
// and step.* are the engine's and refused.
func (r *Run) Emit(eventType string, payload any) error {
	t := contracts.EventType(eventType)
	switch {
	case !t.Valid():
		return fmt.Errorf("emit %q: must be dotted lower-case words, such as tool.call", eventType)
	case t.Reserved():
		return fmt.Errorf("emit %q: run.*, state.* and step.* are reserved for the engine", eventType)
	}
	return r.emit(t, contracts.VisibilityUser, payload)
}

// Debug is Emit for what only the agent's developers want to see.
func (r *Run) Debug(eventType string, payload any) error {
	t := contracts.EventType(eventType)
	if !t.Valid() || t.Reserved() {
		return fmt.Errorf("emit %q: must be dotted lower-case words outside run.*, state.* and step.*", eventType)
	}
	return r.emit(t, contracts.VisibilityDebug, payload)
}

// Delta appends a piece of text as assistant.delta. Deltas that wait for the
// log are merged into one.
func (r *Run) Delta(text string) error {
	if err := r.host.Delta(r.ctx, text); err != nil {
		return fmt.Errorf("emit %s: %w", contracts.TypeDelta, err)
	}
	return nil
}

// Message appends a whole message as assistant.message.
func (r *Run) Message(m contracts.Message) error {
	return r.emit(contracts.TypeMessage, contracts.VisibilityUser, m)
}

func (r *Run) emit(t contracts.EventType, v contracts.Visibility, payload any) error {
	raw := json.RawMessage("{}")
	if payload != nil {
		var err error
		if raw, err = encode(payload); err != nil {
			return fmt.Errorf("emit %s: encode the payload: %w", t, err)
		}
	}
	if err := r.host.Emit(r.ctx, t, v, raw); err != nil {
		return fmt.Errorf("emit %s: %w", t, err)
	}
	return nil
}

// encode is contracts.Encode for what an agent hands over: a json.RawMessage
// among it may be anything.
func encode(v any) (json.RawMessage, error) {
	raw, err := contracts.Encode(v)
	if err == nil && !utf8.Valid(raw) {
		err = errors.New("it is not UTF-8")
	}
	return raw, err
}

// Checkpoint saves state as where a later attempt resumes: a []byte as it is,
// any bytes, anything else as JSON. When it returns nil the state is stored and
// committed. One that is too large for a message of the broker is a permanent
// error.
func (r *Run) Checkpoint(ctx context.Context, state any) error {
	raw, isBytes := state.([]byte)
	if !isBytes {
		var err error
		if raw, err = encode(state); err != nil {
			return fmt.Errorf("checkpoint: encode the state: %w", err)
		}
	}
	if err := r.host.Checkpoint(ctx, contracts.State{Data: raw, Binary: isBytes}); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// State decodes the checkpoint that this attempt resumes from into v, a
// pointer, and reports whether there is one. One that was saved as a []byte is
// read into a *[]byte as it is. What Checkpoint saves later in the same attempt
// does not change it.
func (r *Run) State(v any) (bool, error) {
	if r.state == nil {
		return false, nil
	}
	if into, ok := v.(*[]byte); ok && r.state.Binary {
		*into = bytes.Clone(r.state.Data)
		return true, nil
	}
	if err := json.Unmarshal(r.state.Data, v); err != nil {
		if r.state.Binary {
			err = fmt.Errorf("it was saved as a []byte, and State is to be given a *[]byte, not %T: %w", v, err)
		}
		return true, Permanent(fmt.Errorf("decode the checkpoint: %w", err))
	}
	return true, nil
}

// RawState returns the checkpoint that this attempt resumes from, nil without
// one: JSON, or what was saved as a []byte.
func (r *Run) RawState() []byte {
	if r.state == nil {
		return nil
	}
	return r.state.Data
}

// Cancelled reports whether somebody has cancelled the run.
func (r *Run) Cancelled() bool { return errors.Is(context.Cause(r.ctx), ErrCancelled) }

// Log returns a logger that says run_id and attempt on every line.
func (r *Run) Log() *slog.Logger { return r.log() }

// IdempotencyKey returns a key that is the same in every attempt of the run,
// for a side effect that must not happen twice: <run id>/<step>. Within a Step
// it is StepKey.
func (r *Run) IdempotencyKey(step string) string { return r.ID + "/" + step }
