package contracts

import (
	"cmp"
	"encoding/json"
	"time"
)

// Queued is the payload of run.queued: the submission as accepted, with every
// default filled in. The work message repeats the whole event.
type Queued struct {
	Submission Submission `json:"submission"`
	// SubmittedAt is when the broker stored the submission.
	SubmittedAt time.Time `json:"submitted_at,omitzero"`
	// Follows is the run before it in its conversation, which has to end first.
	Follows string `json:"follows,omitempty"`
}

// Scheduled is the payload of run.scheduled.
type Scheduled struct {
	NotBefore   time.Time  `json:"not_before"`
	Submission  Submission `json:"submission"`
	SubmittedAt time.Time  `json:"submitted_at,omitzero"`
}

// Rejected is the payload of run.rejected.
type Rejected struct {
	Errors      Faults    `json:"errors"`
	SubmittedAt time.Time `json:"submitted_at,omitzero"`
}

// Started is the payload of run.started.
type Started struct {
	AgentKey string `json:"agent_key"`
	Epoch    uint64 `json:"epoch"`
	Attempt  int    `json:"attempt"`
	// ResumedFrom is the checkpoint that this attempt begins from, if any.
	ResumedFrom *CheckpointRef `json:"resumed_from,omitempty"`
	// LeaseToken is the ack subject of the work message: whoever may publish
	// to it can give the lease back for a worker that died.
	LeaseToken string `json:"lease_token,omitempty"`
	// History is, of a run's first start, what was said in its conversation before it.
	History []Message `json:"history,omitempty"`
}

// Heartbeat is the payload of run.heartbeat.
type Heartbeat struct {
	Timestamp time.Time `json:"timestamp"`
}

// Checkpointed is the payload of state.checkpoint.
type Checkpointed struct {
	N    uint64 `json:"n"`
	Size int    `json:"size"` // bytes of the stored state
	// State is the state itself, or Binary if it is no JSON, if it is no larger
	// than MaxInlineState.
	State  json.RawMessage `json:"state,omitempty"`
	Binary []byte          `json:"binary,omitempty"`
}

// State is what a checkpoint keeps, as it is stored: JSON or, if Binary, bytes
// that mean something to the agent alone. Its entry then has the header
// HeaderContentType with the value ContentTypeBinary.
type State struct {
	Data   []byte
	Binary bool
}

// MaxInlineState is the size, in bytes, up to which a checkpoint's state is
// repeated in its event.
const MaxInlineState = 4 << 10

// StepCompleted is the payload of step.completed: what a durable step came to.
type StepCompleted struct {
	Name   string          `json:"name"`           // one step's in a run, or until a redrive from the start
	Type   string          `json:"type,omitempty"` // of the result in the agent's language, for people
	Result json.RawMessage `json:"result"`
}

// Sleeping is the payload of run.sleeping.
type Sleeping struct {
	Name   string    `json:"name"`
	WakeAt time.Time `json:"wake_at"`
	// Signal is what the run waits for until then: the signal's name, AnySignal
	// for one of several, "" if it merely sleeps.
	Signal string `json:"signal,omitempty"`
}

// Join returns the sleep of a run that sleeps for both reasons: until the
// earlier time, and for the signal of each. The zero Sleeping is no sleep.
func (s Sleeping) Join(t Sleeping) Sleeping {
	signal := cmp.Or(s.Signal, t.Signal)
	if s.Signal != "" && t.Signal != "" && s.Signal != t.Signal {
		signal = AnySignal
	}
	if s.WakeAt.IsZero() || t.WakeAt.Before(s.WakeAt) {
		s = t
	}
	s.Signal = signal
	return s
}

// AnySignal stands in place of a signal's name for a run that waits for several.
const AnySignal = "*"

// Signalled is the payload of run.signalled.
type Signalled struct {
	Name    string          `json:"name"`
	Payload json.RawMessage `json:"payload,omitempty"`
	By      string          `json:"by,omitempty"`
	// CommandID is the command that brought it, as in Requeued.
	CommandID string `json:"command_id,omitempty"`
}

// Draft is the event on top of head: if the run waits for this signal, it goes on.
func (s Signalled) Draft(head Head) Draft {
	d := Draft{Type: TypeSignalled, WaitsFor: head.WaitsFor, Payload: s}
	if head.WaitsFor == s.Name || head.WaitsFor == AnySignal {
		d.WaitsFor = ""
	}
	return d
}

