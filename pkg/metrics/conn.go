package metrics

import (
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
)

// RegisterConn registers metrics of a connection with r, which holds one; more
// need a label of their own each (prometheus.WrapRegistererWith). It puts
// itself before the connection's error handler and calls it, so it comes right
// after the connection is made.
func RegisterConn(r prometheus.Registerer, nc *nats.Conn) error {
	s := NewSet("broker")
	s.GaugeOf("connected", "Whether the connection to the broker stands: 1 or 0.", func() float64 {
		if nc.IsConnected() {
			return 1
		}
		return 0
	})
	stats := func(name, help string, read func(nats.Statistics) uint64) {
		s.CounterOf(name, help, func() float64 { return float64(read(nc.Stats())) })
	}
	stats("reconnects_total", "Times that the connection was made anew.", func(n nats.Statistics) uint64 { return n.Reconnects })
	stats("received_messages_total", "Messages from the broker.", func(n nats.Statistics) uint64 { return n.InMsgs })
	stats("received_bytes_total", "Bytes from the broker.", func(n nats.Statistics) uint64 { return n.InBytes })
	stats("sent_messages_total", "Messages to the broker.", func(n nats.Statistics) uint64 { return n.OutMsgs })
	stats("sent_bytes_total", "Bytes to the broker.", func(n nats.Statistics) uint64 { return n.OutBytes })
	failures := s.Counter("errors_total", "Errors that the connection reported by itself, by kind.", "kind")
	for _, kind := range []string{kindSlow, kindPermission, kindOther} {
		failures.WithLabelValues(kind) // zero is a number too: a rate needs the sample before the first error
	}
	next := nc.ErrorHandler()
	nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		failures.WithLabelValues(errorKind(err)).Inc()
		if next != nil {
			next(nc, sub, err)
		}
	})
	return s.Register(r)
}

// Kinds of errors.
const (
	kindSlow       = "slow_consumer" // messages were thrown away: they came faster than they were taken
	kindPermission = "permission"    // the broker refused a subject
	kindOther      = "other"
)

func errorKind(err error) string {
	switch {
	case errors.Is(err, nats.ErrSlowConsumer):
		return kindSlow
	case errors.Is(err, nats.ErrPermissionViolation):
		return kindPermission
	}
	return kindOther
}
