package contracts

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// The fields of each object, as a submitter who misspelt one is told them.
const (
	submissionFields = "run_id, idempotency_key, agent_key, input, conversation_id, metadata, priority, timeout_seconds, max_attempts, not_before"
	inputFields      = "messages, params"
	messageFields    = "role, content, name, tool_call_id, tool_calls"
	toolCallFields   = "id, type, function"
	functionFields   = "name, arguments"
	cancelFields     = "reason, by"
	redriveFields    = "by, from_start"
)

func (d *document) submission(s *Submission) {
	for n := d.first(0); n > 0; n = d.nodes[n].next {
		switch string(d.key(n)) {
		case "run_id":
			s.RunID = d.str(n, CheckRunID)
		case "idempotency_key":
			s.IdempotencyKey = d.str(n, checkIdempotencyKey)
		case "agent_key":
			s.AgentKey = d.str(n, CheckAgentKey)
		case "input":
			d.input(n, &s.Input)
		case "conversation_id":
			s.ConversationID = d.str(n, checkConversationID)
		case "metadata":
			s.Metadata = d.metadata(n)
		case "priority":
			s.Priority = Priority(d.str(n, checkPriority))
		case "timeout_seconds":
			s.TimeoutSeconds = d.seconds(n, MaxTimeoutSeconds)
		case "max_attempts":
			s.MaxAttempts = int(d.integer(n, 1, MaxMaxAttempts))
		case "not_before":
			s.NotBefore = d.instant(n)
		default:
			d.unknown(n, submissionFields)
		}
	}
	d.require(0, "agent_key")
}

func (d *document) input(n int32, in *Input) {
	if !d.given(n, kindObject) {
		return
	}
	for c := d.first(n); c > 0; c = d.nodes[c].next {
		switch string(d.key(c)) {
		case "messages":
			in.Messages = d.messages(c)
		case "params":
			if d.given(c, kindObject) {
				in.Params = d.raw(c)
			}
		default:
			d.unknown(c, inputFields)
		}
	}
}

func (d *document) messages(n int32) []Message {
	if !d.given(n, kindArray) || d.nodes[n].count == 0 {
		return nil
	}
	count := int(d.nodes[n].count)
	if count > MaxMessages {
		d.fault(n, fmt.Sprintf("must be at most %d messages, not %d", MaxMessages, count))
		return nil
	}
	list := make([]Message, 0, count)
	for c := d.first(n); c > 0; c = d.nodes[c].next {
		list = append(list, d.message(c))
	}
	return list
}

func (d *document) message(n int32) (m Message) {
	if !d.is(n, kindObject) {
		return m
	}
	for c := d.first(n); c > 0; c = d.nodes[c].next {
		switch string(d.key(c)) {
		case "role":
			m.Role = d.str(c, checkRole)
		case "content":
			m.Content = d.content(c)
		case "name":
			m.Name = d.str(c, nil)
		case "tool_call_id":
			m.ToolCallID = d.str(c, nil)
		case "tool_calls":
			m.ToolCalls = d.toolCalls(c)
		default:
			d.unknown(c, messageFields)
		}
	}
	d.require(n, "role")
	return m
}

// content is text, or parts of which only the type is known here, or null.
func (d *document) content(n int32) json.RawMessage {
	switch d.nodes[n].kind {
	case kindArray:
		for part := d.first(n); part > 0; part = d.nodes[part].next {
			if !d.is(part, kindObject) {
				continue
			}
			for c := d.first(part); c > 0; c = d.nodes[c].next {
				if string(d.key(c)) == "type" {
					d.str(c, checkName)
				}
			}
			d.require(part, "type")
		}
	case kindString, kindNull:
	default:
		d.fault(n, "must be a string, an array of parts or null"+d.not(n))
	}
	return d.raw(n)
}

