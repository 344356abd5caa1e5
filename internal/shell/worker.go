package shell

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/agent"
	"longhaul/services/worker"
)

// Worker are the flags with the settings of a worker.
type Worker struct {
	WorkerID    string         `name:"worker-id" placeholder:"ID" help:"The worker's name among all (default: a fresh one at every start)."`
	Concurrency int            `default:"10" placeholder:"N" help:"Runs that are executed at once (default ${default})."`
	AgentLimits map[string]int `name:"agent-concurrency" placeholder:"AGENT=N" help:"Runs of one agent that are executed at once, if fewer; may be repeated."`

	RunTimeoutSeconds             float64 `default:"300" placeholder:"S" help:"Time for an attempt of a run that names none (default ${default})."`
	MaxAttempts                   int     `default:"3" placeholder:"N" help:"Attempts in all of a run that names none (default ${default})."`
	LeaseTTLSeconds               float64 `name:"lease-ttl-seconds" default:"30" placeholder:"S" help:"How long a run stays with a worker that gives no sign of life (default ${default}). Holds for agents that are registered for the first time."`
	HeartbeatIntervalSeconds      float64 `placeholder:"S" help:"How often the lease is extended (default: a third of it)."`
	HeartbeatEventIntervalSeconds float64 `default:"30" placeholder:"S" help:"How often a run.heartbeat event is written (default ${default})."`
	RetryBackoffBase              float64 `default:"2" placeholder:"S" help:"The delay after attempt n is the n-th power of this (default ${default}), at most --retry-backoff-max."`
	RetryBackoffMax               float64 `default:"300" placeholder:"S" help:"Longest delay before a retry (default ${default})."`
	HistoryLimit                  int     `default:"200" placeholder:"N" help:"Messages of its conversation, the newest ones, that a run begins with (default ${default})."`
	DrainTimeoutSeconds           float64 `default:"30" placeholder:"S" help:"How long runs may go on after the first signal (default ${default}). What has not ended by then goes on elsewhere."`
	CancelGraceSeconds            float64 `default:"10" placeholder:"S" help:"How long an agent may take to end when its run is cancelled or its time is up (default ${default})."`
}

// Check reports all that is wrong with what a person has said. To worker.Config
// zero stands for the default; from a person it is a mistake.
func (w Worker) Check() error {
	return errors.Join(
		Above("--concurrency", float64(w.Concurrency)), Above("--max-attempts", float64(w.MaxAttempts)),
		Above("--run-timeout-seconds", w.RunTimeoutSeconds), Above("--lease-ttl-seconds", w.LeaseTTLSeconds),
		Above("--heartbeat-event-interval-seconds", w.HeartbeatEventIntervalSeconds),
		Above("--history-limit", float64(w.HistoryLimit)), Above("--retry-backoff-base", w.RetryBackoffBase), Above("--retry-backoff-max", w.RetryBackoffMax))
}

// Above refuses what is not above 0.
func Above(flag string, value float64) error {
	if value > 0 {
		return nil
	}
	return usage("%s must be above 0, not %g", flag, value)
}

// Configure has cfg say what the flags say.
func (w Worker) Configure(cfg *worker.Config) error {
	cfg.WorkerID, cfg.Concurrency, cfg.MaxAttempts, cfg.HistoryLimit = w.WorkerID, w.Concurrency, w.MaxAttempts, w.HistoryLimit
	cfg.RunTimeout, cfg.Lease, cfg.HeartbeatEventInterval = Seconds(w.RunTimeoutSeconds), Seconds(w.LeaseTTLSeconds), Seconds(w.HeartbeatEventIntervalSeconds)
	cfg.HeartbeatInterval = Seconds(w.HeartbeatIntervalSeconds)
	if w.HeartbeatIntervalSeconds == 0 {
		cfg.HeartbeatInterval = cfg.Lease / 3
	}
	cfg.RetryBackoffBase, cfg.RetryBackoffMax = w.RetryBackoffBase, Seconds(w.RetryBackoffMax)
	cfg.DrainTimeout = max(Seconds(w.DrainTimeoutSeconds), 1) // zero stands for the default
	cfg.CancelGrace = max(Seconds(w.CancelGraceSeconds), 1)
	cfg.Agents = slices.Clone(cfg.Agents)
	for key, n := range w.AgentLimits {
		i := slices.IndexFunc(cfg.Agents, func(a agent.Agent) bool { return a.Key == key })
		if i < 0 || n < 1 {
			return usage("--agent-concurrency %s=%d: must be one of %s, and above 0", key, n, strings.Join(KeysOf(cfg.Agents), ", "))
		}
		cfg.Agents[i].Concurrency = n
	}
	return nil
}

// Stated is what cfg says in place of a flag, "" if it leaves it open.
func Stated(cfg worker.Config, flag string) string {
	switch flag {
	case "worker-id":
		return cfg.WorkerID
	case "concurrency":
		return given(cfg.Concurrency)
	case "max-attempts":
		return given(cfg.MaxAttempts)
	case "history-limit":
		return given(cfg.HistoryLimit)
	case "retry-backoff-base":
		return given(cfg.RetryBackoffBase)
	case "storage":
		if cfg.Topology.Storage == jetstream.MemoryStorage {
			return "memory"
		}
		return ""
	case "replicas":
		return given(cfg.Topology.Replicas)
	}
	return given(map[string]time.Duration{"run-timeout-seconds": cfg.RunTimeout, "lease-ttl-seconds": cfg.Lease,
		"heartbeat-interval-seconds": cfg.HeartbeatInterval, "heartbeat-event-interval-seconds": cfg.HeartbeatEventInterval,
		"retry-backoff-max": cfg.RetryBackoffMax, "drain-timeout-seconds": cfg.DrainTimeout, "cancel-grace-seconds": cfg.CancelGrace}[flag].Seconds())
}

func given[T int | float64](v T) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprint(v)
}

// Described names what a worker is configured with, for its log.
func Described(cfg worker.Config) []any {
	limits := map[string]int{}
	for _, a := range cfg.Agents {
		if a.Concurrency > 0 {
			limits[a.Key] = a.Concurrency
		}
	}
	return []any{
		"agents", KeysOf(cfg.Agents), "concurrency", cfg.Concurrency, "agent_concurrency", limits, "run_timeout", cfg.RunTimeout, "max_attempts", cfg.MaxAttempts,
		"lease", cfg.Lease, "heartbeat_interval", cfg.HeartbeatInterval, "heartbeat_event_interval", cfg.HeartbeatEventInterval,
		"retry_backoff_base", cfg.RetryBackoffBase, "retry_backoff_max", cfg.RetryBackoffMax, "history_limit", cfg.HistoryLimit,
		"drain_timeout", cfg.DrainTimeout, "cancel_grace", cfg.CancelGrace,
	}
}

// KeysOf are the agents' names.
func KeysOf(agents []agent.Agent) []string {
	keys := make([]string, 0, len(agents))
	for _, a := range agents {
		keys = append(keys, a.Key)
	}
	return keys
}

// Seconds is that many.
func Seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
