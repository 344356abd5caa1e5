package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"longhaul/pkg/contracts"
)

// Worker is the metrics of a worker.
type Worker struct {
	// What WorkerStats says.
	Abandoned                         atomic.Int64
	AbandonedTotal, Takeovers, Fenced atomic.Uint64

	// Intake and Heartbeat are the loops without which a worker is of no use.
	Intake, Heartbeat Loop
	// HeartbeatFailures counts heartbeats that could not read the head.
	HeartbeatFailures prometheus.Counter

	started, ended, closed *prometheus.CounterVec
	cancelDelay            prometheus.Observer

	startDelay, duration, runDuration *prometheus.HistogramVec
}

// WorkerStats says what a worker does and has done since it was made.
type WorkerStats struct {
	// Executing is how many attempts are under way. One whose agent was
	// abandoned is not, for the run goes on without it.
	Executing int
	// Abandoned is how many agents have not returned although CancelGrace is
	// over since their context ended. Each takes a slot until it does.
	Abandoned int
	// AbandonedTotal counts them, also those that have returned since.
	AbandonedTotal uint64
	// Takeovers counts runs begun whose holder was found to be gone.
	Takeovers uint64
	// Fenced counts attempts given up without a last event: the run had gone
	// on elsewhere, or the broker was out of reach for a lease.
	Fenced uint64
}

// WorkerSource is what a worker tells when it is asked for the numbers, not
// before; its functions may be called from any goroutine.
type WorkerSource struct {
	Slots     int
	AgentKeys []string
	Executing func() int
	// Silence is the longest time for which a lease of it has not been confirmed.
	Silence func() time.Duration
}

// Outcomes of an attempt beside the terminal statuses.
const (
	OutcomeRetrying  = "retrying"
	OutcomeRequeued  = "requeued"
	OutcomeFenced    = "fenced"
	OutcomeUnwritten = "unwritten" // the last event did not get into the log
)

// NewWorker makes a worker's metrics, registered with r if that is not nil.
func NewWorker(r prometheus.Registerer, src WorkerSource) (*Worker, error) {
	s := NewSet("worker")
	s.GaugeOf("slots", "Runs that the worker executes at once.", func() float64 { return float64(src.Slots) })
	s.GaugeOf("executing", "Attempts under way.", func() float64 { return float64(src.Executing()) })
	s.GaugeOf("lease_silence_seconds", "Time since the broker last confirmed a lease, of the attempt that is worst off.",
		func() float64 { return src.Silence().Seconds() })
	m := &Worker{
		Intake: s.Loop("intake"), Heartbeat: s.Loop("heartbeat"),
		HeartbeatFailures: s.Counter("heartbeat_failures_total", "Heartbeats that could not read the head.").WithLabelValues(),

		started:     s.Counter("attempts_started_total", "Attempts begun.", "agent_key"),
		ended:       s.Counter("attempts_ended_total", "Attempts over, by what became of them.", "agent_key", "outcome"),
		closed:      s.Counter("runs_closed_total", "Runs ended without an attempt.", "agent_key", "status"),
		startDelay:  s.Histogram("start_delay_seconds", "From the submission, or not_before, to the first run.started.", 0.001, 4, 12, "agent_key", "priority"),
		duration:    s.Histogram("attempt_duration_seconds", "From run.started to the end of the attempt.", 0.01, 4, 11, "agent_key"),
		runDuration: s.Histogram("run_duration_seconds", "From the submission, or not_before, to the end of the run.", 0.01, 4, 13, "agent_key", "status"),
		cancelDelay: s.Histogram("cancel_delay_seconds", "From a cancel's arrival at its holder to the end of the agent's context.", 0.0005, 2, 12).WithLabelValues(),
	}
	s.GaugeOf("abandoned_agents", "Agents that ignore their context and keep a slot.", func() float64 { return float64(m.Abandoned.Load()) })
	s.CounterOf("abandonments_total", "Agents that did not return in time after their context had ended.",
		func() float64 { return float64(m.AbandonedTotal.Load()) })
	s.CounterOf("takeovers_total", "Attempts begun in place of a holder that was gone.", func() float64 { return float64(m.Takeovers.Load()) })
	for _, key := range src.AgentKeys { // zero is a number too: an alarm on a rate needs the sample before the first one
		for _, outcome := range []string{string(contracts.StatusFailed), OutcomeFenced, OutcomeUnwritten} {
			m.ended.WithLabelValues(key, outcome)
		}
		m.closed.WithLabelValues(key, string(contracts.StatusFailed))
	}
	return m, s.Register(r)
}

// Stats is what the worker has done, of which so many attempts are under way.
func (m *Worker) Stats(executing int) WorkerStats {
	return WorkerStats{
		Executing: executing, Abandoned: int(m.Abandoned.Load()),
		AbandonedTotal: m.AbandonedTotal.Load(), Takeovers: m.Takeovers.Load(), Fenced: m.Fenced.Load(),
	}
}

// Due is from when on a run could have begun, given its run.queued.
func Due(e contracts.Event, p contracts.Queued) time.Time {
	due := p.SubmittedAt
	if due.IsZero() { // a foreign dispatcher left it out
		due = e.Time
	}
	if later := p.Submission.NotBefore; later.After(due) {
		due = later
	}
	return due
}

// Started counts an attempt that has just begun, and the wait for the run's first one.
func (m *Worker) Started(agentKey string, p contracts.Priority, epoch uint64, due time.Time) {
	m.started.WithLabelValues(agentKey).Inc()
	if epoch == 1 {
		// The broker's clock against ours: a difference must not make it negative.
		m.startDelay.WithLabelValues(agentKey, string(p)).Observe(max(0, time.Since(due).Seconds()))
	}
}

// Ended counts an attempt that is over, of a run that was due then.
func (m *Worker) Ended(agentKey, outcome string, begun, due time.Time) {
	m.ended.WithLabelValues(agentKey, outcome).Inc()
	m.duration.WithLabelValues(agentKey).Observe(time.Since(begun).Seconds())
	if contracts.Status(outcome).Terminal() {
		m.over(agentKey, outcome, due)
	}
}

// over notes how long a run took that has ended.
func (m *Worker) over(agentKey, status string, due time.Time) {
	m.runDuration.WithLabelValues(agentKey, status).Observe(max(0, time.Since(due).Seconds()))
}

// OutcomeOf names what an attempt ended with: the status that it left, which a
// retry and a drain have in common.
func OutcomeOf(status contracts.Status, drain bool) string {
	switch {
	case status != contracts.StatusPending:
		return string(status)
	case drain:
		return OutcomeRequeued
	}
	return OutcomeRetrying
}

// Closed counts a run that was ended without an attempt, and was due then.
func (m *Worker) Closed(agentKey string, status contracts.Status, due time.Time) {
	m.closed.WithLabelValues(agentKey, string(status)).Inc()
	m.over(agentKey, string(status), due)
}

// Cancelled notes that the context of an agent ended whose cancel was seen then.
func (m *Worker) Cancelled(seen time.Time) { m.cancelDelay.Observe(time.Since(seen).Seconds()) }
