package contracts

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Each run has several events and records written, and encoding/json would take
// raw values apart again at every level that they stand in. So the messages
// that every run has write themselves; Encode hands them over. What comes out
// is what encoding/json makes of the tags (TestAppended), but for white space
// within raw values, which stays.

// appender writes the fields of one object.
type appender struct {
	b   []byte
	err error
}

func (a *appender) open()  { a.b = append(a.b, '{') }
func (a *appender) close() { a.b = append(a.b, '}') }

// name begins a field.
func (a *appender) name(name string) {
	if a.b[len(a.b)-1] != '{' {
		a.b = append(a.b, ',')
	}
	a.b = append(a.b, '"')
	a.b = append(a.b, name...)
	a.b = append(a.b, '"', ':')
}

func (a *appender) text(name, v string) {
	a.name(name)
	for i := range len(v) {
		if c := v[i]; c < ' ' || c >= 0x80 || c == '"' || c == '\\' {
			a.encode(v)
			return
		}
	}
	a.b = append(a.b, '"')
	a.b = append(a.b, v...)
	a.b = append(a.b, '"')
}

// given is text, left out if it is empty.
func (a *appender) given(name, v string) {
	if v != "" {
		a.text(name, v)
	}
}

func (a *appender) count(name string, v uint64) {
	a.name(name)
	a.b = strconv.AppendUint(a.b, v, 10)
}

func (a *appender) number(name string, v int) {
	a.name(name)
	a.b = strconv.AppendInt(a.b, int64(v), 10)
}

// seconds is a number, left out if it is zero.
func (a *appender) seconds(name string, v float64) {
	switch {
	case v == 0:
	case v == float64(int(v)):
		a.number(name, int(v))
	default:
		a.value(name, v)
	}
}

// instant is a time, left out if it is zero.
func (a *appender) instant(name string, t time.Time) {
	if !t.IsZero() {
		a.time(name, t)
	}
}

func (a *appender) time(name string, t time.Time) {
	a.name(name)
	var err error
	a.b = append(a.b, '"')
	if a.b, err = t.AppendText(a.b); err != nil {
		a.err = err
	}
	a.b = append(a.b, '"')
}

// raw is JSON that came from elsewhere, an agent perhaps.
func (a *appender) raw(name string, v []byte) {
	a.name(name)
	if !valid(v) {
		a.err = fmt.Errorf("%s is not JSON: %w", name, json.Unmarshal(v, new(json.RawMessage)))
	}
	a.b = append(slices.Grow(a.b, len(v)+256), v...) // and what follows
}

// value is for what few runs have.
func (a *appender) value(name string, v any) {
	a.name(name)
	a.encode(v)
}

func (a *appender) encode(v any) {
	data, err := encode(v)
	if err != nil {
		a.err = err
	}
	a.b = append(a.b, data...)
}

func (a *appender) event(e *Event) {
	a.open()
	a.text("run_id", e.RunID)
	a.count("seq", e.Seq)
	a.text("type", string(e.Type))
	a.time("time", e.Time)
	a.position(&e.Position)
	a.text("visibility", string(e.Visibility))
	if e.Payload == nil {
		e.Payload = json.RawMessage("null")
	}
	a.raw("payload", e.Payload)
	a.close()
}

func (a *appender) position(p *Position) {
	a.text("agent_key", p.AgentKey)
	a.given("priority", string(p.Priority))
	a.text("status", string(p.Status))
	a.count("epoch", p.Epoch)
	a.number("attempt", p.Attempt)
	a.number("max_attempts", p.MaxAttempts)
	a.given("worker_id", p.WorkerID)
	if p.Checkpoint != nil {
		a.value("checkpoint", p.Checkpoint)
	}
	a.instant("not_before", p.NotBefore)
	a.given("waits_for", p.WaitsFor)
	if p.Usage != (Usage{}) {
		a.value("usage", p.Usage)
	}
}

