// Package metrics is how Longhaul's services count what they do, for
// Prometheus. A service has a Set, made with the service and registered where
// its main says, or nowhere. docs/operations.md lists every metric.
//
// Names are longhaul_<service>_<what>_<base unit>. Labels are bounded: agents
// that workers have registered, priorities, statuses, and words that the code
// itself chooses. Never a run's id, nor anything that a submission says.
package metrics

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Namespace begins every name.
const Namespace = "longhaul"

// Set is the metrics of one service. A metric is made once; a name that is
// there twice is a mistake in the code, and panics. What it returns may be
// used by several goroutines, and so may Collect; the Set's other methods by one.
type Set struct {
	service  string
	registry *prometheus.Registry
	auto     promauto.Factory
	loops    map[string]Loop
	before   func()
	reading  sync.Mutex // held while the metrics are read
}

// NewSet makes the set of a service, whose name becomes part of its metrics' names.
func NewSet(service string) *Set {
	registry := prometheus.NewRegistry()
	return &Set{service: service, registry: registry, auto: promauto.With(registry), loops: make(map[string]Loop)}
}

// Register makes all of the set known to r; a nil r knows nothing and costs
// nothing but the counting. The error says that r has such a set already.
func (s *Set) Register(r prometheus.Registerer) error {
	if r == nil {
		return nil
	}
	if err := r.Register(s); err != nil {
		return fmt.Errorf("register the metrics of the %s: %w", s.service, err)
	}
	return nil
}

func (s *Set) opts(name, help string) prometheus.Opts {
	return prometheus.Opts{Namespace: Namespace, Subsystem: s.service, Name: name, Help: help}
}

// Counter makes a counter; its name ends in _total.
func (s *Set) Counter(name, help string, labels ...string) *prometheus.CounterVec {
	return s.auto.NewCounterVec(prometheus.CounterOpts(s.opts(name, help)), labels)
}

// CounterOf makes a counter of what is counted elsewhere. A label, of which the
// counter is for one value, is given as name and value; the name may then be
// made again with another value.
func (s *Set) CounterOf(name, help string, read func() float64, label ...string) {
	opts := prometheus.CounterOpts(s.opts(name, help))
	if len(label) == 2 {
		opts.ConstLabels = prometheus.Labels{label[0]: label[1]}
	}
	s.auto.NewCounterFunc(opts, read)
}

// Gauge makes a gauge.
func (s *Set) Gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	return s.auto.NewGaugeVec(prometheus.GaugeOpts(s.opts(name, help)), labels)
}

// GaugeOf makes a gauge that is read when it is asked for.
func (s *Set) GaugeOf(name, help string, read func() float64) {
	s.auto.NewGaugeFunc(prometheus.GaugeOpts(s.opts(name, help)), read)
}

// Histogram makes a histogram of n buckets: up to first, up to factor times
// that, and so on, and one for what is above.
func (s *Set) Histogram(name, help string, first, factor float64, n int, labels ...string) *prometheus.HistogramVec {
	o := s.opts(name, help)
	return s.auto.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: o.Namespace, Subsystem: o.Subsystem, Name: o.Name, Help: o.Help, Buckets: prometheus.ExponentialBuckets(first, factor, n),
	}, labels)
}

// Before has f called before the metrics are read, once at a time: to bring up to
// date what is dear to know.
func (s *Set) Before(f func()) { s.before = f }

// Describe implements prometheus.Collector.
func (s *Set) Describe(ch chan<- *prometheus.Desc) { s.registry.Describe(ch) }

// Collect implements prometheus.Collector.
func (s *Set) Collect(ch chan<- prometheus.Metric) {
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.before != nil {
		s.before()
	}
	s.registry.Collect(ch)
}

// Loop is what a service does again and again as long as it lives. Its methods
// may be called by several goroutines.
type Loop struct{ last *atomic.Int64 }

// Loop makes the sign of life of a loop, which does not run yet.
func (s *Set) Loop(name string) Loop {
	l := Loop{new(atomic.Int64)}
	s.loops[name] = l
	opts := prometheus.GaugeOpts(s.opts("loop_timestamp_seconds", "When a loop last turned; 0 while it does not run."))
	opts.ConstLabels = prometheus.Labels{"loop": name}
	s.auto.NewGaugeFunc(opts, func() float64 { return float64(l.last.Load()) / 1e9 })
	return l
}

// Turn notes that the loop has turned.
func (l Loop) Turn() { l.last.Store(time.Now().UnixNano()) }

// Stop notes that the loop does not run any more.
func (l Loop) Stop() { l.last.Store(0) }

// Loops says when each loop last turned; the zero time stands for one that does
// not run, or not yet. It may be called by several goroutines.
func (s *Set) Loops() map[string]time.Time {
	turned := make(map[string]time.Time, len(s.loops))
	for name, l := range s.loops {
		turned[name] = time.Time{}
		if at := l.last.Load(); at != 0 {
			turned[name] = time.Unix(0, at)
		}
	}
	return turned
}

// Service is the service's name.
func (s *Set) Service() string { return s.service }
