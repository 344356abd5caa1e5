package contracts

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// ErrTransition is in every error of Apply and Next that says: this event does
// not follow that head.
var ErrTransition = errors.New("event does not follow the head")

// Draft is what an appender decides about an event; Next adds what follows
// from the head.
type Draft struct {
	Type       EventType
	Visibility Visibility // empty: internal for heartbeats and checkpoints, else user
	Payload    any        // marshalled, a json.RawMessage taken as it is; nil is {}

	// For the first event of a log.
	AgentKey    string
	Priority    Priority
	MaxAttempts int

	WorkerID   string         // run.started: the new holder
	Checkpoint *CheckpointRef // state.checkpoint: the one just written
	NotBefore  time.Time      // run.scheduled, run.retrying, run.sleeping: the earliest start
	WaitsFor   string         // run.sleeping: the signal that ends it; run.signalled: as before, or "" if this was it
	Usage      Usage          // of a held run: all that it has spent, zero if nothing was added
	FromStart  bool           // run.requeued of a redrive: forget the checkpoint
}

// Next returns the event that d makes on top of head at the time now. The
// result always satisfies Apply(head, result).
func Next(head Head, runID string, d Draft, now time.Time) (Event, error) {
	to, _ := transition(head.Status, d.Type) // if it is none, Apply says so
	// Round strips the monotonic clock: the event is to equal its own decoding.
	e := Event{RunID: runID, Seq: head.Seq + 1, Type: d.Type, Time: now.UTC().Round(0), Visibility: d.Visibility, Position: Position{
		AgentKey: d.AgentKey, Priority: d.Priority, Status: to, MaxAttempts: d.MaxAttempts,
		WorkerID: d.WorkerID, Checkpoint: d.Checkpoint, NotBefore: d.NotBefore.UTC().Round(0), WaitsFor: d.WaitsFor, Usage: d.Usage,
	}}
	if d.Usage == (Usage{}) {
		e.Usage = head.Usage
	}
	if d.Type == TypeRequeued {
		if e.Checkpoint = head.Checkpoint; d.FromStart {
			e.Checkpoint = nil
		}
	}
	e.Position = follow(&head, &e)
	if e.Visibility == "" {
		e.Visibility = VisibilityUser
		if d.Type == TypeHeartbeat || d.Type == TypeCheckpoint {
			e.Visibility = VisibilityInternal
		}
	}
	var err error
	if e.Payload, err = marshalPayload(d.Payload); err != nil {
		return Event{}, fmt.Errorf("encode the payload of %s: %w", d.Type, err)
	}
	if _, err := Apply(head, e); err != nil {
		return Event{}, err
	}
	return e, nil
}

// Apply folds e into head: it returns the head of the log with e appended, or
// head as it was and an error that wraps ErrTransition if e may not follow. It is the only judge
// of what may stand in a log, and depends on nothing but its arguments.
func Apply(head Head, e Event) (Head, error) {
	to, ok := transition(head.Status, e.Type)
	switch {
	case !ok:
		return head, fmt.Errorf("%w: %s after status %q", ErrTransition, e.Type, head.Status)
	case e.Status != to:
		return head, fmt.Errorf("%w: %s after %q leads to %q, not %q", ErrTransition, e.Type, head.Status, to, e.Status)
	case e.Seq != head.Seq+1:
		return head, fmt.Errorf("%w: seq %d after %d", ErrTransition, e.Seq, head.Seq)
	case head.Seq > 0 && e.RunID != head.RunID:
		return head, fmt.Errorf("%w: run %s after run %s", ErrTransition, e.RunID, head.RunID)
	}
	if want := follow(&head, &e); !samePosition(&want, &e.Position) {
		return head, fmt.Errorf("%w: %s carries %+v, expected %+v", ErrTransition, e.Type, e.Position, want)
	}
	if fault := misfit(&head, &e); fault != "" {
		return head, fmt.Errorf("%w: %s %s", ErrTransition, e.Type, fault)
	}
	return e.Head(), nil
}