func (d *document) toolCalls(n int32) []ToolCall {
	if !d.given(n, kindArray) || d.nodes[n].count == 0 {
		return nil
	}
	list := make([]ToolCall, d.nodes[n].count)
	for c := d.first(n); c > 0; c = d.nodes[c].next {
		if !d.is(c, kindObject) {
			continue
		}
		call := &list[d.nodes[c].index]
		for f := d.first(c); f > 0; f = d.nodes[f].next {
			switch string(d.key(f)) {
			case "id":
				call.ID = d.str(f, checkName)
			case "type":
				call.Type = d.str(f, checkName)
			case "function":
				d.function(f, &call.Function)
			default:
				d.unknown(f, toolCallFields)
			}
		}
		d.require(c, "id", "type", "function")
	}
	return list
}

func (d *document) function(n int32, f *ToolFunction) {
	if !d.given(n, kindObject) {
		return
	}
	for c := d.first(n); c > 0; c = d.nodes[c].next {
		switch string(d.key(c)) {
		case "name":
			f.Name = d.str(c, checkName)
		case "arguments":
			f.Arguments = d.str(c, nil)
		default:
			d.unknown(c, functionFields)
		}
	}
	d.require(n, "name", "arguments")
}

func (d *document) metadata(n int32) map[string]string {
	if !d.given(n, kindObject) || d.nodes[n].count == 0 {
		return nil
	}
	if count := d.nodes[n].count; count > MaxMetadata {
		d.fault(n, fmt.Sprintf("must be at most %d entries, not %d", MaxMetadata, count))
	}
	metadata := make(map[string]string, min(d.nodes[n].count, MaxMetadata))
	for c := d.first(n); c > 0; c = d.nodes[c].next {
		key := string(d.key(c))
		if err := checkMetadataKey(key); err != nil {
			d.fault(c, "has a name that "+err.Error())
		}
		if d.is(c, kindString) {
			metadata[key] = d.str(c, checkMetadataValue)
		}
	}
	return metadata
}

// Check returns everything that is wrong with a submission that was built in
// Go, nil if it is good. It is what the dispatcher will say: the submission is
// encoded and decoded, after a look at what only Go can hold.
func (s Submission) Check() Faults {
	faults := s.unsayable()
	if faults != nil {
		return faults
	}
	data, err := Encode(s)
	if err != nil {
		return Faults{{Message: "cannot be encoded: " + err.Error()}}
	}
	_, faults = DecodeSubmission(data)
	return faults
}

// unsayable lists the values for which JSON has no words, or which its encoder
// would silently change.
func (s Submission) unsayable() (faults Faults) {
	text := func(field, value string) {
		if !utf8.ValidString(value) {
			faults = append(faults, Fault{field, "is not UTF-8: " + quote(value)})
		}
	}
	raw := func(field string, value json.RawMessage) {
		if len(value) > 0 && !json.Valid(value) {
			faults = append(faults, Fault{field, "is not JSON: " + quote(string(value))})
		}
		text(field, string(value))
	}
	text("run_id", s.RunID)
	text("idempotency_key", s.IdempotencyKey)
	text("agent_key", s.AgentKey)
	for i, m := range s.Input.Messages {
		at := "input.messages[" + strconv.Itoa(i) + "]"
		text(at+".role", m.Role)
		raw(at+".content", m.Content)
		text(at+".name", m.Name)
		text(at+".tool_call_id", m.ToolCallID)
		for j, c := range m.ToolCalls {
			at := at + ".tool_calls[" + strconv.Itoa(j) + "]"
			text(at+".id", c.ID)
			text(at+".type", c.Type)
			text(at+".function.name", c.Function.Name)
			text(at+".function.arguments", c.Function.Arguments)
		}
	}
	raw("input.params", s.Input.Params)
	text("conversation_id", s.ConversationID)
	for _, k := range slices.Sorted(maps.Keys(s.Metadata)) {
		text("metadata", k)
		text("metadata."+k, s.Metadata[k])
	}
	text("priority", string(s.Priority))
	if math.IsNaN(s.TimeoutSeconds) || math.IsInf(s.TimeoutSeconds, 0) {
		faults = append(faults, Fault{"timeout_seconds", fmt.Sprintf("must be above 0 and at most %d, not %v", MaxTimeoutSeconds, s.TimeoutSeconds)})
	}
	if y := s.NotBefore.UTC().Year(); y < 0 || y > 9999 {
		faults = append(faults, Fault{"not_before", fmt.Sprintf("must be in the years 0 to 9999, not %d", y)})
	}
	return faults
}
