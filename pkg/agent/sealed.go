package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"longhaul/pkg/agent/schema"
	"longhaul/pkg/contracts"
	"longhaul/pkg/seal"
)

// Sealed returns the agent, for runs whose submitters hold one of the keys
// (client.WithKeys): what it is given is opened for it, and what it says is
// sealed before it leaves the process. Steps' names, types of events and
// results, metadata, usage and errors' types stay in the clear.
//
// A run that was submitted in the clear fails for good. The input's schema is not
// registered, for no dispatcher could hold a sealed input against it; the agent
// is not called with an input that does not satisfy it, and the run fails.
func Sealed(a Agent, keys *seal.Keys) (Agent, error) {
	if err := a.Check(); err != nil {
		return a, err
	}
	input, err := schema.Compile(a.InputSchema)
	if err != nil {
		return a, fmt.Errorf("agent %q: input_schema: %w", a.Key, err)
	}
	inner := a
	a.InputSchema = nil
	a.Run = func(ctx context.Context, run *Run) (result Result, err error) {
		defer func() {
			if v := recover(); v != nil {
				panic(run.sealText(keys, fmt.Sprint(v)))
			}
		}()
		if err = run.unseal(keys); err == nil {
			if faults := input.Check(run.Submission.Input.Params, "input.params"); len(faults) > 0 {
				err = Permanent(faults)
			}
		}
		if err == nil {
			result, err = inner.Run(ctx, run)
		}
		if err != nil {
			return Result{}, &sealedError{error: err, text: run.sealText(keys, err.Error())}
		}
		return run.sealResult(keys, result)
	}
	if inner.Cancel != nil {
		a.Cancel = func(ctx context.Context, run *Run) {
			if run.unseal(keys) == nil {
				inner.Cancel(ctx, run)
			}
		}
	}
	if inner.OnError != nil {
		a.OnError = func(ctx context.Context, run *Run, err error) *contracts.ErrorInfo {
			if s := (*sealedError)(nil); errors.As(err, &s) {
				err = s.error
			}
			info := inner.OnError(ctx, run, err)
			if info != nil {
				info.Message, info.Stack = run.sealText(keys, info.Message), ""
				if len(info.Details) > 0 {
					info.Details, _ = contracts.Encode(run.sealText(keys, string(info.Details))) // a string always encodes
				}
			}
			return info
		}
	}
	return a, nil
}

// sealedError is an error whose words are sealed, and which is otherwise what it was.
type sealedError struct {
	error
	text string
}

func (e *sealedError) Error() string { return e.text }
func (e *sealedError) Unwrap() error { return e.error }

// opening is that a run is opened, once.
type opening struct {
	once sync.Once
	err  error
}

// unseal opens what the run was given, and has its reports sealed from now on.
func (r *Run) unseal(keys *seal.Keys) error {
	r.opening.once.Do(func() {
		if r.opening.err = r.unsealInput(keys); r.opening.err == nil && r.state != nil {
			r.opening.err = r.unsealState(keys)
		}
		if r.opening.err != nil {
			r.opening.err = Permanent(r.opening.err)
		}
		r.host = &sealedHost{Host: r.host, keys: keys, run: r.ID}
		log := r.log
		r.log = func() *slog.Logger { return slog.New(sealedLog{log().Handler(), r, keys}) }
	})
	return r.opening.err
}

