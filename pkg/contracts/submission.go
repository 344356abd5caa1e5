package contracts

import (
	"encoding/json"
	"time"
)

// Submission asks for a run. Only AgentKey is required.
type Submission struct {
	RunID          string            `json:"run_id,omitempty"`
	IdempotencyKey string            `json:"idempotency_key,omitempty"`
	AgentKey       string            `json:"agent_key"`
	Input          Input             `json:"input,omitzero"`
	ConversationID string            `json:"conversation_id,omitempty"`
	OnConflict     OnConflict        `json:"on_conflict,omitempty"` // default enqueue
	Metadata       map[string]string `json:"metadata,omitempty"`
	Priority       Priority          `json:"priority,omitempty"`        // default normal
	TimeoutSeconds float64           `json:"timeout_seconds,omitempty"` // of one attempt; default 300
	MaxAttempts    int               `json:"max_attempts,omitempty"`    // default 3
	NotBefore      time.Time         `json:"not_before,omitzero"`
	// StartTimeoutSeconds is how long the run may wait for its first attempt to
	// begin; default for ever.
	StartTimeoutSeconds float64 `json:"start_timeout_seconds,omitempty"`
	// Traceparent is what the run's spans are a part of, as W3C Trace Context has
	// it; what is none is passed over. The message's header of that name wins.
	Traceparent string `json:"traceparent,omitempty"`
	// Tracestate is what tracing systems on the way have noted there, and goes
	// with Traceparent; it comes from where that comes from.
	Tracestate string `json:"tracestate,omitempty"`
}

// OnConflict says what becomes of a run whose conversation has others that have
// not ended.
type OnConflict string

// What can become of it.
const (
	OnConflictEnqueue   OnConflict = "enqueue"   // it waits for them
	OnConflictReject    OnConflict = "reject"    // it is rejected
	OnConflictInterrupt OnConflict = "interrupt" // they are cancelled, and it waits for their end
)

// StartBy returns the time by which the run's first attempt has to have begun,
// zero if there is none. It counts from queued, the run's run.queued event; that
// of a delayed run may come late, and its time is what the submission says.
// A redrive is not bound by it: who asks for one knows how old the run is.
func (s Submission) StartBy(queued Event) time.Time {
	if s.StartTimeoutSeconds == 0 {
		return time.Time{}
	}
	from := queued.Time
	if queued.Seq > 1 {
		from = s.NotBefore
	}
	return from.Add(time.Duration(s.StartTimeoutSeconds * float64(time.Second)))
}

// Input is what the agent works on.
type Input struct {
	Messages []Message       `json:"messages,omitempty"`
	Params   json.RawMessage `json:"params,omitempty"` // an object
}

// IsZero reports whether there is no input, for omitzero.
func (in Input) IsZero() bool { return len(in.Messages) == 0 && len(in.Params) == 0 }

// Limits of a submission. They keep a run.queued event, which repeats the
// submission, below the broker's default message limit of 1 MiB.
const (
	MaxSubmission      = 512 << 10 // bytes
	MaxDepth           = 64        // nesting of objects and arrays
	MaxMessages        = 10_000
	MaxMetadata        = 64   // entries
	MaxMetadataKey     = 128  // bytes
	MaxMetadataValue   = 1024 // bytes
	MaxIdempotencyKey  = 256  // bytes
	MaxConversationID  = 128  // bytes
	MaxTraceparent     = 55   // bytes
	MaxTracestate      = 512  // bytes, which W3C Trace Context asks for at least
	MaxTimeoutSeconds  = 30 * 24 * 3600
	MaxMaxAttempts     = 100
	DefaultTimeout     = 300 // seconds
	DefaultMaxAttempts = 3
	// MaxFaults bounds the list of faults of one message; one more says how many were left out.
	MaxFaults = 50
)