// follow returns the position that an event of e's type must carry after head.
// What the appender may choose it takes from e, and misfit judges it.
func follow(head *Head, e *Event) Position {
	p := head.Position
	p.Status = e.Status
	p.NotBefore, p.WaitsFor = time.Time{}, ""
	if head.Status == StatusNone {
		p.AgentKey, p.Priority, p.MaxAttempts = e.AgentKey, e.Priority, e.MaxAttempts
	}
	if head.Status.Held() {
		p.Usage = e.Usage
	}
	switch e.Type {
	case TypeScheduled, TypeRetrying:
		p.NotBefore, p.WorkerID = e.NotBefore, ""
	case TypeSleeping: // not charged: it goes on as the same attempt
		p.NotBefore, p.WaitsFor, p.WorkerID, p.Attempt = e.NotBefore, e.WaitsFor, "", p.Attempt-1
	case TypeSignalled: // it waits as it did before, unless it was for this
		if e.WaitsFor == head.WaitsFor {
			p.NotBefore, p.WaitsFor = head.NotBefore, head.WaitsFor
		}
	case TypeStarted:
		p.Epoch, p.Attempt, p.WorkerID = p.Epoch+1, p.Attempt+1, e.WorkerID
	case TypeRequeued:
		p.WorkerID = ""
		switch {
		case head.Status.Held():
			p.Attempt--
		case !head.Status.Terminal(): // it waits as it did before
			p.NotBefore, p.WaitsFor = head.NotBefore, head.WaitsFor
		default:
			p.Attempt = 0
			if e.Checkpoint == nil {
				p.Checkpoint = nil
			}
		}
	case TypeCheckpoint:
		p.Checkpoint = e.Checkpoint
	}
	return p
}

// misfit says what is wrong with what the appender was free to choose, "" if nothing.
func misfit(head *Head, e *Event) string {
	switch c := e.Checkpoint; {
	case !e.Type.Reserved() && !e.Type.Valid(): // of the engine's the table has them all
		return "is no event type"
	case !e.Visibility.Valid():
		return "has the visibility " + quote(string(e.Visibility))
	case head.Status == StatusNone:
		return misfitFirst(e)
	case !e.Usage.covers(head.Usage):
		return "has spent less than there was"
	case e.Type == TypeStarted && CheckWorkerID(e.WorkerID) != nil:
		return "names no worker"
	case e.Type == TypeStarted && e.Attempt > e.MaxAttempts:
		return fmt.Sprintf("is attempt %d of %d", e.Attempt, e.MaxAttempts)
	case (e.Type == TypeStarted || e.Type == TypeQueued) && e.Time.Before(head.NotBefore):
		return "comes before its time"
	case e.Type == TypeTimedOut && head.Status == StatusPending && head.Epoch > 0:
		return "comes between two attempts"
	case e.Type == TypeSignalled && head.Epoch == 0:
		return "comes before the first attempt"
	case (e.Type == TypeSleeping || e.Type == TypeRetrying) && e.NotBefore.IsZero():
		return "says no time"
	case e.Type == TypeRetrying && e.Attempt >= e.MaxAttempts:
		return fmt.Sprintf("follows the last attempt, %d of %d", e.Attempt, e.MaxAttempts)
	case e.Type == TypeCheckpoint && (c == nil || c.N == 0 || c.Epoch != e.Epoch || c.Revision == 0 ||
		head.Checkpoint != nil && c.N <= head.Checkpoint.N):
		return "names no new checkpoint of its epoch"
	}
	return ""
}

// misfitFirst is misfit for the first event of a log. Of a rejected run less is
// known, but what it says is no less sound: subjects are built from it.
func misfitFirst(e *Event) string {
	rejected := e.Type == TypeRejected
	switch {
	case CheckRunID(e.RunID) != nil:
		return "names no run"
	case CheckAgentKey(e.AgentKey) != nil && (!rejected || e.AgentKey != ""):
		return "names no agent"
	case !e.Priority.Valid() && (!rejected || e.Priority != ""):
		return "has the priority " + quote(string(e.Priority))
	case e.MaxAttempts < 0 || e.MaxAttempts == 0 && !rejected:
		return "has no max_attempts"
	case e.Type == TypeScheduled && e.NotBefore.IsZero():
		return "says no time"
	}
	return ""
}

func samePosition(a, b *Position) bool {
	if (a.Checkpoint == nil) != (b.Checkpoint == nil) || a.Checkpoint != nil && *a.Checkpoint != *b.Checkpoint ||
		!a.NotBefore.Equal(b.NotBefore) {
		return false
	}
	c := *b
	c.Checkpoint, c.NotBefore = a.Checkpoint, a.NotBefore
	return *a == c
}

func marshalPayload(v any) (json.RawMessage, error) {
	raw, ok := v.(json.RawMessage)
	switch {
	case v == nil, ok && len(raw) == 0:
		return json.RawMessage("{}"), nil
	case ok && !utf8.Valid(raw): // all else that JSON forbids is found by Encode
		return nil, errors.New("it is not UTF-8")
	case ok:
		return raw, nil
	}
	return Encode(v)
}
