package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/test/cluster"
)

// stopTime is how long a process may take to stop.
const stopTime = 40 * time.Second

// setup is the system under measurement: processes, and two connections of
// ours, for a client and a worker of the floor.
type setup struct {
	dir       string
	broker    *cluster.Broker
	processes []*cluster.Process // the services
	nc        *nats.Conn
	js        jetstream.JetStream
	workerNC  *nats.Conn
	worker    jetstream.JetStream
	client    *client.Client
}

// startSetup starts everything and waits until a run has passed through.
func startSetup(ctx context.Context, binary string) (s *setup, err error) {
	s = &setup{}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if s.dir, err = os.MkdirTemp("", "longhaul-bench-"); err != nil {
		return s, err
	}
	if s.broker, err = cluster.StartBroker(cluster.BrokerConfig{Dir: filepath.Join(s.dir, "broker")}, s.dir); err != nil {
		return s, err
	}
	url := s.broker.URL
	if s.nc, err = jsutil.Connect(jsutil.ConnectConfig{URL: url, Name: "bench"}); err != nil {
		return s, err
	}
	if s.js, err = jetstream.New(s.nc, jetstream.WithPublishAsyncMaxPending(512)); err != nil {
		return s, err
	}
	if s.workerNC, err = jsutil.Connect(jsutil.ConnectConfig{URL: url, Name: "bench-worker"}); err != nil {
		return s, err
	}
	if s.worker, err = jetstream.New(s.workerNC); err != nil {
		return s, err
	}
	if s.client, err = client.New(s.nc); err != nil {
		return s, err
	}
	for _, args := range [][]string{
		{"dispatcher"}, {"statekeeper"}, {"worker", "--agent", "echo", "--concurrency", "64"},
	} {
		args = append(args, "--nats", url, "--log-level", "warn")
		if err := s.start(exec.Command(binary, args...), args[0]); err != nil {
			return s, err
		}
	}
	return s, s.warmUp(ctx)
}

// start starts a service with a log of its own.
func (s *setup) start(cmd *exec.Cmd, name string) error {
	p, err := cluster.StartProcess(cmd, name, s.dir)
	if err == nil {
		s.processes = append(s.processes, p)
	}
	return err
}

// warmUp submits a run as soon as the agent is known, and waits for its end.
func (s *setup) warmUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		agents, err := s.client.Agents(ctx)
		if err == nil && len(agents) > 0 {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the services did not come up, their logs are in %s: %w", s.dir, errors.Join(ctx.Err(), err))
		case <-time.After(50 * time.Millisecond):
		}
	}
	var lat latencies
	return s.oneByOne(ctx, 20, &lat)
}

// stop ends the processes, the broker last, and removes what they stored.
func (s *setup) stop() {
	for _, nc := range []*nats.Conn{s.nc, s.workerNC} {
		if nc != nil {
			nc.Close()
		}
	}
	for i := len(s.processes) - 1; i >= 0; i-- {
		_ = s.processes[i].Terminate(stopTime) // its exit code says nothing here
	}
	if s.broker != nil {
		_ = s.broker.Terminate(stopTime)
	}
	_ = os.RemoveAll(s.dir)
}

// submission is the job of ours: as large as the floor's.
func submission() contracts.Submission {
	return contracts.Submission{AgentKey: "echo", Input: contracts.Input{Messages: []contracts.Message{contracts.Text("user", string(body[:320]))}}}
}
