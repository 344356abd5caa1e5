package contracts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
)

// DecodeSubmission reads what a stranger published on runs.submit. The Faults
// are nil if it is good; else they list everything wrong with it.
func DecodeSubmission(data []byte) (Submission, Faults) {
	var s Submission
	if len(data) > MaxSubmission {
		return s, Faults{{Message: fmt.Sprintf("must be at most %d bytes, not %d", MaxSubmission, len(data))}}
	}
	if err := strict(data, &s); err != nil {
		return s, Faults{{Message: err.Error()}}
	}
	return s, s.Check()
}

// Check reports everything wrong with a submission that a Go client built by hand.
func (s Submission) Check() Faults {
	var f Faults
	if err := CheckAgentKey(s.AgentKey); err != nil {
		f = append(f, Fault{"agent_key", err.Error()})
	}
	if s.RunID != "" {
		if err := CheckRunID(s.RunID); err != nil {
			f = append(f, Fault{"run_id", err.Error()})
		}
	}
	return f
}

// PeekSubmission returns the run id and the idempotency key of a submission
// that may be bad in every other respect, each "" if it cannot be read or is not valid.
func PeekSubmission(data []byte) (runID, idempotencyKey string) {
	var s struct {
		RunID          any `json:"run_id"`
		IdempotencyKey any `json:"idempotency_key"`
	}
	if json.Unmarshal(data, &s) != nil {
		return "", ""
	}
	if id, ok := s.RunID.(string); ok && CheckRunID(id) == nil {
		runID = id
	}
	idempotencyKey, _ = s.IdempotencyKey.(string)
	return runID, idempotencyKey
}

// DecodeCancel reads the body of runs.<id>.cancel.
func DecodeCancel(data []byte) (CancelCommand, Faults) {
	var c CancelCommand
	faults := command(data, &c)
	return c, faults
}

// DecodeRedrive reads the body of runs.<id>.redrive.
func DecodeRedrive(data []byte) (RedriveCommand, Faults) {
	var c RedriveCommand
	faults := command(data, &c)
	return c, faults
}

// DecodeHolderRequest reads what was asked of a worker.
func DecodeHolderRequest(data []byte) (HolderRequest, Faults) {
	var r HolderRequest
	if err := strict(data, &r); err != nil {
		return r, Faults{{Message: err.Error()}}
	}
	return r, nil
}

// DecodeEvent reads one entry of a run's log.
func DecodeEvent(data []byte) (Event, error) {
	var e Event
	if err := json.Unmarshal(data, &e); err != nil {
		return Event{}, fmt.Errorf("decode event: %w", err)
	}
	return e, nil
}

func command(data []byte, into any) Faults {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	if err := strict(data, into); err != nil {
		return Faults{{Message: err.Error()}}
	}
	return nil
}

func strict(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("data after the end")
	}
	return nil
}
