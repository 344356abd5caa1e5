package check

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"longhaul/test/torture/history"
)

// event is one event of the log, as docs/protocol.md describes it.
type event struct {
	RunID       string          `json:"run_id"`
	Seq         uint64          `json:"seq"`
	Type        string          `json:"type"`
	Time        time.Time       `json:"time"`
	AgentKey    string          `json:"agent_key"`
	Priority    string          `json:"priority"`
	Status      string          `json:"status"`
	Epoch       uint64          `json:"epoch"`
	Attempt     int             `json:"attempt"`
	MaxAttempts int             `json:"max_attempts"`
	WorkerID    string          `json:"worker_id"`
	Checkpoint  *checkpoint     `json:"checkpoint"`
	NotBefore   time.Time       `json:"not_before"`
	WaitsFor    string          `json:"waits_for"`
	Payload     json.RawMessage `json:"payload"`

	sequence uint64    // in the stream
	stored   time.Time // by the broker's clock
	body     body
}

// checkpoint names a committed one.
type checkpoint struct {
	N        uint64 `json:"n"`
	Epoch    uint64 `json:"epoch"`
	Revision uint64 `json:"revision"`
}

func (c *checkpoint) String() string {
	if c == nil {
		return "none"
	}
	return fmt.Sprintf("%d of epoch %d at revision %d", c.N, c.Epoch, c.Revision)
}

func (c *checkpoint) equal(d *checkpoint) bool {
	return (c == nil) == (d == nil) && (c == nil || *c == *d)
}

// body is what the checker reads of payloads, of all types in one.
type body struct {
	Reason      string          `json:"reason"`       // run.requeued
	FromStart   bool            `json:"from_start"`   // run.requeued
	CommandID   string          `json:"command_id"`   // run.requeued, run.signalled
	Kind        string          `json:"type"`         // run.failed
	ResumedFrom *checkpoint     `json:"resumed_from"` // run.started
	LeaseToken  string          `json:"lease_token"`  // run.started
	RetryAt     time.Time       `json:"retry_at"`     // run.retrying
	WakeAt      time.Time       `json:"wake_at"`      // run.sleeping
	Signal      string          `json:"signal"`       // run.sleeping
	Name        string          `json:"name"`         // step.completed, run.signalled
	StampedHere *history.Stamp  `json:"stamp"`        // an agent's own
	State       json.RawMessage `json:"state"`        // state.checkpoint
	FinalOutput json.RawMessage `json:"final_output"` // run.succeeded
	// What was said, as messages.
	FinalMessages json.RawMessage `json:"final_messages"` // run.succeeded
	History       json.RawMessage `json:"history"`        // run.started
	Follows       string          `json:"follows"`        // run.queued
	Errors        []fieldFault    `json:"errors"`         // run.rejected
	Submission    struct {
		ConversationID string            `json:"conversation_id"`
		OnConflict     string            `json:"on_conflict"`
		IdempotencyKey string            `json:"idempotency_key"`
		NotBefore      time.Time         `json:"not_before"`
		Metadata       map[string]string `json:"metadata"`
	} `json:"submission"` // run.queued, run.scheduled
}

// fieldFault is one fault of a submission.
type fieldFault struct {
	Field string `json:"field"`
}

// The events and statuses that rules speak of.
const (
	queued          = "run.queued"
	scheduled       = "run.scheduled"
	rejected        = "run.rejected"
	started         = "run.started"
	heartbeat       = "run.heartbeat"
	retrying        = "run.retrying"
	requeued        = "run.requeued"
	cancelRequested = "run.cancel_requested"
	succeeded       = "run.succeeded"
	failed          = "run.failed"
	timedOut        = "run.timed_out"
	cancelled       = "run.cancelled"
	sleeping        = "run.sleeping"
	signalled       = "run.signalled"
	checkpointed    = "state.checkpoint"
	stepCompleted   = "step.completed"

	reasonShutdown = "shutdown"
	reasonRedrive  = "redrive"
	reasonWorkLost = "work_lost"
)

func terminal(eventType string) bool {
	switch eventType {
	case succeeded, failed, timedOut, cancelled, rejected:
		return true
	}
	return false
}

func held(status string) bool { return status == "running" || status == "cancelling" }

// redrivable: by a redrive of a run that stands so, a new round begins.
func redrivable(status string) bool {
	return status == "failed" || status == "timed_out" || status == "cancelled"
}

// decode reads one stored event.
func decode(m Message) (event, error) {
	e := event{sequence: m.Seq, stored: m.Time}
	if err := json.Unmarshal(m.Data, &e); err != nil {
		return e, fmt.Errorf("message %d on %s is no event: %w", m.Seq, m.Subject, err)
	}
	// An agent's own payload may be of any shape; ours have the one above.
	if err := json.Unmarshal(e.Payload, &e.body); err != nil && strings.HasPrefix(e.Type, "run.") {
		return e, fmt.Errorf("payload of message %d on %s, %s: %w", m.Seq, m.Subject, e.Type, err)
	}
	if e.RunID != runOf(m.Subject) {
		return e, fmt.Errorf("message %d on %s is an event of run %q", m.Seq, m.Subject, e.RunID)
	}
	return e, nil
}

// stamp is who wrote the event, if an agent of the torture test did.
func (e event) stamp() *history.Stamp {
	var in history.Stamped
	switch e.Type {
	case checkpointed:
		_ = json.Unmarshal(e.body.State, &in) // absent, if it is large
	case succeeded:
		_ = json.Unmarshal(e.body.FinalOutput, &in) // of any shape
	default:
		return e.body.StampedHere
	}
	return in.Stamp
}

// runOf is the run that a subject of the log, the work, the schedules or the
// inbox belongs to, "" if none.
func runOf(subject string) string {
	t := strings.Split(subject, ".")
	switch {
	case len(t) == 3 && t[0] == "runs":
		return t[1]
	case len(t) >= 4 && t[0] == "runs" && (t[1] == "work" || t[1] == "schedule"):
		return t[len(t)-1]
	}
	return ""
}