func (r *Run) unsealInput(keys *seal.Keys) error {
	var envelope seal.Object
	if err := json.Unmarshal(r.Submission.Input.Params, &envelope); err != nil || envelope.Sealed == "" {
		return fmt.Errorf("the input is %w: submit it with a key", seal.ErrNotSealed)
	}
	plain, err := keys.Open(seal.Place{Run: r.ID, Kind: seal.KindInput, Name: r.AgentKey}, envelope.Sealed)
	if err != nil {
		return err
	}
	var in seal.Input
	if err := json.Unmarshal(plain, &in); err != nil {
		return fmt.Errorf("read the input: %w", err)
	}
	messages, own := slices.Clone(r.Messages), sha256.New()
	for i, m := range messages {
		var text string
		if err := json.Unmarshal(m.Content, &text); err != nil {
			return fmt.Errorf("message %d is %w", i, seal.ErrNotSealed)
		}
		// Of the history each message is that of the run which brought it.
		at, _ := seal.PlaceOf(text)
		if at.Run == r.ID || r.ConversationID == "" {
			at.Run = r.ID
			own.Write([]byte(text))
		}
		plain, err := keys.Open(seal.Place{Run: at.Run, Kind: seal.KindMessage, Name: r.ConversationID}, text)
		if err == nil {
			messages[i] = contracts.Message{}
			err = json.Unmarshal(plain, &messages[i])
		}
		if err != nil {
			return fmt.Errorf("message %d: %w", i, err)
		}
	}
	if !bytes.Equal(own.Sum(nil), in.Messages) {
		return fmt.Errorf("the input's messages: %w: some are missing, or out of order", seal.ErrForged)
	}
	r.Messages, r.Submission.Input = messages, contracts.Input{Messages: messages, Params: in.Params}
	return nil
}

func (r *Run) unsealState(keys *seal.Keys) error {
	var envelope seal.Object
	if r.state.Binary || json.Unmarshal(r.state.Data, &envelope) != nil {
		return fmt.Errorf("the checkpoint is %w", seal.ErrNotSealed)
	}
	plain, err := keys.Open(seal.Place{Run: r.ID, Kind: seal.KindState}, envelope.Sealed)
	if err != nil {
		return err
	}
	var s seal.State
	if err := json.Unmarshal(plain, &s); err != nil {
		return fmt.Errorf("read the checkpoint: %w", err)
	}
	r.state = &contracts.State{Data: s.Data, Binary: s.Binary}
	return nil
}

// sealText never fails: what can't be sealed is not told.
func (r *Run) sealText(keys *seal.Keys, text string) string {
	envelope, err := keys.Seal(seal.Place{Run: r.ID, Kind: seal.KindError}, []byte(text))
	if err != nil {
		return "(not shown: it could not be sealed)"
	}
	return envelope
}

func (r *Run) sealResult(keys *seal.Keys, result Result) (Result, error) {
	sealed := Result{Usage: result.Usage}
	value := func(kind string, v any) (string, error) {
		raw, err := encode(v)
		if err != nil {
			return "", err
		}
		return keys.Seal(seal.Place{Run: r.ID, Kind: kind}, raw)
	}
	if result.FinalOutput != nil {
		envelope, err := value(seal.KindOutput, result.FinalOutput)
		if err != nil {
			return Result{}, fmt.Errorf("seal the output: %w", err)
		}
		sealed.FinalOutput = envelope
	}
	for i, v := range result.Artifacts {
		envelope, err := value(seal.KindArtifact, v)
		if err != nil {
			return Result{}, fmt.Errorf("seal artifact %d: %w", i, err)
		}
		sealed.Artifacts = append(sealed.Artifacts, envelope)
	}
	var err error
	if sealed.FinalMessages, err = keys.SealMessages(r.ID, r.ConversationID, result.FinalMessages); err != nil {
		return Result{}, err
	}
	return sealed, nil
}

// sealedHost seals what a run reports, and opens what it remembers.
type sealedHost struct {
	Host
	keys *seal.Keys
	run  string
}

func (h *sealedHost) seal(kind, name string, plain []byte) (json.RawMessage, error) {
	envelope, err := h.keys.Seal(seal.Place{Run: h.run, Kind: kind, Name: name}, plain)
	if err != nil {
		return nil, err
	}
	return contracts.Encode(envelope)
}

func (h *sealedHost) object(kind, name string, plain []byte) (json.RawMessage, error) {
	envelope, err := h.keys.Seal(seal.Place{Run: h.run, Kind: kind, Name: name}, plain)
	if err != nil {
		return nil, err
	}
	return contracts.Encode(seal.Object{Sealed: envelope})
}

