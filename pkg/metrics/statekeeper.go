package metrics

import (
	"log/slog"
	"strconv"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"longhaul/pkg/contracts"
)

// Statekeeper is the metrics of a statekeeper.
type Statekeeper struct {
	Watchdog Loop
	Survey   *Survey

	requests, failures *prometheus.CounterVec
}

// StatekeeperStats are counts of what an instance has done since its start; none
// falls. What it does in the place of another one that died is in its own.
type StatekeeperStats struct {
	// Of the projector.
	Events    int64 `json:"events"`    // folded
	Writes    int64 `json:"writes"`    // records sent to be stored
	Conflicts int64 `json:"conflicts"` // of those, refused because another stood there
	Rebuilt   int64 `json:"rebuilt"`   // records made anew from the log
	Poison    int64 `json:"poison"`    // events that could not be decoded
	// Of the watchdog.
	Takeovers int64 `json:"takeovers"` // leases of dead workers given back
	// Of the sweeper.
	Requeued int64 `json:"requeued"` // runs that a dispatcher was asked to queue again
	Released int64 `json:"released"` // leases given back that nobody had begun to use
	Repaired int64 `json:"repaired"` // records that said something else than the log
	Orphans  int64 `json:"orphans"`  // checkpoints removed that no log names
	Expired  int64 `json:"expired"`  // runs removed
	Trimmed  int64 `json:"trimmed"`  // checkpoints removed that were more than are kept
}

// StatekeeperSource is what a statekeeper tells when it is asked for the
// numbers, not before; its functions may be called from any goroutine.
type StatekeeperSource struct {
	JS     jetstream.JetStream
	Logger *slog.Logger
	Stats  func() StatekeeperStats
	// Runs counts the runs by status; nil while they are not known.
	Runs func() map[contracts.Status]int
}

// NewStatekeeper makes a statekeeper's metrics, registered with r if that is not nil.
func NewStatekeeper(r prometheus.Registerer, src StatekeeperSource) (*Statekeeper, error) {
	s := NewSet("statekeeper")
	m := &Statekeeper{
		Watchdog: s.Loop("watchdog"),
		Survey:   newSurvey(s, src.JS, src.Logger),
		requests: s.Counter("api_requests_total", "API requests answered, by endpoint and code.", "endpoint", "code"),
		failures: s.Counter("child_failures_total", "Times that a part of the service failed and was started again.", "child"),
	}
	total := func(name, help string, read func(StatekeeperStats) int64, label ...string) {
		s.CounterOf(name, help, func() float64 { return float64(read(src.Stats())) }, label...)
	}
	total("events_total", "Events folded into status records.", func(n StatekeeperStats) int64 { return n.Events })
	total("record_writes_total", "Status records written.", func(n StatekeeperStats) int64 { return n.Writes })
	total("record_conflicts_total", "Of these, refused because another stood there.", func(n StatekeeperStats) int64 { return n.Conflicts })
	total("record_rebuilds_total", "Status records made anew from the log.", func(n StatekeeperStats) int64 { return n.Rebuilt })
	total("poison_events_total", "Events that could not be decoded.", func(n StatekeeperStats) int64 { return n.Poison })
	total("leases_released_total", "Leases of dead workers given back by the watchdog.", func(n StatekeeperStats) int64 { return n.Takeovers })
	total("runs_expired_total", "Runs removed because they ended long ago.", func(n StatekeeperStats) int64 { return n.Expired })
	total("checkpoints_trimmed_total", "Checkpoints removed because newer ones are kept.", func(n StatekeeperStats) int64 { return n.Trimmed })
	for kind, read := range map[string]func(StatekeeperStats) int64{
		"requeued": func(n StatekeeperStats) int64 { return n.Requeued }, "released": func(n StatekeeperStats) int64 { return n.Released },
		"status": func(n StatekeeperStats) int64 { return n.Repaired }, "checkpoint": func(n StatekeeperStats) int64 { return n.Orphans },
	} {
		total("sweeper_repairs_total", "What the sweeper found wrong and put right, by kind.", read, "kind", kind)
	}
	runs := s.Gauge("runs", "Runs by status, as far as the index knows.", "status")
	s.Before(func() {
		if counted := src.Runs(); counted != nil {
			for _, status := range contracts.Statuses() {
				runs.WithLabelValues(string(status)).Set(float64(counted[status]))
			}
		}
		m.Survey.refresh()
	})
	return m, s.Register(r)
}

// Answered counts an API request and the code of its answer, as HTTP has it.
func (m *Statekeeper) Answered(endpoint string, code int) {
	m.requests.WithLabelValues(endpoint, strconv.Itoa(code)).Inc()
}

// Failed counts a part of the service that failed and is started again.
func (m *Statekeeper) Failed(child string) { m.failures.WithLabelValues(child).Inc() }
