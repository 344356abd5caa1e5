package contracts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
)

// What is decoded here holds parts of data, which must not be written to any more.

// DecodeSubmission reads what a stranger published on runs.submit. The Faults
// are nil if it is good; else they list everything that is wrong with it, in
// the order of the document, and the Submission holds the fields that are good
// by themselves.
func DecodeSubmission(data []byte) (s Submission, f Faults) {
	if f = tooLarge(data, MaxSubmission); f != nil {
		return s, f
	}
	d := open(data, MaxDepth)
	d.submission(0, &s)
	if f = d.list(); f == nil && s.ConversationID == "" && (s.OnConflict == OnConflictReject || s.OnConflict == OnConflictInterrupt) {
		f = Faults{{Field: "on_conflict", Message: "must not be " + string(s.OnConflict) + " without a conversation_id: no other run is looked at"}}
	}
	return s, f
}

func tooLarge(data []byte, limit int) Faults {
	if len(data) <= limit {
		return nil
	}
	return Faults{{Message: fmt.Sprintf("must be at most %d bytes, not %d", limit, len(data))}}
}

// PeekSubmission returns the run id and the idempotency key of a submission
// that may be bad in every other respect, even no JSON from some place on. Each
// is "" if it cannot be read or is not valid itself.
func PeekSubmission(data []byte) (runID, idempotencyKey string) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return "", ""
	}
	for dec.More() {
		name, err := dec.Token()
		var value json.RawMessage
		if err != nil || dec.Decode(&value) != nil {
			break
		}
		switch d := open(value, envelope); name {
		case "run_id":
			runID = d.str(0, CheckRunID)
		case "idempotency_key":
			idempotencyKey = d.str(0, checkIdempotencyKey)
		}
	}
	return runID, idempotencyKey
}

// DecodeCancel reads the body of runs.<id>.cancel. An empty body is good.
func DecodeCancel(data []byte) (c CancelCommand, f Faults) {
	f = decodeCommand(data, MaxCommand, func(d *document) []field {
		return []field{
			{"reason", optional, func(n int32) { c.Reason = d.str(n, checkReason) }},
			{"by", optional, func(n int32) { c.By = d.str(n, checkReason) }},
		}
	})
	return c, f
}

// DecodeRedrive reads the body of runs.<id>.redrive. An empty body is good.
func DecodeRedrive(data []byte) (c RedriveCommand, f Faults) {
	f = decodeCommand(data, MaxCommand, func(d *document) []field {
		return []field{
			{"by", optional, func(n int32) { c.By = d.str(n, checkReason) }},
			{"from_start", optional, func(n int32) { c.FromStart = d.boolean(n) }},
		}
	})
	return c, f
}

// DecodeSignal reads the body of runs.<id>.signal.
func DecodeSignal(data []byte) (c SignalCommand, f Faults) {
	f = decodeCommand(data, MaxSignal, func(d *document) []field {
		return []field{
			{"name", required, func(n int32) { c.Name = d.str(n, checkSignalName) }},
			{"payload", optional, func(n int32) { c.Payload = d.part(n) }},
			{"by", optional, func(n int32) { c.By = d.str(n, checkReason) }},
		}
	})
	return c, f
}

// decodeCommand reads the body of a command; an empty one is that of an empty object.
func decodeCommand(data []byte, limit int, fields func(*document) []field) Faults {
	if f := tooLarge(data, limit); f != nil {
		return f
	}
	if len(bytes.TrimSpace(data)) == 0 {
		data = []byte("{}")
	}
	d := open(data, MaxDepth)
	d.object(0, fields(d))
	return d.list()
}

// DecodeHolderRequest reads what was asked of a worker. Unlike a command it
// comes from our own services, perhaps newer ones: unknown fields are let pass.
func DecodeHolderRequest(data []byte) (r HolderRequest, f Faults) {
	d := open(data, envelope)
	d.lenient = true
	d.object(0, []field{
		{"op", required, func(n int32) { r.Op = HolderOp(d.str(n, checkHolderOp)) }},
		{"run_id", optional, func(n int32) { r.RunID = d.str(n, CheckRunID) }},
		{"epoch", optional, func(n int32) { r.Epoch = d.integer(n, 0, math.MaxUint64) }},
		{"reason", optional, func(n int32) { r.Reason = d.str(n, nil) }},
		{"by", optional, func(n int32) { r.By = d.str(n, nil) }},
	})
	if f = d.list(); f == nil && r.Op != HolderPing && r.RunID == "" {
		f = Faults{{Field: "run_id", Message: "is required"}}
	}
	return r, f
}

