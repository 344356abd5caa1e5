package worker

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// TestDrainUnderLoad drains workers at any moment while work comes, each time
// with messages on their way to it, and has another one finish: whatever was
// handed to the first must be there for the second at once, not after a lease.
func TestDrainUnderLoad(t *testing.T) {
	const rounds, runs = 12, 200
	b := newBench(t)
	brief := agent.Agent{Key: "brief", Run: func(ctx context.Context, _ *agent.Run) (agent.Result, error) {
		if rand.IntN(4) > 0 {
			return agent.Result{}, nil
		}
		select {
		case <-ctx.Done():
			return agent.Result{}, context.Cause(ctx)
		case <-time.After(time.Duration(rand.IntN(5)) * time.Millisecond):
			return agent.Result{}, nil
		}
	}}
	work := func(ctx context.Context) {
		nc := b.Connect(t)
		defer nc.Close()
		w, err := New(nc, Config{
			Agents: []agent.Agent{brief}, DrainTimeout: 10 * time.Millisecond, Concurrency: 1 + rand.IntN(64), Logger: slog.New(slog.DiscardHandler),
		})
		if err == nil {
			err = w.Run(ctx)
		}
		if err != nil {
			t.Error(err)
		}
	}
	for range rounds {
		submitted := make(chan struct{})
		go func() {
			defer close(submitted)
			for range runs {
				b.submit(t, contracts.Submission{AgentKey: brief.Key, MaxAttempts: 1})
			}
		}()
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(10+rand.IntN(90))*time.Millisecond)
			work(ctx)
			cancel()
		}
		<-submitted
		ctx, cancel := context.WithCancel(t.Context())
		finished := make(chan struct{})
		go func() {
			defer close(finished)
			work(ctx)
		}()
		b.waitForNoWork(t) // in less time than a lease
		cancel()
		<-finished
	}
}
