// Command upgrade swaps the services of a running system for those of another
// version and back, one after the other, old and new side by side, while runs
// keep coming. Nothing may be lost, and nothing executed twice:
//
//	make upgrade-test OLD=v0.1.0
//
// Each run is judged by its log: it follows the transition table, ends in one
// terminal event, as it should, and no attempt was ever begun but the first and
// those that follow on a drain.
//
// With -record it makes a recording instead, for the test in this package, which
// replays what former services have left on a broker to today's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
	"longhaul/test/cluster"
)

func main() { os.Exit(program()) }

func program() int {
	served, err := cluster.ServeBroker()
	if !served && err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		err = run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "upgrade:", err)
		return 1
	}
	return 0
}

// options are what the command line says.
type options struct {
	before, after string
	perSecond     int
	aside         time.Duration
	agents        []string
}

func run(ctx context.Context) (err error) {
	var o options
	flag.StringVar(&o.before, "old", "", "binary of the old version")
	flag.StringVar(&o.after, "new", "bin/longhaul", "binary of the new version")
	flag.IntVar(&o.perSecond, "rate", 30, "runs submitted each second")
	flag.DurationVar(&o.aside, "aside", 3*time.Second, "how long old and new run side by side at each swap")
	recording := flag.String("record", "", "have the old version make a recording for the replay, in this file, and no more")
	flag.Parse()
	if o.before == "" {
		return errors.New("-old names no binary")
	}
	if o.agents = []string{"count"}; *recording != "" {
		o.agents = []string{"count", "echo", "flaky"}
		return record(ctx, o, *recording)
	}
	s, err := newStage(ctx, o)
	defer func() { err = errors.Join(err, s.stop(err != nil)) }()
	if err != nil {
		return err
	}
	loading, enough := context.WithCancel(ctx)
	defer enough()
	var ids []string
	var failed error
	var load sync.WaitGroup
	load.Go(func() { ids, failed = s.submit(ctx, loading) })
	err = s.swapAll(ctx)
	enough()
	load.Wait()
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	return s.judge(ctx, ids)
}

// stage is the system under test.
type stage struct {
	options
	dir     string
	broker  *cluster.Broker
	client  *client.Client
	log     *runlog.Log
	js      jetstream.JetStream
	hangUp  func()
	started int
	current map[string]*cluster.Process // by service
}

// newStage starts a broker, and all services of the old version. Even with an
// error the caller calls stop.
func newStage(ctx context.Context, o options) (*stage, error) {
	s := &stage{options: o, current: map[string]*cluster.Process{}, hangUp: func() {}}
	var err error
	if s.dir, err = os.MkdirTemp("", "longhaul-upgrade-"); err != nil {
		return s, err
	}
	if s.broker, err = cluster.StartBroker(cluster.BrokerConfig{Dir: filepath.Join(s.dir, "broker")}, s.dir); err != nil {
		return s, err
	}
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: s.broker.URL, Name: "upgrade", Retry: true})
	if err != nil {
		return s, err
	}
	s.hangUp = nc.Close
	js, err := jsutil.JetStream(nc)
	if err == nil {
		s.client, err = client.New(nc)
	}
	if err != nil {
		return s, err
	}
	s.log, s.js = runlog.New(js), js
	for _, service := range services() {
		if s.current[service], err = s.start(s.before, service); err != nil {
			return s, err
		}
	}
	return s, s.await(ctx)
}

func services() []string { return []string{"dispatcher", "worker", "statekeeper"} }

func (s *stage) start(binary, service string) (*cluster.Process, error) {
	s.started++
	args := []string{service, "--nats", s.broker.URL}
	if service == "worker" {
		for _, key := range s.agents {
			args = append(args, "--agent", key)
		}
		args = append(args, "--concurrency", "50", "--drain-timeout-seconds", "1", "--worker-id", fmt.Sprintf("w-%d", s.started))
	}
	return cluster.StartProcess(exec.Command(binary, args...), fmt.Sprintf("%d-%s", s.started, service), s.dir)
}

// await waits until the system does what it is for.
func (s *stage) await(ctx context.Context) error {
	return cluster.WaitFor(ctx, time.Minute, "the agent to be registered and a statekeeper to answer", func() bool {
		agents, err := s.client.Agents(ctx)
		_, statsErr := s.client.Stats(ctx)
		return err == nil && statsErr == nil && len(agents) == len(s.agents)
	})
}