// DecodeEvent reads one entry of a run's log. It is strict about what the
// envelope means and lets unknown fields pass, so that an older binary reads
// what a newer one wrote. The payload is free.
func DecodeEvent(data []byte) (Event, error) {
	d := open(data, envelope)
	d.lenient = true
	var e Event
	d.object(0, []field{
		{"run_id", required, func(n int32) { e.RunID = d.str(n, CheckRunID) }},
		{"seq", required, func(n int32) { e.Seq = d.integer(n, 1, math.MaxUint64) }},
		{"type", required, func(n int32) { e.Type = EventType(d.str(n, checkEventType)) }},
		{"time", required, func(n int32) { e.Time = d.instant(n) }},
		{"agent_key", required, func(n int32) { e.AgentKey = d.str(n, checkKnownAgentKey) }},
		{"priority", optional, func(n int32) { e.Priority = Priority(d.str(n, checkPriority)) }},
		{"status", required, func(n int32) { e.Status = d.status(n) }},
		{"epoch", required, func(n int32) { e.Epoch = d.integer(n, 0, math.MaxUint64) }},
		{"attempt", required, func(n int32) { e.Attempt = int(d.integer(n, 0, math.MaxInt32)) }},
		{"max_attempts", required, func(n int32) { e.MaxAttempts = int(d.integer(n, 0, math.MaxInt32)) }},
		{"worker_id", optional, func(n int32) { e.WorkerID = d.str(n, CheckWorkerID) }},
		{"checkpoint", optional, func(n int32) { e.Checkpoint = d.checkpoint(n) }},
		{"not_before", optional, func(n int32) { e.NotBefore = d.instant(n) }},
		{"waits_for", optional, func(n int32) { e.WaitsFor = d.str(n, nil) }},
		{"usage", optional, func(n int32) { e.Usage = d.usage(n) }},
		{"visibility", required, func(n int32) { e.Visibility = Visibility(d.str(n, checkVisibility)) }},
		{"payload", nullable, func(n int32) { e.Payload = d.part(n) }},
	})
	if len(d.faults) == 0 && e.Payload == nil {
		d.faultIn(0, "payload", "is required")
	}
	if f := d.list(); f != nil {
		return Event{}, fmt.Errorf("decode event: %w", f)
	}
	return e, nil
}

// DecodeQueued reads the payload of run.queued. A submission that is not as it
// would be accepted here, for a newer dispatcher has other limits, is read all
// the same.
func DecodeQueued(payload []byte) (q Queued, err error) {
	d := open(payload, 1+MaxDepth)
	d.lenient = true
	d.object(0, []field{
		{"submission", required, func(n int32) { d.submission(n, &q.Submission) }},
		{"submitted_at", optional, func(n int32) { q.SubmittedAt = d.instant(n) }},
		{"follows", optional, func(n int32) { q.Follows = d.str(n, nil) }},
	})
	if len(d.faults) > 0 {
		var again Queued
		err = json.Unmarshal(payload, &again)
		return again, err
	}
	return q, nil
}

func (d *document) status(n int32) Status { return Status(d.str(n, checkStatus)) }

// usage reads what our own programs wrote.
func (d *document) usage(n int32) (u Usage) {
	if err := json.Unmarshal(d.raw(n), &u); err != nil || u.Cost < 0 {
		d.fault(n, "must hold input_tokens, output_tokens and cost, each a number of at least 0, not "+quote(string(d.raw(n))))
		return Usage{}
	}
	return u
}

// checkpoint reads a reference that our own programs wrote.
func (d *document) checkpoint(n int32) *CheckpointRef {
	var ref CheckpointRef
	if err := json.Unmarshal(d.raw(n), &ref); err != nil || ref.N == 0 || ref.Epoch == 0 || ref.Revision == 0 {
		d.fault(n, "must hold n, epoch and revision, each a whole number above 0, not "+quote(string(d.raw(n))))
		return nil
	}
	return &ref
}
