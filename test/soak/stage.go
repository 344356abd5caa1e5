package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/client"
	"longhaul/pkg/jsutil"
	"longhaul/test/cluster"
)

// upTime bounds the start of everything.
const upTime = 30 * time.Second

// stage is the system: processes, the broker first, and a connection of ours.
type stage struct {
	dir     string
	broker  *cluster.Broker
	members []member
	nc      *nats.Conn
	js      jetstream.JetStream
}

// member is a service's process, and the address where it tells of itself.
type member struct {
	*cluster.Process
	http string
}

// startStage starts everything. Even with an error the caller has to call stop.
func startStage(ctx context.Context, o options) (s *stage, err error) {
	s = &stage{}
	if s.dir, err = os.MkdirTemp("", "longhaul-soak-"); err != nil {
		return s, err
	}
	if s.broker, err = cluster.StartBroker(cluster.BrokerConfig{Dir: s.store()}, s.dir); err != nil {
		return s, err
	}
	days := strconv.FormatFloat(o.retention.Hours()/24, 'f', -1, 64)
	for _, m := range [][]string{
		{"dispatcher", "dispatcher"},
		{"statekeeper", "statekeeper", "--retention-days", days},
		{"worker-1", "worker", "--agent", "echo", "--agent", "count", "--agent", "flaky", "--concurrency", "50"},
		{"worker-2", "worker", "--agent", "echo", "--agent", "count", "--agent", "flaky", "--concurrency", "50"},
	} {
		if err := s.start(o.binary, m[0], m[1:]); err != nil {
			return s, err
		}
	}
	if s.nc, err = jsutil.Connect(jsutil.ConnectConfig{URL: s.broker.URL, Name: "soak"}); err != nil {
		return s, err
	}
	if s.js, err = jsutil.JetStream(s.nc); err != nil {
		return s, err
	}
	c, err := client.New(s.nc)
	if err != nil {
		return s, err
	}
	return s, cluster.WaitFor(ctx, upTime, "the workers to register their agents", func() bool {
		agents, err := c.Agents(ctx)
		return err == nil && len(agents) == 3
	})
}

// store is the broker's directory.
func (s *stage) store() string { return filepath.Join(s.dir, "broker") }

func (s *stage) start(binary, name string, args []string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return err
	}
	args = append(args, "--nats", s.broker.URL, "--log-level", "warn", "--http", addr)
	p, err := cluster.StartProcess(exec.Command(binary, args...), name, s.dir)
	if err != nil {
		return err
	}
	s.members = append(s.members, member{p, addr})
	return nil
}

// stop ends the processes, the broker last, and removes what they stored. What
// a service had to say is an error: they log from warnings on.
func (s *stage) stop() error {
	if s.nc != nil {
		s.nc.Close()
	}
	var errs []error
	for _, m := range s.members {
		errs = append(errs, m.Terminate(upTime))
		if said, err := os.ReadFile(m.Log); err == nil && len(said) > 0 {
			fmt.Fprintf(os.Stderr, "%s said:\n%.2000s\n", m.Name, said)
		}
	}
	if s.broker != nil {
		errs = append(errs, s.broker.Terminate(upTime))
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
