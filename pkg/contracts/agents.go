package contracts

import (
	"encoding/json"
	"time"
)

// AgentRecord is the entry of an agent in bucket agents: what the workers that
// host it have registered. It stays when they stop.
type AgentRecord struct {
	AgentKey    string          `json:"agent_key"`
	Description string          `json:"description,omitempty"`
	InputSchema json.RawMessage `json:"input_schema,omitempty"` // JSON Schema of input.params
	// TimeoutSeconds and MaxAttempts stand in for what a submission leaves out.
	TimeoutSeconds float64   `json:"timeout_seconds,omitempty"`
	MaxAttempts    int       `json:"max_attempts,omitempty"`
	RegisteredAt   time.Time `json:"registered_at"`
	RegisteredBy   string    `json:"registered_by"` // worker id
}