// Emit implements Host.
func (h *sealedHost) Emit(ctx context.Context, t contracts.EventType, v contracts.Visibility, payload json.RawMessage) error {
	sealed, err := h.object(seal.KindEvent, string(t), payload)
	if err != nil {
		return err
	}
	return h.Host.Emit(ctx, t, v, sealed)
}

// Delta implements Host. Pieces that are merged are envelopes one behind the other.
func (h *sealedHost) Delta(ctx context.Context, text string) error {
	envelope, err := h.keys.Seal(seal.Place{Run: h.run, Kind: seal.KindDelta}, []byte(text))
	if err != nil {
		return err
	}
	return h.Host.Delta(ctx, envelope)
}

// Checkpoint implements Host.
func (h *sealedHost) Checkpoint(ctx context.Context, state contracts.State) error {
	raw, err := contracts.Encode(seal.State{Binary: state.Binary, Data: state.Data})
	if err == nil {
		raw, err = h.object(seal.KindState, "", raw)
	}
	if err != nil {
		return err
	}
	return h.Host.Checkpoint(ctx, contracts.State{Data: raw})
}

// CompleteStep implements Host.
func (h *sealedHost) CompleteStep(ctx context.Context, done contracts.StepCompleted) (err error) {
	if done.Result, err = h.seal(seal.KindStep, done.Name, done.Result); err != nil {
		return err
	}
	return h.Host.CompleteStep(ctx, done)
}

// StepAt implements Host.
func (h *sealedHost) StepAt(ctx context.Context, ref StepRef) (json.RawMessage, error) {
	raw, err := h.Host.StepAt(ctx, ref)
	if err != nil {
		return nil, err
	}
	if ref.Signal {
		var p contracts.Signalled
		if err = json.Unmarshal(raw, &p); err == nil {
			p.Payload, err = h.open(seal.KindSignal, p.Name, p.Payload)
		}
		if err != nil {
			return nil, Permanent(fmt.Errorf("signal %q: %w", p.Name, err))
		}
		return contracts.Encode(p)
	}
	var done contracts.StepCompleted
	if err = json.Unmarshal(raw, &done); err == nil {
		done.Result, err = h.open(seal.KindStep, done.Name, done.Result)
	}
	if err != nil {
		return nil, Permanent(fmt.Errorf("step %q: %w", done.Name, err))
	}
	return contracts.Encode(done)
}

func (h *sealedHost) open(kind, name string, raw json.RawMessage) (json.RawMessage, error) {
	var envelope string
	if err := json.Unmarshal(raw, &envelope); err != nil {
		return nil, seal.ErrNotSealed
	}
	return h.keys.Open(seal.Place{Run: h.run, Kind: kind, Name: name}, envelope)
}

// sealedLog seals the errors and panics that the engine logs of a run; what the
// agent itself logs is its author's to judge.
type sealedLog struct {
	slog.Handler
	run  *Run
	keys *seal.Keys
}

// Handle implements slog.Handler.
func (l sealedLog) Handle(ctx context.Context, rec slog.Record) error {
	sealed := slog.NewRecord(rec.Time, rec.Level, rec.Message, rec.PC)
	rec.Attrs(func(a slog.Attr) bool {
		if a.Key == "error" || a.Key == "panic" {
			a.Value = slog.StringValue(l.run.sealText(l.keys, fmt.Sprint(a.Value.Any())))
		}
		sealed.AddAttrs(a)
		return true
	})
	return l.Handler.Handle(ctx, sealed)
}

// WithAttrs implements slog.Handler.
func (l sealedLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return sealedLog{l.Handler.WithAttrs(attrs), l.run, l.keys}
}

// WithGroup implements slog.Handler.
func (l sealedLog) WithGroup(name string) slog.Handler {
	return sealedLog{l.Handler.WithGroup(name), l.run, l.keys}
}
