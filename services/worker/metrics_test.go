package worker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/metrics/metricstest"
)

// meter waits until a metric has a value.
func meter(t *testing.T, g prometheus.Gatherer, want float64, name string, labels ...string) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		got, ok := metricstest.Read(t, g, "longhaul_worker_"+name, labels...)
		if ok && got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s%v to be %g; it is %g, there: %t. All:\n%s", name, labels, want, got, ok, metricstest.Dump(t, g))
		}
		time.Sleep(5 * time.Millisecond) // between two looks
	}
}

func TestMetrics(t *testing.T) {
	b := newBench(t)
	g := prometheus.NewRegistry()
	release := make(chan struct{})
	once := true
	_, stop := b.start(t, Config{Metrics: g, Concurrency: 7, Lease: 3 * time.Second, Agents: []agent.Agent{
		{Key: "echo", Run: echo},
		{Key: "flaky", Run: func(context.Context, *agent.Run) (agent.Result, error) {
			if once {
				once = false
				return agent.Result{}, errors.New("once")
			}
			return agent.Result{}, agent.Permanent(errors.New("for good"))
		}},
		{Key: "slow", Run: func(ctx context.Context, _ *agent.Run) (agent.Result, error) {
			<-ctx.Done()
			return agent.Result{}, ctx.Err()
		}},
		{Key: "deaf", Run: func(context.Context, *agent.Run) (agent.Result, error) {
			<-release
			return agent.Result{}, nil
		}},
	}})
	meter(t, g, 7, "slots")
	meter(t, g, 0, "attempts_ended_total", "agent_key", "echo", "outcome", "fenced") // there before the first

	for range 3 {
		b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "echo", Priority: contracts.PriorityHigh}))
	}
	meter(t, g, 3, "attempts_started_total", "agent_key", "echo")
	meter(t, g, 3, "attempts_ended_total", "agent_key", "echo", "outcome", "succeeded")
	meter(t, g, 3, "attempt_duration_seconds", "agent_key", "echo")
	meter(t, g, 3, "start_delay_seconds", "agent_key", "echo", "priority", "high")
	meter(t, g, 3, "run_duration_seconds", "agent_key", "echo", "status", "succeeded")

	b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "flaky"}))
	meter(t, g, 1, "attempts_ended_total", "agent_key", "flaky", "outcome", "retrying")
	meter(t, g, 1, "attempts_ended_total", "agent_key", "flaky", "outcome", "failed")
	meter(t, g, 1, "start_delay_seconds", "agent_key", "flaky")  // of the first attempt alone
	meter(t, g, 1, "run_duration_seconds", "agent_key", "flaky") // of the last alone

	id := b.submit(t, contracts.Submission{AgentKey: "slow"})
	started := b.waitForEvent(t, id, contracts.TypeStarted)
	meter(t, g, 1, "executing")
	b.ask(t, started.WorkerID, contracts.HolderRequest{Op: contracts.HolderCancel, RunID: id})
	meter(t, g, 1, "attempts_ended_total", "agent_key", "slow", "outcome", "cancelled")
	meter(t, g, 1, "cancel_delay_seconds")

	b.submit(t, contracts.Submission{AgentKey: "deaf", TimeoutSeconds: 0.1})
	meter(t, g, 1, "attempts_ended_total", "agent_key", "deaf", "outcome", "timed_out")
	meter(t, g, 1, "abandoned_agents")
	close(release)
	meter(t, g, 0, "abandoned_agents")
	meter(t, g, 1, "abandonments_total")

	dead := contracts.Draft{Type: contracts.TypeStarted, WorkerID: "w-dead"}
	b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "echo"}, dead))
	meter(t, g, 1, "takeovers_total")
	b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "echo", MaxAttempts: 1}, dead))
	meter(t, g, 1, "runs_closed_total", "agent_key", "echo", "status", "failed")
	meter(t, g, 1, "run_duration_seconds", "agent_key", "echo", "status", "failed")

	id = b.submit(t, contracts.Submission{AgentKey: "slow"})
	b.waitForEvent(t, id, contracts.TypeStarted)
	b.startByHand(t, id, "w-other")
	meter(t, g, 1, "attempts_ended_total", "agent_key", "slow", "outcome", "fenced")

	stop()
	meter(t, g, 0, "loop_timestamp_seconds", "loop", "intake")
	meter(t, g, 0, "loop_timestamp_seconds", "loop", "heartbeat")
}

// A worker whose leases nobody confirms shows it before it gives up.
func TestLeaseSilence(t *testing.T) {
	b := newBench(t)
	g := prometheus.NewRegistry()
	b.start(t, Config{Metrics: g, Lease: 3 * time.Second, DrainTimeout: time.Millisecond, Agents: []agent.Agent{
		{Key: "slow", Run: func(ctx context.Context, _ *agent.Run) (agent.Result, error) {
			<-ctx.Done()
			return agent.Result{}, ctx.Err()
		}},
	}})
	b.waitForEvent(t, b.submit(t, contracts.Submission{AgentKey: "slow"}), contracts.TypeStarted)
	b.Stop(t)
	waitFor(t, "two seconds of silence", func() bool {
		silence, _ := metricstest.Read(t, g, "longhaul_worker_lease_silence_seconds")
		return silence > 2
	})
	waitFor(t, "a heartbeat that failed", func() bool {
		failed, _ := metricstest.Read(t, g, "longhaul_worker_heartbeat_failures_total")
		return failed > 0
	})
	meter(t, g, 1, "attempts_ended_total", "outcome", "fenced")
	b.Restart(t)
}

func TestOneWorkerPerRegisterer(t *testing.T) {
	b := newBench(t)
	g := prometheus.NewRegistry()
	for _, pool := range []string{"a", "b"} {
		cfg := Config{Metrics: prometheus.WrapRegistererWith(prometheus.Labels{"pool": pool}, g), Agents: []agent.Agent{{Key: "echo", Run: echo}}}
		if _, err := New(b.NC, cfg); err != nil {
			t.Errorf("the first of pool %s: %v", pool, err)
		}
		if _, err := New(b.NC, cfg); err == nil {
			t.Errorf("a second worker was registered as pool %s", pool)
		}
	}
	meter(t, g, 20, "slots")
}
