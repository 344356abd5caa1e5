package host

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest/live"
	"longhaul/pkg/contracts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// The broker is found by the environment, runs are executed, and the end is a drain.
func TestRun(t *testing.T) {
	stage := live.Start(t, agent.New("other", "", func(context.Context, *agent.Run, struct{}) (string, error) { return "", nil }))
	t.Setenv("LONGHAUL_NATS", stage.URL)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, Config{Logger: quiet, Agents: []agent.Agent{
			agent.New("double", "", func(_ context.Context, _ *agent.Run, p struct {
				N int `json:"n"`
			}) (int, error) {
				return 2 * p.N, nil
			})}})
	}()
	waitFor(t, "the agent to be known", func() bool {
		known, err := stage.Client.Agents(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(known) == 2
	})
	id, err := stage.Client.Submit(t.Context(), contracts.Submission{AgentKey: "double", Input: contracts.Input{Params: []byte(`{"n":21}`)}})
	if err != nil {
		t.Fatal(err)
	}
	outcome, err := stage.Client.Wait(t.Context(), id)
	var n int
	if err == nil {
		err = outcome.Output(&n)
	}
	if n != 42 || err != nil {
		t.Errorf("it comes to %d, %v", n, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("told to end it returns %v", err)
	}
}

func TestFaults(t *testing.T) {
	if err := run(t.Context(), Config{Logger: quiet}); err == nil || !strings.Contains(err.Error(), "agents: at least one is needed") {
		t.Errorf("without agents: %v", err)
	}
	t.Setenv("LONGHAUL_NATS", "nats://127.0.0.1:1")
	t.Setenv("LONGHAUL_CONTEXT", "nosuch")
	if err := run(t.Context(), Config{Logger: quiet}); err == nil {
		t.Error("two brokers at once are admitted")
	}
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(fmt.Sprint("waited in vain for ", what))
		}
	}
}
