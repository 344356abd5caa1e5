package contracts

import (
	"encoding/json"
	"strings"
	"time"
)

// EventType names what an event says. run.*, state.* and step.* are the engine's; any
// other dotted type is the agent's own.
type EventType string

// The event types of DESIGN "Event". A payload type of the same name stands in payload.go.
const (
	TypeQueued          EventType = "run.queued"
	TypeScheduled       EventType = "run.scheduled"
	TypeRejected        EventType = "run.rejected"
	TypeStarted         EventType = "run.started"
	TypeHeartbeat       EventType = "run.heartbeat"
	TypeRetrying        EventType = "run.retrying"
	TypeRequeued        EventType = "run.requeued"
	TypeCancelRequested EventType = "run.cancel_requested"
	TypeSucceeded       EventType = "run.succeeded"
	TypeFailed          EventType = "run.failed"
	TypeTimedOut        EventType = "run.timed_out"
	TypeCancelled       EventType = "run.cancelled"
	TypeSleeping        EventType = "run.sleeping"
	TypeSignalled       EventType = "run.signalled"
	TypeCheckpoint      EventType = "state.checkpoint"
	TypeStepCompleted   EventType = "step.completed"

	TypeDelta      EventType = "assistant.delta"
	TypeMessage    EventType = "assistant.message"
	TypeToolCall   EventType = "tool.call"
	TypeToolResult EventType = "tool.result"
	// TypeToolConfirm asks a person whether a call may be made.
	TypeToolConfirm EventType = "tool.confirm"
	TypeError       EventType = "error"

	typeAny EventType = "*"
)

// maxEventType bounds the length of a type, in bytes.
const maxEventType = 128

// Reserved reports whether t is the engine's: an agent that emits it gets an error.
func (t EventType) Reserved() bool {
	return strings.HasPrefix(string(t), "run.") || strings.HasPrefix(string(t), "state.") || strings.HasPrefix(string(t), "step.")
}

// Valid reports whether t has the form of an event type: dotted words of a-z,
// 0-9, _ and -, each beginning with a letter or digit, the first with a letter.
func (t EventType) Valid() bool {
	for word := range strings.SplitSeq(string(t), ".") {
		if !isWord(word, maxEventType, "_-") {
			return false
		}
	}
	return len(t) <= maxEventType && t[0] >= 'a' && string(t) == strings.ToLower(string(t))
}

// Terminal reports whether an event of type t ends a round.
func (t EventType) Terminal() bool {
	return t == TypeSucceeded || t == TypeFailed || t == TypeTimedOut || t == TypeCancelled || t == TypeRejected
}

// Visibility says whom an event is meant for.
type Visibility string

// The visibilities. User is for whoever submitted the run, debug for its
// developers, internal for the engine.
const (
	VisibilityInternal Visibility = "internal"
	VisibilityDebug    Visibility = "debug"
	VisibilityUser     Visibility = "user"
)

// Valid reports whether v is one of the three.
func (v Visibility) Valid() bool {
	return v == VisibilityInternal || v == VisibilityDebug || v == VisibilityUser
}

// Priority orders the work of an agent.
type Priority string

// The priorities.
const (
	PriorityHigh   Priority = "high"
	PriorityNormal Priority = "normal"
	PriorityLow    Priority = "low"
)

// Priorities lists them, the most urgent first.
func Priorities() []Priority { return []Priority{PriorityHigh, PriorityNormal, PriorityLow} }

// Valid reports whether p is one of Priorities.
func (p Priority) Valid() bool { return p == PriorityHigh || p == PriorityNormal || p == PriorityLow }

// CheckpointRef names one committed checkpoint.
type CheckpointRef struct {
	N        uint64 `json:"n"`        // 1, 2, 3 … over the whole run; anew after a redrive from the start
	Epoch    uint64 `json:"epoch"`    // the epoch that wrote it; part of its key
	Revision uint64 `json:"revision"` // of its entry in bucket runs
}

// Position is what every event carries of the run's state (DESIGN "The last
// event is the head"): with the last one, all is known that is needed to go on.
type Position struct {
	AgentKey string   `json:"agent_key"`
	Priority Priority `json:"priority,omitempty"`
	Status   Status   `json:"status"`
	// Epoch counts every run.started of the run; it never falls or repeats.
	Epoch uint64 `json:"epoch"`
	// Attempt counts the starts that are charged against MaxAttempts.
	Attempt     int `json:"attempt"`
	MaxAttempts int `json:"max_attempts"`
	// WorkerID is who holds the run, and in a terminal event who held it last.
	WorkerID   string         `json:"worker_id,omitempty"`
	Checkpoint *CheckpointRef `json:"checkpoint,omitempty"`
	// NotBefore is the earliest time of the next start: of a scheduled run its
	// not_before, of a run in backoff its retry_at, of one that sleeps its
	// wake_at, of one that waits for a signal its deadline; else zero.
	NotBefore time.Time `json:"not_before,omitzero"`
	// WaitsFor is the signal that ends the wait for NotBefore: its name, or
	// AnySignal if it is one of several; "" if none does.
	WaitsFor string `json:"waits_for,omitempty"`
	// Usage is what the run has spent up to this event, as its agent says. It never falls.
	Usage Usage `json:"usage,omitzero"`
}

// Usage is what a run has spent over all of its attempts and rounds.
type Usage struct {
	InputTokens  uint64  `json:"input_tokens"`
	OutputTokens uint64  `json:"output_tokens"`
	Cost         float64 `json:"cost"` // in the currency of whoever reports it
}

// Add returns the sum of u and v.
func (u Usage) Add(v Usage) Usage {
	return Usage{u.InputTokens + v.InputTokens, u.OutputTokens + v.OutputTokens, u.Cost + v.Cost}
}

// covers reports whether u is no less than v in any respect.
func (u Usage) covers(v Usage) bool {
	return u.InputTokens >= v.InputTokens && u.OutputTokens >= v.OutputTokens && u.Cost >= v.Cost
}

// Event is one entry of a run's log.
type Event struct {
	RunID string    `json:"run_id"`
	Seq   uint64    `json:"seq"` // 1, 2, 3 … without a gap
	Type  EventType `json:"type"`
	Time  time.Time `json:"time"` // by the appender's clock, UTC
	Position
	Visibility Visibility      `json:"visibility"`
	Payload    json.RawMessage `json:"payload"`
}

// Head is a run's position and the number of the event that carries it. The
// zero Head is that of an empty log.
type Head struct {
	RunID string
	Seq   uint64
	Position
}

// Head returns the head of a log that ends with e.
func (e Event) Head() Head { return Head{RunID: e.RunID, Seq: e.Seq, Position: e.Position} }