func (a *appender) record(r *StatusRecord) {
	a.open()
	a.text("run_id", r.RunID)
	a.position(&r.Position)
	a.given("conversation_id", r.ConversationID)
	a.given("idempotency_key", r.IdempotencyKey)
	if len(r.Metadata) > 0 {
		a.value("metadata", r.Metadata)
	}
	a.time("created_at", r.CreatedAt)
	a.instant("started_at", r.StartedAt)
	a.instant("finished_at", r.FinishedAt)
	if r.StartedSequence != 0 {
		a.count("started_sequence", r.StartedSequence)
	}
	a.time("updated_at", r.UpdatedAt)
	if r.Error != nil {
		a.value("error", r.Error)
	}
	if len(r.Faults) > 0 {
		a.value("faults", r.Faults)
	}
	a.count("seq", r.Seq)
	a.count("log_sequence", r.LogSequence)
	a.close()
}

func (a *appender) queued(q *Queued) {
	a.open()
	a.name("submission")
	a.submission(&q.Submission)
	a.instant("submitted_at", q.SubmittedAt)
	a.given("follows", q.Follows)
	a.close()
}

func (a *appender) submission(s *Submission) {
	a.open()
	a.given("run_id", s.RunID)
	a.given("idempotency_key", s.IdempotencyKey)
	a.text("agent_key", s.AgentKey)
	if !s.Input.IsZero() {
		a.name("input")
		a.input(&s.Input)
	}
	a.given("conversation_id", s.ConversationID)
	a.given("on_conflict", string(s.OnConflict))
	if len(s.Metadata) > 0 {
		a.value("metadata", s.Metadata)
	}
	a.given("priority", string(s.Priority))
	a.seconds("timeout_seconds", s.TimeoutSeconds)
	if s.MaxAttempts != 0 {
		a.number("max_attempts", s.MaxAttempts)
	}
	a.instant("not_before", s.NotBefore)
	a.seconds("start_timeout_seconds", s.StartTimeoutSeconds)
	a.given("traceparent", s.Traceparent)
	a.given("tracestate", s.Tracestate)
	a.close()
}

func (a *appender) input(in *Input) {
	a.open()
	if len(in.Messages) > 0 {
		a.name("messages")
		for i := range in.Messages {
			a.b = append(a.b, "[,"[min(i, 1)])
			a.message(&in.Messages[i])
		}
		a.b = append(a.b, ']')
	}
	if len(in.Params) > 0 {
		a.raw("params", in.Params)
	}
	a.close()
}

func (a *appender) message(m *Message) {
	a.open()
	a.text("role", m.Role)
	if len(m.Content) > 0 {
		a.raw("content", m.Content)
	}
	a.given("name", m.Name)
	a.given("tool_call_id", m.ToolCallID)
	if len(m.ToolCalls) > 0 {
		a.value("tool_calls", m.ToolCalls)
	}
	a.close()
}

func (a *appender) started(s *Started) {
	a.open()
	a.text("agent_key", s.AgentKey)
	a.count("epoch", s.Epoch)
	a.number("attempt", s.Attempt)
	if s.ResumedFrom != nil {
		a.value("resumed_from", s.ResumedFrom)
	}
	a.given("lease_token", s.LeaseToken)
	if len(s.History) > 0 {
		a.value("history", s.History)
	}
	a.close()
}

// EncodeEvent is Encode of an event, which it does not copy.
func EncodeEvent(e *Event) ([]byte, error) {
	a := appender{b: make([]byte, 0, 640+len(e.Payload))}
	a.event(e)
	return a.b, a.err
}

// appended encodes v if it is one of those that write themselves.
func appended(v any) (data []byte, ok bool, err error) {
	a := appender{}
	switch v := v.(type) {
	case Event:
		data, err = EncodeEvent(&v)
		return data, true, err
	case StatusRecord:
		a.b = make([]byte, 0, 640)
		a.record(&v)
	case Submission:
		a.b = make([]byte, 0, 512)
		a.submission(&v)
	case Queued:
		a.b = make([]byte, 0, 768)
		a.queued(&v)
	case Started:
		a.b = make([]byte, 0, 256)
		a.started(&v)
	default:
		return nil, false, nil
	}
	return a.b, true, a.err
}
