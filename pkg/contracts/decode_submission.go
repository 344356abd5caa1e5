package contracts

import (
	"bytes"
	"encoding/json"
	"fmt"
)

func (d *document) submission(n int32, s *Submission) {
	d.object(n, []field{
		{"run_id", optional, func(n int32) { s.RunID = d.str(n, CheckRunID) }},
		{"idempotency_key", optional, func(n int32) { s.IdempotencyKey = d.str(n, checkIdempotencyKey) }},
		{"agent_key", required, func(n int32) { s.AgentKey = d.str(n, CheckAgentKey) }},
		{"input", optional, func(n int32) { d.input(n, &s.Input) }},
		{"conversation_id", optional, func(n int32) { s.ConversationID = d.str(n, checkConversationID) }},
		{"on_conflict", optional, func(n int32) { s.OnConflict = OnConflict(d.str(n, checkOnConflict)) }},
		{"metadata", optional, func(n int32) { s.Metadata = d.metadata(n) }},
		{"priority", optional, func(n int32) { s.Priority = Priority(d.str(n, checkPriority)) }},
		{"timeout_seconds", optional, func(n int32) { s.TimeoutSeconds = d.seconds(n, MaxTimeoutSeconds) }},
		{"max_attempts", optional, func(n int32) { s.MaxAttempts = int(d.integer(n, 1, MaxMaxAttempts)) }},
		{"not_before", optional, func(n int32) { s.NotBefore = d.instant(n) }},
		{"start_timeout_seconds", optional, func(n int32) { s.StartTimeoutSeconds = d.seconds(n, MaxTimeoutSeconds) }},
		{"traceparent", optional, func(n int32) { s.Traceparent = d.str(n, checkTraceparent) }},
		{"tracestate", optional, func(n int32) { s.Tracestate = d.str(n, checkTracestate) }},
	})
}

func (d *document) input(n int32, in *Input) {
	d.object(n, []field{
		{"messages", optional, func(n int32) { in.Messages = d.messages(n) }},
		{"params", optional, func(n int32) {
			if d.is(n, kindObject) {
				in.Params = d.part(n)
			}
		}},
	})
}

func (d *document) messages(n int32) []Message {
	if count := d.count(n); d.kind(n) == kindArray && count > MaxMessages {
		d.fault(n, fmt.Sprintf("must be at most %d messages, not %d", MaxMessages, count))
		return nil
	}
	return elements(d, n, d.message)
}

func (d *document) message(n int32) (m Message) {
	d.object(n, []field{
		{"role", required, func(n int32) { m.Role = d.str(n, checkRole) }},
		{"content", nullable, func(n int32) { m.Content = d.content(n) }},
		{"name", optional, func(n int32) { m.Name = d.str(n, nil) }},
		{"tool_call_id", optional, func(n int32) { m.ToolCallID = d.str(n, nil) }},
		{"tool_calls", optional, func(n int32) { m.ToolCalls = elements(d, n, d.toolCall) }},
	})
	return m
}

// content is text, or parts of which only the type is known here, or null.
func (d *document) content(n int32) json.RawMessage {
	switch d.kind(n) {
	case kindArray:
		for part := range d.children(n) {
			d.object(part, []field{
				{"type", required, func(n int32) { d.str(n, checkName) }},
				{anyOther, optional, func(int32) {}},
			})
		}
	case kindString, kindNull:
	default:
		d.fault(n, "must be a string, an array of parts or null"+d.not(n))
	}
	return d.part(n)
}

func (d *document) toolCall(n int32) (c ToolCall) {
	d.object(n, []field{
		{"id", required, func(n int32) { c.ID = d.str(n, checkName) }},
		{"type", required, func(n int32) { c.Type = d.str(n, checkName) }},
		{"function", required, func(n int32) {
			d.object(n, []field{
				{"name", required, func(n int32) { c.Function.Name = d.str(n, checkName) }},
				{"arguments", required, func(n int32) { c.Function.Arguments = d.str(n, nil) }},
			})
		}},
	})
	return c
}

func (d *document) metadata(n int32) map[string]string {
	count := d.count(n)
	if !d.is(n, kindObject) || count == 0 {
		return nil
	}
	if count > MaxMetadata {
		d.fault(n, fmt.Sprintf("must be at most %d entries, not %d", MaxMetadata, count))
	}
	metadata := make(map[string]string, min(count, MaxMetadata))
	for c := range d.children(n) {
		key := string(d.name(c))
		if err := checkLength(key, 1, MaxMetadataKey); err != nil {
			d.fault(c, "has a name that "+err.Error())
		}
		if d.is(c, kindString) {
			metadata[key] = d.str(c, checkMetadataValue)
		}
	}
	return metadata
}

// Check returns everything that is wrong with a submission that was built in
// Go, nil if it is good.
func (s Submission) Check() Faults {
	_, f := EncodeSubmission(s)
	return f
}

// EncodeSubmission returns a submission that was built in Go as it goes on the
// wire, or everything that is wrong with it. It is what the dispatcher will say:
// the submission is encoded and decoded.
func EncodeSubmission(s Submission) ([]byte, Faults) {
	s.NotBefore = s.NotBefore.UTC()
	data, err := Encode(s)
	if err != nil {
		return nil, Faults{{Message: "cannot be encoded: " + err.Error()}}
	}
	decoded, faults := DecodeSubmission(data)
	// For what is not UTF-8 the encoder writes this, which is not what it writes
	// for the character itself; within raw JSON, though, it may be meant.
	if faults == nil && bytes.Contains(data, []byte(`\ufffd`)) {
		if again, err := Encode(decoded); err != nil || !bytes.Equal(again, data) {
			return nil, Faults{{Message: "holds text that is not UTF-8"}}
		}
	}
	return data, faults
}
