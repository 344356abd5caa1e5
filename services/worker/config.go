package worker

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/tracing"
)

// Config is a worker's configuration. Only Agents is required; the zero value
// of every other field means its default.
type Config struct {
	// WorkerID names the worker among all; default a fresh one at every start.
	WorkerID string
	// Agents are what the worker can execute.
	Agents []agent.Agent
	// Concurrency is how many runs are executed at once; default 10.
	Concurrency int

	// RunTimeout and MaxAttempts are registered with the agents and hold for
	// submissions that do not say; default 300 s and 3.
	RunTimeout  time.Duration
	MaxAttempts int
	// Lease is how long a run stays with a worker that gives no sign of life;
	// default 30 s. It is a setting of the agents' queues: the first worker of
	// an agent decides it.
	Lease time.Duration
	// HeartbeatInterval is how often leases are extended; default Lease/3.
	HeartbeatInterval time.Duration
	// HeartbeatEventInterval is how often a run.heartbeat is written; default 30 s.
	HeartbeatEventInterval time.Duration
	// RetryBackoffBase and RetryBackoffMax give the delay after attempt n:
	// min(base^n seconds, max) and up to a tenth more; default 2 and 300 s.
	RetryBackoffBase float64
	RetryBackoffMax  time.Duration
	// DrainTimeout is how long runs may go on after Run's context has ended;
	// default 30 s.
	DrainTimeout time.Duration
	// CancelGrace is how long an agent may take to return when its context has
	// ended, and how long its Cancel hook may take; default 10 s.
	CancelGrace time.Duration
	// TakeoverGrace is how long a silent holder is asked again (DESIGN, idea 4);
	// default 1 s, and never more than a quarter of Lease.
	TakeoverGrace time.Duration
	// HistoryLimit is how many messages of its conversation, the newest ones, a
	// run begins with; default 200.
	HistoryLimit int

	// Topology is used to make streams that are missing.
	Topology jsutil.TopologyOptions
	// Metrics is where the worker's metrics are registered; nil for nowhere. It
	// holds one worker: more need a label of their own each
	// (prometheus.WrapRegistererWith).
	Metrics prometheus.Registerer
	// Tracer makes spans of attempts; nil makes none.
	Tracer *tracing.Tracer
	// Logger is required to be set by programs; default slog.Default().
	Logger *slog.Logger
}

// withDefaults fills in what was left out.
func (c Config) withDefaults() Config {
	c.WorkerID = cmp.Or(c.WorkerID, contracts.NewWorkerID())
	c.Concurrency = cmp.Or(c.Concurrency, 10)
	c.RunTimeout = cmp.Or(c.RunTimeout, contracts.DefaultTimeout*time.Second)
	c.MaxAttempts = cmp.Or(c.MaxAttempts, contracts.DefaultMaxAttempts)
	c.Lease = cmp.Or(c.Lease, 30*time.Second)
	c.HeartbeatInterval = cmp.Or(c.HeartbeatInterval, c.Lease/3)
	c.HeartbeatEventInterval = cmp.Or(c.HeartbeatEventInterval, 30*time.Second)
	c.RetryBackoffBase = cmp.Or(c.RetryBackoffBase, 2)
	c.RetryBackoffMax = cmp.Or(c.RetryBackoffMax, 300*time.Second)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, 30*time.Second)
	c.CancelGrace = cmp.Or(c.CancelGrace, 10*time.Second)
	c.TakeoverGrace = cmp.Or(c.TakeoverGrace, time.Second)
	c.HistoryLimit = cmp.Or(c.HistoryLimit, 200)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	return c
}

// Check reports every fault of a configuration, as New does.
func (c Config) Check() error { return c.withDefaults().check() }

// check reports every fault of a configuration whose defaults are filled in.
func (c Config) check() error {
	var faults contracts.Faults
	fault := func(bad bool, field, format string, args ...any) {
		if bad {
			faults = append(faults, contracts.Fault{Field: field, Message: fmt.Sprintf(format, args...)})
		}
	}
	if err := contracts.CheckWorkerID(c.WorkerID); err != nil {
		fault(true, "worker_id", "%v", err)
	}
	fault(len(c.Agents) == 0, "agents", "at least one is needed")
	seen := map[string]bool{}
	for i, a := range c.Agents {
		if err := a.Check(); err != nil {
			fault(true, fmt.Sprintf("agents[%d]", i), "%v", err)
		}
		fault(seen[a.Key], fmt.Sprintf("agents[%d]", i), "key %q is there twice", a.Key)
		seen[a.Key] = true
	}
	fault(c.Concurrency < 1, "concurrency", "must be at least 1, not %d", c.Concurrency)
	fault(c.HistoryLimit < 1, "history_limit", "must be at least 1, not %d", c.HistoryLimit)
	fault(c.MaxAttempts < 1 || c.MaxAttempts > contracts.MaxMaxAttempts, "max_attempts", "must be 1 to %d, not %d", contracts.MaxMaxAttempts, c.MaxAttempts)
	fault(c.RunTimeout <= 0 || c.RunTimeout > contracts.MaxTimeoutSeconds*time.Second, "run_timeout", "must be above 0 and at most %ds, not %v", contracts.MaxTimeoutSeconds, c.RunTimeout)
	fault(c.Lease < time.Second, "lease", "must be at least 1s, not %v", c.Lease)
	fault(c.HeartbeatInterval <= 0 || c.HeartbeatInterval > c.Lease/3+time.Millisecond, "heartbeat_interval", "must be above 0 and at most a third of the lease (%v), not %v", c.Lease/3, c.HeartbeatInterval)
	fault(c.HeartbeatEventInterval <= 0, "heartbeat_event_interval", "must be above 0, not %v", c.HeartbeatEventInterval)
	fault(c.RetryBackoffBase < 0 || math.IsNaN(c.RetryBackoffBase), "retry_backoff_base", "must not be negative, not %v", c.RetryBackoffBase)
	fault(c.RetryBackoffMax < 0, "retry_backoff_max", "must not be negative, not %v", c.RetryBackoffMax)
	fault(c.DrainTimeout < 0, "drain_timeout", "must not be negative, not %v", c.DrainTimeout)
	fault(c.CancelGrace < 0, "cancel_grace", "must not be negative, not %v", c.CancelGrace)
	fault(c.TakeoverGrace < 0, "takeover_grace", "must not be negative, not %v", c.TakeoverGrace)
	if len(faults) > 0 {
		return fmt.Errorf("worker configuration: %w", faults)
	}
	return nil
}
