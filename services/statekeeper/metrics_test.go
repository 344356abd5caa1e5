package statekeeper

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/metrics/metricstest"
)

// afresh makes every scrape ask the broker.
func afresh(s *Statekeeper) { s.api.counters.meters.Survey.Every = 0 }

func TestMetrics(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	g := prometheus.NewRegistry()
	k := startKeeper(t, b, Config{Metrics: g}, eager, afresh)
	k.ready(t)
	p := newPlayer(t, b)
	read := func(name string, labels ...string) (float64, bool) {
		return metricstest.Read(t, g, "longhaul_statekeeper_"+name, labels...)
	}
	meter := func(want float64, name string, labels ...string) {
		t.Helper()
		waitFor(t, fmt.Sprintf("%s%v to be %g", name, labels, want), func() (bool, string) {
			got, ok := read(name, labels...)
			return ok && got == want, fmt.Sprintf("%g, there: %t", got, ok)
		})
	}
	meter(0, "projection_lag_events")
	if _, ok := read("storage_limit_bytes"); ok {
		t.Error("the account has no bound, and one is told")
	}
	for range 3 {
		p.short(contracts.Submission{})
	}
	meter(3, "runs", "status", "succeeded")
	meter(9, "events_total")
	meter(0, "projection_lag_events")
	meter(0, "projection_lag_seconds")

	// A queue: two runs wait, and none has been handed out.
	if err := jsutil.EnsureWorkConsumers(t.Context(), k.js, "echo", 30*time.Second); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, id := p.submit(contracts.Submission{})
		p.putWork(id)
	}
	meter(2, "queue_waiting_runs", "agent_key", "echo", "priority", "normal")
	meter(0, "queue_leased_runs", "agent_key", "echo", "priority", "normal")
	waitFor(t, "the oldest to have an age", func() (bool, string) {
		age, _ := read("queue_oldest_seconds", "agent_key", "echo", "priority", "normal")
		return age > 0.05 && age < 60, fmt.Sprint(age)
	})
	meter(0, "queue_oldest_seconds", "agent_key", "echo", "priority", "low")
	meter(0, "queue_paused", "agent_key", "echo", "priority", "low")
	if _, err := b.JS.PauseConsumer(t.Context(), contracts.StreamWork, contracts.WorkConsumer("echo", contracts.PriorityLow), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	meter(1, "queue_paused", "agent_key", "echo", "priority", "low")
	meter(0, "queue_paused", "agent_key", "echo", "priority", "normal")

	// Submissions that no dispatcher takes.
	for range 4 {
		if _, err := k.js.Publish(t.Context(), contracts.SubjectSubmit, []byte(`{"agent_key":"echo"}`)); err != nil {
			t.Fatal(err)
		}
	}
	meter(4, "inbox_messages", "consumer", contracts.ConsumerSubmit)

	// A run whose work message is missing.
	p.submit(contracts.Submission{})
	waitFor(t, "the sweeper to miss it", func() (bool, string) {
		n, _ := read("sweeper_repairs_total", "kind", "requeued")
		return n > 0, fmt.Sprint(n)
	})

	_, _ = ask[contracts.GetResponse](t, b.NC, contracts.EndpointGet, contracts.GetRequest{RunID: contracts.NewRunID()})
	meter(1, "api_requests_total", "endpoint", "get", "code", "404")
	waitFor(t, "the watchdog to turn", func() (bool, string) {
		turned, _ := read("loop_timestamp_seconds", "loop", "watchdog")
		return time.Since(time.UnixMilli(int64(turned*1000))) < time.Second, fmt.Sprint(turned)
	})
	k.stop()
	meter(0, "loop_timestamp_seconds", "loop", "watchdog")
}

// Nobody projects: the lag is that of the log, as any instance sees it.
func TestProjectionLag(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	g := prometheus.NewRegistry()
	s, err := New(b.NC, Config{Metrics: g, Logger: testLogger(t)}) // and not run
	if err != nil {
		t.Fatal(err)
	}
	afresh(s)
	p := newPlayer(t, b)
	head, _ := p.submit(contracts.Submission{})
	p.next(head, head.RunID, started("w-1", "token"))
	if n, ok := metricstest.Read(t, g, "longhaul_statekeeper_projection_lag_events"); !ok || n != 2 {
		t.Errorf("the lag is %g events, there: %t, want 2", n, ok)
	}
	began := time.Now()
	waitFor(t, "the lag to grow with the time", func() (bool, string) {
		age, _ := metricstest.Read(t, g, "longhaul_statekeeper_projection_lag_seconds")
		return age > 0.3 && age < time.Since(began).Seconds()+5, fmt.Sprint(age)
	})
}

// Scrapes, however many, cost the broker no more than one in five seconds. A
// broker that is out makes the numbers go away, not stand still.
func TestScrapesAreBounded(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	g := prometheus.NewRegistry()
	s, err := New(b.NC, Config{Metrics: g, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	sub, err := b.Connect(t).Subscribe("$JS.API.>", func(m *nats.Msg) {
		if !strings.HasPrefix(m.Subject, "$JS.API.STREAM.CREATE") {
			asked.Add(1)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if _, ok := metricstest.Read(t, g, "longhaul_statekeeper_projection_lag_events"); !ok {
			t.Fatal("there is no lag")
		}
	}
	waitFor(t, "the first scrape to be seen", func() (bool, string) { return asked.Load() > 0, "" })
	if n := asked.Load(); n > 10 {
		t.Errorf("50 scrapes asked the broker %d times", n)
	}
	b.Stop(t)
	s.api.counters.meters.Survey.Every = 0
	if lag, ok := metricstest.Read(t, g, "longhaul_statekeeper_projection_lag_events"); ok {
		t.Errorf("without a broker the lag is said to be %g", lag)
	}
	b.Restart(t)
}
