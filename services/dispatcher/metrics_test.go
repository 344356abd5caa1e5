package dispatcher

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/metrics/metricstest"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	b := newBench(t, jstest.Start(t))
	g := prometheus.NewRegistry()
	stop := b.start(t, Config{AcceptUnknownAgents: true, Metrics: g})
	meter := func(want float64, name string, labels ...string) {
		t.Helper()
		var got float64
		waitFor(t, fmt.Sprintf("%s%v to be %g", name, labels, want), func() bool {
			got, _ = metricstest.Read(t, g, "longhaul_dispatcher_"+name, labels...)
			return got == want
		}, func() string { return metricstest.Dump(t, g) })
	}
	id, later := contracts.NewRunID(), contracts.NewRunID()
	b.submit(t, contracts.Submission{RunID: id, AgentKey: "echo"})
	meter(1, "submissions_total", "outcome", "queued") // by the fast lane
	b.submit(t, contracts.Submission{RunID: id, AgentKey: "echo"})
	b.submit(t, contracts.Submission{AgentKey: "echo", IdempotencyKey: "k"})
	b.submit(t, contracts.Submission{RunID: later, AgentKey: "echo", NotBefore: time.Now().Add(time.Hour)})
	b.submit(t, json.RawMessage(`{"agent_key":"no such key!"}`))
	meter(2, "submissions_total", "outcome", "queued")
	meter(1, "submissions_total", "outcome", "duplicate")
	meter(1, "submissions_total", "outcome", "scheduled")
	meter(1, "submissions_total", "outcome", "rejected")
	meter(5, "messages_total", "kind", "submit", "answer", "ack")
	meter(5, "handling_seconds", "kind", "submit")

	b.publish(t, contracts.CancelSubject(later), "")
	b.publish(t, contracts.CancelSubject(id), "{")
	b.publish(t, contracts.CancelSubject(contracts.NewRunID()), "")
	meter(1, "messages_total", "kind", "cancel", "answer", "ack")
	meter(1, "messages_total", "kind", "cancel", "answer", "term")
	b.publish(t, contracts.RedriveSubject(later), "")
	meter(1, "messages_total", "kind", "redrive", "answer", "ack")
	waitFor(t, "the cancel of a run that is not there to come again", func() bool {
		again, _ := metricstest.Read(t, g, "longhaul_dispatcher_redelivered_total", "kind", "cancel")
		return again > 0
	})
	waitFor(t, "the loop to turn", func() bool {
		turned, _ := metricstest.Read(t, g, "longhaul_dispatcher_loop_timestamp_seconds", "loop", "tend")
		return time.Since(time.UnixMilli(int64(turned*1000))) < time.Second
	})
	stop()
	meter(0, "loop_timestamp_seconds", "loop", "tend")
}
