// Package live hosts agents on the real services, with a broker in the test's
// own process: what an agenttest.Trial only models, the broker, the worker and
// the wire, is here as in production. It is for tests alone, and stands above
// the services for that.
package live

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/agent"
	"longhaul/pkg/client"
	"longhaul/pkg/jsutil"
	"longhaul/services/dispatcher"
	"longhaul/services/statekeeper"
	"longhaul/services/worker"
)

// Stage is a broker with a dispatcher, a statekeeper and a worker.
type Stage struct {
	// Client is connected to it.
	Client *client.Client
	// URL is where the broker listens.
	URL string

	topology   jsutil.TopologyOptions
	stopWorker func()
}

// patience is how long anything may take to start or to end.
const patience = 30 * time.Second

// Start starts a Stage with agents. All of it ends with the test.
func Start(t testing.TB, agents ...agent.Agent) *Stage {
	t.Helper()
	broker, err := jsutil.StartEmbedded(jsutil.EmbeddedConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Shutdown)
	s := &Stage{URL: broker.URL(), topology: jsutil.TopologyOptions{Storage: broker.Storage()}, stopWorker: func() {}}
	log := logger(t)
	run(t, s, "dispatcher", func(nc *nats.Conn) (service, error) {
		return dispatcher.New(nc, dispatcher.Config{Topology: s.topology, Logger: log})
	})
	run(t, s, "statekeeper", func(nc *nats.Conn) (service, error) {
		return statekeeper.New(nc, statekeeper.Config{Topology: s.topology, Logger: log})
	})
	if s.Client, err = client.New(connect(t, s)); err != nil {
		t.Fatal(err)
	}
	s.Deploy(t, agents...)
	return s
}

// Deploy stops the worker, which drains, and starts one that hosts these agents.
// It returns when they are registered.
func (s *Stage) Deploy(t testing.TB, agents ...agent.Agent) {
	t.Helper()
	s.stopWorker()
	s.stopWorker = run(t, s, "worker", func(nc *nats.Conn) (service, error) {
		return worker.New(nc, worker.Config{
			Agents: agents, Topology: s.topology, Logger: logger(t), DrainTimeout: time.Millisecond, RetryBackoffMax: 10 * time.Millisecond,
		})
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	missing := map[string]bool{}
	for _, a := range agents {
		missing[a.Key] = true
	}
	for len(missing) > 0 {
		known, err := s.Client.Agents(ctx)
		for _, rec := range known {
			delete(missing, rec.AgentKey)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain for agents to be registered: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// service is a dispatcher, a statekeeper or a worker.
type service interface {
	Run(ctx context.Context) error
}

// run runs a service until stop is called, or the test ends; stop waits for it.
func run(t testing.TB, s *Stage, name string, open func(nc *nats.Conn) (service, error)) (stop func()) {
	t.Helper()
	one, err := open(connect(t, s))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- one.Run(ctx) }()
	stop = func() {
		if cancel(); ended == nil {
			return
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(patience):
			t.Errorf("%s did not end within %v", name, patience)
		}
		ended = nil
	}
	t.Cleanup(stop)
	return stop
}

func connect(t testing.TB, s *Stage) *nats.Conn {
	t.Helper()
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: s.URL, Name: "live"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// logger writes to the test's log.
func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}
