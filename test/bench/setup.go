package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// setup is the system under measurement: processes, and two connections of
// ours, for a client and a worker of the floor.
type setup struct {
	dir       string
	processes []*exec.Cmd // the broker first
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
	url, err := s.startBroker()
	if err != nil {
		return s, fmt.Errorf("start the broker: %w", err)
	}
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
			return s, fmt.Errorf("start %s: %w", args[0], err)
		}
	}
	return s, s.warmUp(ctx)
}

func (s *setup) startBroker() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(self, "-broker", filepath.Join(s.dir, "broker"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := s.start(cmd, "broker"); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	return strings.TrimSpace(line), err
}

func (s *setup) start(cmd *exec.Cmd, name string) error {
	log, err := os.Create(filepath.Join(s.dir, name+".log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the process has its own handle of it
	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.processes = append(s.processes, cmd)
	return nil
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
		// A process that is gone already needs no signal, and its exit code says nothing here.
		_ = s.processes[i].Process.Signal(syscall.SIGTERM)
		_ = s.processes[i].Wait()
	}
	_ = os.RemoveAll(s.dir)
}

// submission is the job of ours: as large as the floor's.
func submission() contracts.Submission {
	return contracts.Submission{AgentKey: "echo", Input: contracts.Input{Messages: []contracts.Message{contracts.Text("user", string(body[:320]))}}}
}
