package metrics

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"longhaul/pkg/jsutil"
)

// Dispatcher is the metrics of a dispatcher.
type Dispatcher struct {
	Tend Loop

	submissions, answers, redelivered *prometheus.CounterVec
	handling                          *prometheus.HistogramVec
}

// NewDispatcher makes a dispatcher's metrics, registered with r if that is not nil.
func NewDispatcher(r prometheus.Registerer) (*Dispatcher, error) {
	s := NewSet("dispatcher")
	return &Dispatcher{
		Tend:        s.Loop("tend"),
		submissions: s.Counter("submissions_total", "Submissions taken in, by what became of them.", "outcome"),
		answers:     s.Counter("messages_total", "Messages answered, by kind and answer.", "kind", "answer"),
		redelivered: s.Counter("redelivered_total", "Messages answered that had been delivered before.", "kind"),
		handling:    s.Histogram("handling_seconds", "From the delivery of a message to its answer.", 0.0005, 3, 11, "kind"),
	}, s.Register(r)
}

// Submitted counts a submission by the type of its run's first event, or another word.
func (m *Dispatcher) Submitted(outcome string) {
	m.submissions.WithLabelValues(strings.TrimPrefix(outcome, "run.")).Inc()
}

// Answered counts a message and its answer.
func (m *Dispatcher) Answered(d *jsutil.Delivery, answer string) {
	kind := kindOf(d.Subject)
	m.answers.WithLabelValues(kind, answer).Inc()
	if d.Delivered > 1 {
		m.redelivered.WithLabelValues(kind).Inc()
	}
	m.handling.WithLabelValues(kind).Observe(time.Since(d.Received).Seconds())
}

// kindOf is what a message asks for: the streams hold no others.
func kindOf(subject string) string {
	if strings.HasPrefix(subject, "runs.schedule.") {
		return "due"
	}
	return subject[strings.LastIndexByte(subject, '.')+1:] // submit, cancel, redrive
}
