package contracts

import (
	"encoding/json"
	"fmt"
	"math"
	"time"
)

// StatusRecord is a run's entry status.<id> in bucket runs: a projection of the
// log for people and lists (DESIGN "Status is a projection"). No decision is
// taken from it.
type StatusRecord struct {
	RunID string `json:"run_id"`
	Position
	ConversationID string            `json:"conversation_id,omitempty"`
	IdempotencyKey string            `json:"idempotency_key,omitempty"`
	Metadata       map[string]string `json:"metadata,omitempty"`
	CreatedAt      time.Time         `json:"created_at"`
	StartedAt      time.Time         `json:"started_at,omitzero"`  // of the last attempt
	FinishedAt     time.Time         `json:"finished_at,omitzero"` // of the last round
	// StartedSequence is where the last run.started stands in RUNS_LOG: the
	// event that names the lease of whoever holds the run.
	StartedSequence uint64    `json:"started_sequence,omitempty"`
	UpdatedAt       time.Time `json:"updated_at"`
	// Error is that of the last failed attempt, without its stack.
	Error *ErrorInfo `json:"error,omitempty"`
	// Faults are those of a rejected run.
	Faults Faults `json:"faults,omitempty"`
	// Seq and LogSequence are the last event that is folded in: its number in
	// the run and in RUNS_LOG. A record only ever gives way to a later one.
	Seq         uint64 `json:"seq"`
	LogSequence uint64 `json:"log_sequence"`
}

// DecodeSummary reads what a list is made of out of an encoded StatusRecord: the
// run's id, agent, priority and status, who holds it and since where, its
// idempotency key, conversation, metadata and times, and how far the record goes.
// The rest is left zero.
func DecodeSummary(data []byte) (StatusRecord, error) {
	const levels = 2 // record, metadata
	d := open(data, levels)
	d.lenient = true
	var r StatusRecord
	d.object(0, []field{
		{"run_id", optional, func(n int32) { r.RunID = d.str(n, nil) }},
		{"agent_key", optional, func(n int32) { r.AgentKey = d.str(n, nil) }},
		{"priority", optional, func(n int32) { r.Priority = Priority(d.str(n, nil)) }},
		{"status", required, func(n int32) { r.Status = d.status(n) }},
		{"worker_id", optional, func(n int32) { r.WorkerID = d.str(n, nil) }},
		{"not_before", optional, func(n int32) { r.NotBefore = d.instant(n) }},
		{"conversation_id", optional, func(n int32) { r.ConversationID = d.str(n, nil) }},
		{"idempotency_key", optional, func(n int32) { r.IdempotencyKey = d.str(n, nil) }},
		{"metadata", optional, func(n int32) { r.Metadata = d.metadata(n) }},
		{"created_at", required, func(n int32) { r.CreatedAt = d.instant(n) }},
		{"finished_at", optional, func(n int32) { r.FinishedAt = d.instant(n) }},
		{"started_sequence", optional, func(n int32) { r.StartedSequence = d.integer(n, 0, math.MaxUint64) }},
		{"seq", optional, func(n int32) { r.Seq = d.integer(n, 0, math.MaxUint64) }},
		{"log_sequence", required, func(n int32) { r.LogSequence = d.integer(n, 1, math.MaxUint64) }},
	})
	if f := d.list(); f != nil {
		return StatusRecord{}, fmt.Errorf("decode a status record: %w", f)
	}
	return r, nil
}

// Project folds one event of a run into its record; sequence is the event's in
// RUNS_LOG. It expects the events of a run in order and without a gap: e.Seq
// must be rec.Seq+1 (a record's zero value stands before the first event). An
// event that the record already holds leaves it as it is, and so does an error,
// but for one: of an event whose payload cannot be read the envelope is folded
// all the same, so that one bad event does not halt its run's record.
func Project(rec StatusRecord, e Event, sequence uint64) (StatusRecord, error) {
	if rec.RunID != "" && e.RunID != rec.RunID {
		return rec, fmt.Errorf("event of run %s in the projection of run %s", e.RunID, rec.RunID)
	}
	if e.Seq <= rec.Seq {
		return rec, nil
	}
	if e.Seq != rec.Seq+1 {
		return rec, fmt.Errorf("run %s: event %d follows %d in the projection", e.RunID, e.Seq, rec.Seq)
	}
	rec.RunID, rec.Position, rec.Seq, rec.LogSequence, rec.UpdatedAt = e.RunID, e.Position, e.Seq, sequence, e.Time
	if rec.CreatedAt.IsZero() {
		rec.CreatedAt = e.Time
	}
	var err error
	switch e.Type {
	case TypeQueued, TypeScheduled:
		err = rec.submitted(e.Payload)
	case TypeRejected:
		var p Rejected
		err = json.Unmarshal(e.Payload, &p)
		rec.Faults = p.Errors
	case TypeStarted:
		rec.StartedAt, rec.StartedSequence = e.Time, sequence
	case TypeRetrying:
		var p Retrying
		if err = json.Unmarshal(e.Payload, &p); err == nil {
			rec.failed(p.Error)
		}
	case TypeFailed:
		var p Failed
		if err = json.Unmarshal(e.Payload, &p); err == nil {
			rec.failed(p.ErrorInfo)
		}
	case TypeSucceeded:
		rec.Error = nil // an earlier attempt's
	case TypeRequeued:
		rec.FinishedAt = time.Time{}
	}
	if e.Type.Terminal() {
		rec.FinishedAt = e.Time
	}
	if err != nil {
		return rec, fmt.Errorf("run %s: decode the payload of event %d, %s: %w", e.RunID, e.Seq, e.Type, err)
	}
	return rec, nil
}

// submitted takes what lists filter by out of the payload of run.queued or
// run.scheduled, and leaves the rest, which may be large, unread.
func (r *StatusRecord) submitted(payload json.RawMessage) error {
	const levels = 3 // payload, submission, metadata
	d := open(payload, levels)
	d.lenient = true
	d.object(0, []field{
		{"submission", required, func(n int32) {
			d.object(n, []field{
				{"conversation_id", optional, func(n int32) { r.ConversationID = d.str(n, nil) }},
				{"idempotency_key", optional, func(n int32) { r.IdempotencyKey = d.str(n, nil) }},
				{"metadata", optional, func(n int32) { r.Metadata = d.metadata(n) }},
			})
		}},
	})
	return d.list().Err()
}

// failed notes an error, short: the record is read by the thousand, the log has the whole of it.
func (r *StatusRecord) failed(info ErrorInfo) {
	info.Stack, info.Details = "", nil
	info.Message = Shorten(info.Message, maxRecordedError)
	r.Error = &info
}

// maxRecordedError bounds an error message in a status record, in bytes.
const maxRecordedError = 512
