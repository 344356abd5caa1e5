package client

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"

	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
	"longhaul/pkg/seal"
)

// Option is how a Client is.
type Option func(*Client)

// WithKeys has the client seal what it submits and signals, and open what was
// sealed in what it reads. Runs of agents that hold one of the keys (agent.Sealed)
// are then envelopes to everybody between the two. nil is no keys.
func WithKeys(keys *seal.Keys) Option { return func(c *Client) { c.keys = keys } }

// sealed seals the input of a submission that has its run id.
func (c *Client) sealed(s contracts.Submission) (_ contracts.Submission, err error) {
	if c.keys != nil {
		if s.Input, err = c.keys.SealInput(s.RunID, s.AgentKey, s.ConversationID, s.Input); err != nil {
			return s, fmt.Errorf("submission: %w", err)
		}
	}
	return s, nil
}

// sealedSignal seals a signal's payload, also if it is none.
func (c *Client) sealedSignal(runID string, cmd contracts.SignalCommand) (contracts.SignalCommand, error) {
	if c.keys == nil {
		return cmd, nil
	}
	plain := cmd.Payload
	if len(plain) == 0 {
		plain = json.RawMessage("null")
	}
	envelope, err := c.keys.Seal(seal.Place{Run: runID, Kind: seal.KindSignal, Name: cmd.Name}, plain)
	if err == nil {
		cmd.Payload, err = contracts.Encode(envelope)
	}
	return cmd, err
}

// sealedIn are the kinds of what may be sealed in the events of a type.
func sealedIn(t contracts.EventType) []string {
	switch t {
	case contracts.TypeQueued, contracts.TypeScheduled:
		return []string{seal.KindInput, seal.KindMessage}
	case contracts.TypeStarted:
		return []string{seal.KindMessage}
	case contracts.TypeDelta:
		return []string{seal.KindDelta}
	case contracts.TypeCheckpoint:
		return []string{seal.KindState}
	case contracts.TypeStepCompleted:
		return []string{seal.KindStep}
	case contracts.TypeSignalled:
		return []string{seal.KindSignal}
	case contracts.TypeSucceeded:
		return []string{seal.KindOutput, seal.KindArtifact, seal.KindMessage}
	case contracts.TypeFailed, contracts.TypeRetrying:
		return []string{seal.KindError}
	}
	return []string{seal.KindEvent}
}

// opened opens what is sealed in an event.
func (c *Client) opened(e runlog.Entry) (_ runlog.Entry, err error) {
	if e.Payload, err = c.keys.OpenAll(e.Payload, e.RunID, sealedIn(e.Type)...); err != nil {
		return e, fmt.Errorf("event %d of run %s: %w", e.Seq, e.RunID, err)
	}
	return e, nil
}

// openedAll opens what is sealed in events.
func (c *Client) openedAll(events iter.Seq2[runlog.Entry, error]) iter.Seq2[runlog.Entry, error] {
	if c.keys == nil {
		return events
	}
	return func(yield func(runlog.Entry, error) bool) {
		for e, err := range events {
			if err == nil {
				e, err = c.opened(e)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// last is the last event of a run's log, opened.
func (c *Client) last(ctx context.Context, runID string) (runlog.Entry, error) {
	e, err := c.log.Last(ctx, runID)
	if err != nil {
		return e, err
	}
	return c.opened(e)
}

// openedRecord opens the error that a status record repeats.
func (c *Client) openedRecord(r contracts.StatusRecord) (_ contracts.StatusRecord, err error) {
	if c.keys == nil || r.Error == nil {
		return r, nil
	}
	info := *r.Error
	r.Error = &info
	if info.Message, err = c.keys.OpenText(info.Message, r.RunID, seal.KindError); err == nil {
		info.Details, err = c.keys.OpenAll(info.Details, r.RunID, seal.KindError)
	}
	return r, err
}

// openedState opens the state of a checkpoint.
func (c *Client) openedState(runID string, cp Checkpoint) (Checkpoint, error) {
	raw, err := c.keys.OpenAll(cp.State, runID, seal.KindState)
	if err != nil || string(raw) == string(cp.State) {
		return cp, err
	}
	cp.State = raw
	return cp, nil
}