// ToolConfirm is the payload of tool.confirm: a call that waits for somebody's
// word, a signal whose payload is a Confirmation.
type ToolConfirm struct {
	Call     ToolCall  `json:"call"`
	Signal   string    `json:"signal"` // its name
	Deadline time.Time `json:"deadline"`
	// Otherwise is what becomes of the call if nobody says anything by then: refuse or confirm.
	Otherwise string `json:"otherwise"`
}

// ConfirmSignal is the name of the signal that answers for the call of an id.
func ConfirmSignal(callID string) string { return "confirm:" + callID }

// Confirmation is the payload of the signal that answers a ToolConfirm.
type Confirmation struct {
	Confirmed bool   `json:"confirmed"`
	Reason    string `json:"reason,omitempty"`
}

// Delta is the payload of assistant.delta.
type Delta struct {
	Text string `json:"text"`
}

// ErrorInfo describes a failed attempt (ORIGIN "error"). It is the payload of
// run.failed, and stands in that of run.retrying.
type ErrorInfo struct {
	Type      string `json:"type"`
	Message   string `json:"message"`
	Stack     string `json:"stack,omitempty"`
	Retriable bool   `json:"retriable"`
	// RetryAfterSeconds is how long to wait at least before another attempt, as
	// somebody says who must know: a day at most is heeded, also beyond the
	// worker's own longest delay.
	RetryAfterSeconds float64         `json:"retry_after_seconds,omitempty"`
	Details           json.RawMessage `json:"details,omitempty"`
}

// Error types that the engine itself gives.
const (
	ErrorTypeAgent             = "AgentError"        // an agent's error with no better name
	ErrorTypePanic             = "Panic"             // the agent panicked
	ErrorTypeAttemptsExhausted = "AttemptsExhausted" // workers died, or were lost, as often as max_attempts
	ErrorTypeResultTooLarge    = "ResultTooLarge"    // what the agent returned does not fit into an event
	ErrorTypeCheckpointLost    = "CheckpointLost"    // the state to resume from has been deleted
)

// Failed is the payload of run.failed.
type Failed struct {
	ErrorInfo
	Attempts int `json:"attempts"` // charged in this round
}

// Retrying is the payload of run.retrying.
type Retrying struct {
	Error        ErrorInfo `json:"error"`
	DelaySeconds float64   `json:"delay_seconds"`
	RetryAt      time.Time `json:"retry_at"`
}

// Requeued is the payload of run.requeued.
type Requeued struct {
	Reason string `json:"reason"` // one of the Requeue constants
	By     string `json:"by,omitempty"`
	// FromStart says that a redrive begins without its checkpoint.
	FromStart bool `json:"from_start,omitempty"`
	// CommandID is the command that a redrive carries out: made of where and when
	// it was stored, so that one that is delivered again finds its round begun.
	CommandID string `json:"command_id,omitempty"`
	// Follows is as in Queued, for a run that was cancelled before its time and
	// redriven: it has no run.queued.
	Follows string `json:"follows,omitempty"`
}

// The reasons of run.requeued.
const (
	RequeueShutdown = "shutdown" // the worker drained
	RequeueRedrive  = "redrive"  // somebody asked for a new round
	// RequeueWorkLost says that its work message had gone. It is, too, the body
	// by which statekeeper asks a dispatcher to look, on ScheduleDueSubject.
	RequeueWorkLost = "work_lost"
)

// CancelRequested is the payload of run.cancel_requested.
type CancelRequested CancelCommand

// Cancelled is the payload of run.cancelled.
type Cancelled CancelCommand

// TimedOut is the payload of run.timed_out.
type TimedOut struct {
	TimeoutSeconds float64 `json:"timeout_seconds"`
	// StartTimeoutSeconds is given if it is this that was over: no attempt was begun.
	StartTimeoutSeconds float64 `json:"start_timeout_seconds,omitempty"`
}

// Succeeded is the payload of run.succeeded: what the agent returned.
type Succeeded struct {
	FinalOutput   json.RawMessage   `json:"final_output,omitempty"`
	FinalMessages []Message         `json:"final_messages,omitempty"`
	Usage         json.RawMessage   `json:"usage,omitempty"`
	Artifacts     []json.RawMessage `json:"artifacts,omitempty"`
}
