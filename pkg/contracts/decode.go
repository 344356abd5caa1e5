package contracts

import (
	"bytes"
	"fmt"
	"math"
)

// DecodeSubmission reads what a stranger published on runs.submit. The Faults
// are nil if it is good; else they list everything that is wrong with it, in
// the order of the document, and the Submission holds the fields that are good
// by themselves.
func DecodeSubmission(data []byte) (Submission, Faults) {
	if size := storedSize(data); size > MaxSubmission {
		return Submission{}, Faults{{Message: fmt.Sprintf("must be at most %d bytes, not %d", MaxSubmission, size)}}
	}
	d := document{data: data, nodes: make([]node, 0, 64)} // enough for the usual one
	var s Submission
	if d.scan() && d.is(0, kindObject) {
		d.submission(&s)
	}
	return s, d.list()
}

// storedSize is the size of a submission in the events that repeat it. Those
// are no larger than what was sent but for two characters that Go escapes.
func storedSize(data []byte) int {
	if len(data) <= MaxSubmission/2 { // escaping doubles a size at most
		return len(data)
	}
	return len(data) + 3*(bytes.Count(data, []byte("\u2028"))+bytes.Count(data, []byte("\u2029")))
}

// PeekSubmission returns the run id and the idempotency key of a submission
// that may be bad in every other respect, even no JSON from some place on. Each
// is "" if it cannot be read or is not valid itself.
func PeekSubmission(data []byte) (runID, idempotencyKey string) {
	d := document{data: data, lenient: true}
	d.scan()
	if len(d.nodes) == 0 || d.nodes[0].kind != kindObject {
		return "", ""
	}
	for c := d.first(0); c > 0; c = d.nodes[c].next {
		switch string(d.key(c)) {
		case "run_id":
			runID = d.str(c, CheckRunID)
		case "idempotency_key":
			idempotencyKey = d.str(c, checkIdempotencyKey)
		}
	}
	return runID, idempotencyKey
}

// DecodeCancel reads the body of runs.<id>.cancel. An empty body is good.
func DecodeCancel(data []byte) (CancelCommand, Faults) {
	var c CancelCommand
	faults := command(data, func(d *document) {
		for n := d.first(0); n > 0; n = d.nodes[n].next {
			switch string(d.key(n)) {
			case "reason":
				c.Reason = d.str(n, checkReason)
			case "by":
				c.By = d.str(n, checkReason)
			default:
				d.unknown(n, cancelFields)
			}
		}
	})
	return c, faults
}

// DecodeRedrive reads the body of runs.<id>.redrive. An empty body is good.
func DecodeRedrive(data []byte) (RedriveCommand, Faults) {
	var c RedriveCommand
	faults := command(data, func(d *document) {
		for n := d.first(0); n > 0; n = d.nodes[n].next {
			switch string(d.key(n)) {
			case "by":
				c.By = d.str(n, checkReason)
			case "from_start":
				c.FromStart = d.boolean(n)
			default:
				d.unknown(n, redriveFields)
			}
		}
	})
	return c, faults
}

// command scans the body of a command and lets read take it apart.
func command(data []byte, read func(*document)) Faults {
	if len(data) > MaxCommand {
		return Faults{{Message: fmt.Sprintf("must be at most %d bytes, not %d", MaxCommand, len(data))}}
	}
	d := document{data: data}
	if d.space(0) == d.size() {
		return nil
	}
	if d.scan() && d.is(0, kindObject) {
		read(&d)
	}
	return d.list()
}

// DecodeHolderRequest reads what was asked of a worker. Unlike a command it
// comes from our own services, perhaps newer ones: unknown fields are let pass.
func DecodeHolderRequest(data []byte) (HolderRequest, Faults) {
	d := document{data: data, lenient: true}
	var r HolderRequest
	if !d.scan() || !d.is(0, kindObject) {
		return r, d.list()
	}
	for n := d.first(0); n > 0; n = d.nodes[n].next {
		switch string(d.key(n)) {
		case "op":
			r.Op = HolderOp(d.str(n, checkHolderOp))
		case "run_id":
			r.RunID = d.str(n, CheckRunID)
		case "epoch":
			r.Epoch = d.integer(n, 0, math.MaxUint64)
		case "reason":
			r.Reason = d.str(n, nil)
		case "by":
			r.By = d.str(n, nil)
		}
	}
	d.require(0, "op")
	if r.Op == HolderHolds || r.Op == HolderCancel {
		d.require(0, "run_id")
	}
	return r, d.list()
}

// DecodeEvent reads one entry of a run's log. It is strict about what the
// envelope means and lets unknown fields pass, so that an older binary reads
// what a newer one wrote. The payload is free.
func DecodeEvent(data []byte) (Event, error) {
	d := document{data: data, nodes: make([]node, 0, 32), lenient: true}
	var e Event
	if d.scan() && d.is(0, kindObject) {
		d.event(&e)
	}
	if faults := d.list(); faults != nil {
		return Event{}, fmt.Errorf("decode event: %w", faults)
	}
	return e, nil
}

func (d *document) event(e *Event) {
	for n := d.first(0); n > 0; n = d.nodes[n].next {
		switch string(d.key(n)) {
		case "run_id":
			e.RunID = d.str(n, CheckRunID)
		case "seq":
			e.Seq = d.integer(n, 1, math.MaxUint64)
		case "type":
			e.Type = EventType(d.str(n, checkEventType))
		case "time":
			e.Time = d.instant(n)
		case "agent_key":
			e.AgentKey = d.str(n, checkKnownAgentKey)
		case "priority":
			e.Priority = Priority(d.str(n, checkPriority))
		case "status":
			e.Status = Status(d.str(n, checkStatus))
		case "epoch":
			e.Epoch = d.integer(n, 0, math.MaxUint64)
		case "attempt":
			e.Attempt = int(d.integer(n, 0, math.MaxInt32))
		case "max_attempts":
			e.MaxAttempts = int(d.integer(n, 0, math.MaxInt32))
		case "worker_id":
			e.WorkerID = d.str(n, CheckWorkerID)
		case "checkpoint":
			e.Checkpoint = d.checkpoint(n)
		case "not_before":
			e.NotBefore = d.instant(n)
		case "visibility":
			e.Visibility = Visibility(d.str(n, checkVisibility))
		case "payload":
			e.Payload = d.raw(n)
		}
	}
	d.require(0, "run_id", "seq", "type", "time", "agent_key", "status", "epoch", "attempt", "max_attempts", "visibility")
	if e.Payload == nil {
		d.faultIn(0, "payload", "is required")
	}
}

func (d *document) checkpoint(n int32) *CheckpointRef {
	if !d.given(n, kindObject) {
		return nil
	}
	var ref CheckpointRef
	for c := d.first(n); c > 0; c = d.nodes[c].next {
		switch string(d.key(c)) {
		case "n":
			ref.N = d.integer(c, 1, math.MaxUint64)
		case "epoch":
			ref.Epoch = d.integer(c, 1, math.MaxUint64)
		case "revision":
			ref.Revision = d.integer(c, 1, math.MaxUint64)
		}
	}
	d.require(n, "n", "epoch", "revision")
	return &ref
}

// require notes every field that the object n lacks, or has as null.
func (d *document) require(n int32, fields ...string) {
next:
	for _, field := range fields {
		for c := d.first(n); c > 0; c = d.nodes[c].next {
			if d.nodes[c].kind != kindNull && string(d.key(c)) == field {
				continue next
			}
		}
		d.faultIn(n, field, "is required")
	}
}