// swapAll goes forward service by service, and back.
func (s *stage) swapAll(ctx context.Context) error {
	for _, way := range []struct{ name, binary string }{{"forward", s.after}, {"back", s.before}, {"forward again", s.after}} {
		for _, service := range services() {
			begun := time.Now()
			next, err := s.start(way.binary, service)
			if err != nil {
				return err
			}
			old := s.current[service]
			s.current[service] = next
			if err := cluster.Sleep(ctx, s.aside); err != nil {
				return errors.Join(err, old.Kill())
			}
			if !next.Running() {
				return errors.Join(fmt.Errorf("%s: %s has ended: %w; see %s", way.name, service, next.Wait(), next.Log), old.Kill())
			}
			if err := old.Terminate(time.Minute); err != nil {
				return fmt.Errorf("%s: end %s: %w", way.name, service, err)
			}
			fmt.Printf("%-14s %-12s swapped in %s\n", way.name, service, time.Since(begun).Round(10*time.Millisecond))
		}
	}
	return nil
}

// submit submits at an even rate until loading ends, and returns what was acknowledged.
func (s *stage) submit(ctx, loading context.Context) (ids []string, err error) {
	for loading.Err() == nil {
		sub := contracts.Submission{RunID: contracts.NewRunID(), AgentKey: "count", MaxAttempts: 5}
		switch len(ids) % 10 {
		case 0: // waits for its time
			sub.NotBefore = time.Now().Add(2 * time.Second)
			fallthrough
		case 1: // is cut short by drains, and goes on from a checkpoint elsewhere
			sub.Input.Params = []byte(`{"n":60,"pause_ms":100}`)
		default:
			sub.Input.Params = []byte(`{"n":3,"pause_ms":20}`)
		}
		if _, err := s.client.Submit(ctx, sub); err != nil {
			return ids, fmt.Errorf("submit: %w", err)
		}
		ids = append(ids, sub.RunID)
		select {
		case <-loading.Done():
		case <-time.After(time.Second / time.Duration(s.perSecond)):
		}
	}
	return ids, nil
}

// judge waits for every run's end and looks at its log.
func (s *stage) judge(ctx context.Context, ids []string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var faults []error
	drained := 0
	for _, id := range ids {
		var head contracts.Head
		starts, ends, drains := 0, 0, 0
		for e, err := range s.log.Follow(ctx, id, runlog.FollowOptions{UntilEnd: true}) {
			if err == nil {
				head, err = contracts.Apply(head, e.Event)
			}
			if err != nil {
				return fmt.Errorf("run %s: %w", id, err)
			}
			switch {
			case e.Type == contracts.TypeStarted:
				starts++
			case e.Type == contracts.TypeRequeued:
				drains++
			case e.Type.Terminal():
				ends++
			}
		}
		drained += drains
		if head.Status != contracts.StatusSucceeded || ends != 1 || starts != 1+drains || head.Attempt != 1 {
			faults = append(faults, fmt.Errorf("run %s: %s after %d starts, %d drains and %d ends, attempt %d", id, head.Status, starts, drains, ends, head.Attempt))
		}
	}
	if err := cluster.WaitFor(ctx, time.Minute, "every status to say what its log says", func() bool {
		stats, err := s.client.Stats(ctx)
		return err == nil && stats.ByStatus[contracts.StatusSucceeded] == len(ids) && stats.Total == len(ids)
	}); err != nil && len(faults) == 0 {
		faults = append(faults, err)
	}
	fmt.Printf("%d runs, each ended once; %d were given back by a drain and went on elsewhere\n", len(ids)-len(faults), drained)
	return errors.Join(faults...)
}

// stop ends everything, and keeps the logs of the processes if they are needed.
func (s *stage) stop(keep bool) error {
	var errs []error
	for _, p := range s.current {
		if p != nil {
			errs = append(errs, p.Terminate(time.Minute))
		}
	}
	s.hangUp()
	if s.broker != nil {
		errs = append(errs, s.broker.Terminate(time.Minute))
	}
	if keep {
		fmt.Fprintln(os.Stderr, "what the processes said is in", s.dir)
	} else {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
