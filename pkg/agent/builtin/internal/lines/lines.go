// Package lines is how a run's events come from outside: as JSON objects, one a
// line or one an event of a stream, from a program or from a service.
package lines

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// The types of a line that is not emitted.
const (
	TypeResult     = "result"
	TypeCheckpoint = "checkpoint"
)

// Max bounds a line that is an event: it must fit into a message of the
// broker, 1 MiB by default, with its envelope.
const Max = 512 << 10

// Line is one event as it comes.
type Line struct {
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload"`

	// Beside the payload of a result.
	FinalMessages []contracts.Message `json:"final_messages"`
	Usage         json.RawMessage     `json:"usage"`
	Artifacts     []json.RawMessage   `json:"artifacts"`
}

// Parse reads a line, and reports whether it is one: a JSON object with a type.
func Parse(raw []byte) (l Line, ok bool) {
	raw = bytes.TrimSpace(raw)
	return l, bytes.HasPrefix(raw, []byte("{")) && json.Unmarshal(raw, &l) == nil && l.Type != ""
}

// Sink turns lines into what they stand for. One goroutine uses it.
type Sink struct {
	Ctx context.Context //nolint:containedctx // of the one attempt that it lives for
	Run *agent.Run
	// Result is what the last result said; Ended is whether there was one.
	Result agent.Result
	Ended  bool
	// Failure is the payload of the last error event.
	Failure *contracts.ErrorInfo
}

// Take does what a line stands for. An error ends the attempt.
func (s *Sink) Take(l Line) error {
	switch l.Type {
	case TypeResult:
		s.Ended, s.Result = true, agent.Result{FinalMessages: l.FinalMessages}
		if len(l.Payload) > 0 {
			s.Result.FinalOutput = l.Payload
		}
		if len(l.Usage) > 0 {
			s.Result.Usage = l.Usage
		}
		for _, a := range l.Artifacts {
			s.Result.Artifacts = append(s.Result.Artifacts, a)
		}
		return nil
	case TypeCheckpoint:
		if len(l.Payload) == 0 {
			return agent.Permanent(errors.New("there is a checkpoint without a payload"))
		}
		return s.Run.Checkpoint(s.Ctx, l.Payload)
	case string(contracts.TypeDelta):
		var d contracts.Delta
		if json.Unmarshal(l.Payload, &d) == nil {
			return s.Run.Delta(d.Text) // which may be merged with others, unlike an event
		}
	case string(contracts.TypeError):
		info := contracts.ErrorInfo{Retriable: true}
		if json.Unmarshal(l.Payload, &info) == nil && info.Message != "" {
			s.Failure = &info
		}
	}
	if t := contracts.EventType(l.Type); !t.Valid() || t.Reserved() {
		return agent.Permanent(fmt.Errorf("there is an event of type %.80q: "+
			"a type is dotted lower-case words, outside run.*, state.* and step.*", l.Type))
	}
	var payload any
	if len(l.Payload) > 0 {
		payload = l.Payload
	}
	return s.Run.Emit(l.Type, payload)
}
