package metrics_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/metrics"
	"longhaul/pkg/metrics/metricstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func meter(t *testing.T, g prometheus.Gatherer, want func(float64) bool, name string, labels ...string) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		got, ok := metricstest.Read(t, g, name, labels...)
		if ok && want(got) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s%v; it is %g, there: %t", name, labels, got, ok)
		}
		time.Sleep(5 * time.Millisecond) // between two looks
	}
}

func is(want float64) func(float64) bool { return func(got float64) bool { return got == want } }

func above(least float64) func(float64) bool { return func(got float64) bool { return got > least } }

func TestConn(t *testing.T) {
	b := jstest.StartFile(t)
	nc := b.Connect(t)
	var told atomic.Int64
	nc.SetErrorHandler(func(*nats.Conn, *nats.Subscription, error) { told.Add(1) })
	g := prometheus.NewRegistry()
	if err := metrics.RegisterConn(g, nc); err != nil {
		t.Fatal(err)
	}
	meter(t, g, is(1), "longhaul_broker_connected")
	meter(t, g, is(0), "longhaul_broker_errors_total", "kind", "slow_consumer")

	// A subscription with room for one message that nobody takes.
	sub, err := nc.SubscribeSync("crowd")
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(1, 1<<20); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := nc.Publish("crowd", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	meter(t, g, above(0), "longhaul_broker_errors_total", "kind", "slow_consumer")
	meter(t, g, above(2), "longhaul_broker_sent_messages_total")
	meter(t, g, above(2), "longhaul_broker_received_bytes_total")
	if told.Load() == 0 {
		t.Error("the handler that was there before is not called any more")
	}

	nc.ErrorHandler()(nc, nil, errors.New("some other"))
	nc.ErrorHandler()(nc, nil, nats.ErrPermissionViolation)
	meter(t, g, is(1), "longhaul_broker_errors_total", "kind", "other")
	meter(t, g, is(1), "longhaul_broker_errors_total", "kind", "permission")

	b.Stop(t)
	meter(t, g, is(0), "longhaul_broker_connected")
	b.Restart(t)
	meter(t, g, is(1), "longhaul_broker_connected")
	meter(t, g, is(1), "longhaul_broker_reconnects_total")
}

// Without a registerer everything counts, and nobody is told.
func TestUnregistered(t *testing.T) {
	m, err := metrics.NewDispatcher(nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Submitted("run.queued")
	m.Tend.Turn()
}

func BenchmarkAttempt(b *testing.B) {
	m, err := metrics.NewWorker(prometheus.NewRegistry(), metrics.WorkerSource{AgentKeys: []string{"echo"}})
	if err != nil {
		b.Fatal(err)
	}
	begun := time.Now()
	for b.Loop() {
		m.Intake.Turn()
		m.Started("echo", "normal", 1, begun)
		m.Ended("echo", metrics.OutcomeRetrying, begun, begun)
	}
}
