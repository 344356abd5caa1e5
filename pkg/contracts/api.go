package contracts

import (
	"encoding/json"
	"time"
)

// Endpoints of statekeeper's service, under SubjectAPI. Each takes its request
// as JSON and answers with JSON, or with a NATS micro error (headers
// Nats-Service-Error and Nats-Service-Error-Code, an HTTP status).
const (
	EndpointGet   = "get"
	EndpointList  = "list"
	EndpointStats = "stats"
	EndpointSweep = "sweep"
	EndpointLoad  = "load"
)

// ServiceName is statekeeper's name among NATS micro services.
const ServiceName = "longhaul"

// GetRequest asks for one run.
type GetRequest struct {
	RunID string `json:"run_id"`
}

// GetResponse is one run. Unlike a list it is read from the log as well, so
// that it never lags.
type GetResponse struct {
	Run StatusRecord `json:"run"`
	// Result is the payload of the terminal event, if the run has ended.
	Result json.RawMessage `json:"result,omitempty"`
}

// ListRequest asks for runs, newest first. What is left empty does not filter.
type ListRequest struct {
	Status         []Status          `json:"status,omitempty"` // any of them
	AgentKey       string            `json:"agent_key,omitempty"`
	ConversationID string            `json:"conversation_id,omitempty"`
	Metadata       map[string]string `json:"metadata,omitempty"` // all of them
	CreatedAfter   time.Time         `json:"created_after,omitzero"`
	CreatedBefore  time.Time         `json:"created_before,omitzero"`
	Limit          int               `json:"limit,omitempty"`  // default 50, at most MaxListLimit
	Cursor         string            `json:"cursor,omitempty"` // of the page before
}

// Page sizes of a list.
const (
	DefaultListLimit = 50
	MaxListLimit     = 1000
)

// ListResponse is one page.
type ListResponse struct {
	Runs []StatusRecord `json:"runs"`
	// Cursor asks for the next page; empty on the last one.
	Cursor string `json:"cursor,omitempty"`
}

// StatsResponse counts the runs that statekeeper knows.
type StatsResponse struct {
	Total    int                       `json:"total"`
	ByStatus map[Status]int            `json:"by_status"`
	ByAgent  map[string]map[Status]int `json:"by_agent"`
}

// LoadResponse says what waits and who works, at this moment. Its request is empty.
type LoadResponse struct {
	Queues  []QueueLoad    `json:"queues"`
	Workers map[string]int `json:"workers"` // runs held, by worker
}

// QueueLoad is the load of an agent's queue at one priority.
type QueueLoad struct {
	AgentKey      string   `json:"agent_key"`
	Priority      Priority `json:"priority"`
	Waiting       uint64   `json:"waiting"` // runs that no worker has been handed yet
	Held          int      `json:"held"`    // runs that a worker has, or that wait for their retry
	OldestSeconds float64  `json:"oldest_seconds"`
	Paused        bool     `json:"paused,omitempty"`
}

// SweepRequest asks statekeeper to put right now what it would in time.
type SweepRequest struct {
	DryRun bool `json:"dry_run,omitempty"` // only say what that would be
}

// SweepResponse says what was put right, or would be; of each at most MaxListLimit.
type SweepResponse struct {
	Requeued    []string `json:"requeued,omitempty"`    // live runs that had lost what they waited with
	Released    []string `json:"released,omitempty"`    // runs that a worker had been handed and did not begin
	Statuses    []string `json:"statuses,omitempty"`    // runs whose status record said something else than the log
	Checkpoints []string `json:"checkpoints,omitempty"` // keys of checkpoints that no log names
	Expired     []string `json:"expired,omitempty"`     // runs that ended longer ago than they are kept
}
