package agentfile

import (
	"encoding/json"

	"longhaul/pkg/agent/builtin/chat"
)

// The file as it is written. What is derived from these types is its schema:
// fields without omitempty or omitzero are required, others are refused.

type fileSpec struct {
	Worker Settings    `json:"worker,omitzero"`
	Tools  []toolSpec  `json:"tools,omitempty"`
	MCP    []mcpSpec   `json:"mcp,omitempty"`
	Agents []agentSpec `json:"agents"`
}

// Settings are those of the worker, named as the flags of `longhaul worker`;
// zero, or nil, is left out.
type Settings struct {
	WorkerID                      string   `json:"worker_id,omitempty"`
	Concurrency                   int      `json:"concurrency,omitempty"`
	RunTimeoutSeconds             float64  `json:"run_timeout_seconds,omitempty"`
	MaxAttempts                   int      `json:"max_attempts,omitempty"`
	LeaseTTLSeconds               float64  `json:"lease_ttl_seconds,omitempty"`
	HeartbeatIntervalSeconds      float64  `json:"heartbeat_interval_seconds,omitempty"`
	HeartbeatEventIntervalSeconds float64  `json:"heartbeat_event_interval_seconds,omitempty"`
	RetryBackoffBase              float64  `json:"retry_backoff_base,omitempty"`
	RetryBackoffMax               float64  `json:"retry_backoff_max,omitempty"`
	HistoryLimit                  int      `json:"history_limit,omitempty"`
	DrainTimeoutSeconds           *float64 `json:"drain_timeout_seconds,omitempty"`
	CancelGraceSeconds            *float64 `json:"cancel_grace_seconds,omitempty"`
}

type agentSpec struct {
	Key         string          `json:"key"`
	Description string          `json:"description,omitempty"`
	InputSchema json.RawMessage `json:"input_schema,omitempty"`
	Concurrency int             `json:"concurrency,omitempty"`

	// One of these.
	Chat  *chatSpec `json:"chat,omitempty"`
	HTTP  *httpSpec `json:"http,omitempty"`
	Exec  *execSpec `json:"exec,omitempty"`
	Echo  *struct{} `json:"echo,omitempty"`
	Count *struct{} `json:"count,omitempty"`
	Flaky *struct{} `json:"flaky,omitempty"`
}

type chatSpec struct {
	Model              string                     `json:"model"`
	Models             []string                   `json:"models,omitempty"`
	BaseURL            string                     `json:"base_url,omitempty"`
	APIKeyEnv          string                     `json:"api_key_env,omitempty"`
	APIKeyFile         string                     `json:"api_key_file,omitempty"`
	APIKeyHeader       string                     `json:"api_key_header,omitempty"`
	Headers            map[string]string          `json:"headers,omitempty"`
	System             string                     `json:"system,omitempty"`
	Tools              []string                   `json:"tools,omitempty"`
	ParallelTools      int                        `json:"parallel_tools,omitempty"`
	MaxTurns           int                        `json:"max_turns,omitempty"`
	Params             chat.Params                `json:"params,omitzero"`
	Request            map[string]json.RawMessage `json:"request,omitempty"`
	IdleTimeoutSeconds float64                    `json:"idle_timeout_seconds,omitempty"`
	Price              struct {
		Input  float64 `json:"input"`
		Output float64 `json:"output"`
	} `json:"price,omitzero"`
}

type httpSpec struct {
	URL                string            `json:"url"`
	TokenEnv           string            `json:"token_env,omitempty"`
	TokenFile          string            `json:"token_file,omitempty"`
	TokenHeader        string            `json:"token_header,omitempty"`
	Headers            map[string]string `json:"headers,omitempty"`
	TimeoutSeconds     float64           `json:"timeout_seconds,omitempty"`
	IdleTimeoutSeconds float64           `json:"idle_timeout_seconds,omitempty"`
	MaxResponseBytes   int64             `json:"max_response_bytes,omitempty"`
}

type execSpec struct {
	Command        []string          `json:"command"`
	Dir            string            `json:"dir,omitempty"`
	PassEnv        []string          `json:"pass_env,omitempty"`
	Env            map[string]string `json:"env,omitempty"`
	TimeoutSeconds float64           `json:"timeout_seconds,omitempty"`
	GraceSeconds   float64           `json:"grace_seconds,omitempty"`
	MaxOutputBytes int64             `json:"max_output_bytes,omitempty"`
	Limits         limitsSpec        `json:"limits,omitzero"`
}

type limitsSpec struct {
	CPUSeconds    float64 `json:"cpu_seconds,omitempty"`
	MemoryBytes   int64   `json:"memory_bytes,omitempty"`
	FileSizeBytes int64   `json:"file_size_bytes,omitempty"`
	OpenFiles     int     `json:"open_files,omitempty"`
}

type toolSpec struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
	Exec        execSpec        `json:"exec"`

	RequiresConfirmation bool    `json:"requires_confirmation,omitempty"`
	ConfirmWithinSeconds float64 `json:"confirm_within_seconds,omitempty"`
	Unanswered           string  `json:"unanswered,omitempty"` // refuse, or make
}

type mcpSpec struct {
	Name string `json:"name"`

	// A program, or a service.
	Command       []string              `json:"command,omitempty"`
	Dir           string                `json:"dir,omitempty"`
	PassEnv       []string              `json:"pass_env,omitempty"`
	Env           map[string]string     `json:"env,omitempty"`
	GraceSeconds  float64               `json:"grace_seconds,omitempty"`
	Limits        limitsSpec            `json:"limits,omitzero"`
	URL           string                `json:"url,omitempty"`
	TokenEnv      string                `json:"token_env,omitempty"`
	TokenFile     string                `json:"token_file,omitempty"`
	TokenHeader   string                `json:"token_header,omitempty"`
	Headers       map[string]string     `json:"headers,omitempty"`
	SecretHeaders map[string]secretSpec `json:"secret_headers,omitempty"`

	ConnectTimeoutSeconds float64 `json:"connect_timeout_seconds,omitempty"`
	ProtocolVersion       string  `json:"protocol_version,omitempty"`

	Allow                []string               `json:"allow,omitempty"`
	SideEffects          *bool                  `json:"side_effects,omitempty"`
	RequiresConfirmation *bool                  `json:"requires_confirmation,omitempty"`
	ConfirmWithinSeconds float64                `json:"confirm_within_seconds,omitempty"`
	Unanswered           string                 `json:"unanswered,omitempty"` // refuse, or make
	TimeoutSeconds       float64                `json:"timeout_seconds,omitempty"`
	Tools                map[string]mcpToolSpec `json:"tools,omitempty"`
}

// mcpToolSpec is how one tool is called, where that is not as the server's others.
type mcpToolSpec struct {
	SideEffects          *bool   `json:"side_effects,omitempty"`
	RequiresConfirmation *bool   `json:"requires_confirmation,omitempty"`
	ConfirmWithinSeconds float64 `json:"confirm_within_seconds,omitempty"`
	Unanswered           string  `json:"unanswered,omitempty"`
	TimeoutSeconds       float64 `json:"timeout_seconds,omitempty"`
}

type secretSpec struct {
	Env  string `json:"env,omitempty"`
	File string `json:"file,omitempty"`
}
