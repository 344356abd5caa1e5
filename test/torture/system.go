package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/test/cluster"
	"longhaul/test/torture/history"
)

// upTime bounds the start of anything.
const upTime = 40 * time.Second

// system is what is tortured, and the harness's own view of it.
type system struct {
	o       options
	dir     string
	self    string // the program whose processes are workers and readers
	skewed  string // the same with a clock that can be wrong
	begun   time.Time
	out     *history.Writer
	nodes   []*cluster.Node
	routes  cluster.Routes
	all     []*service
	nc      *nats.Conn // the harness's own, by no link
	js      jetstream.JetStream
	client  *client.Client
	book    *book
	losses  sync.Map // by run, what it has lost: see faults_data.go
	clients []*submitter
	talks   talks
	say     func(format string, args ...any)

	stopServices context.CancelFunc
	services     sync.WaitGroup
	stopBook     context.CancelFunc
	booking      sync.WaitGroup
	disks        []string // where small ones are mounted, one for each broker
	mu           sync.Mutex
	failed       []error // of supervision: what could not be started again
}

// newSystem starts brokers and services, and returns when runs are taken. Even
// with an error the caller has to call stop.
func newSystem(ctx context.Context, o options, dir string, say func(string, ...any)) (*system, error) {
	s := &system{o: o, dir: dir, begun: time.Now(), book: newBook(), say: say}
	for _, d := range []string{"result", "logs", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return s, err
		}
	}
	var err error
	if s.self, err = os.Executable(); err != nil {
		return s, err
	}
	if err := s.build(ctx); err != nil {
		return s, err
	}
	if s.out, err = history.Open(s.historyFile("harness"), "harness"); err != nil {
		return s, err
	}
	s.write(history.Entry{Kind: history.KindNote, Op: history.OpInfo, Note: history.NoteConfig, Config: o.config()})
	s.mountDisks()
	if s.nodes, s.routes, err = cluster.NewNodes(cluster.NodesConfig{Dir: dir, LogDir: filepath.Join(dir, "logs"), N: o.brokers, Links: true}); err != nil {
		return s, err
	}
	if err := s.connect(ctx); err != nil {
		return s, err
	}
	if err := s.startServices(ctx); err != nil {
		return s, err
	}
	return s, s.awaitReady(ctx)
}

// build builds what is not the program as it is.
func (s *system) build(ctx context.Context) (err error) {
	var flags []string
	if s.o.sabotage != "" {
		flags = []string{"-tags", "sabotage"}
	}
	if s.o.sabotage != "" && !s.o.built {
		s.say("building without %s", s.o.sabotage)
		if s.self, err = buildWith(ctx, s.dir, programTorture, flags...); err != nil {
			return err
		}
		if s.o.binary, err = buildWith(ctx, s.dir, programLonghaul, flags...); err != nil {
			return err
		}
	}
	if slices.Contains(s.o.faults, clockSkew) {
		s.say("building workers with a clock that can be wrong")
		s.skewed, err = buildSkewed(ctx, s.dir, flags...)
	}
	return err
}

// connect opens the harness's own connection and makes the topology.
func (s *system) connect(ctx context.Context) error {
	var err error
	if s.nc, err = jsutil.Connect(jsutil.ConnectConfig{URL: cluster.URLs(s.addrs()), Name: "harness", Retry: true}); err != nil {
		return err
	}
	if err := jsutil.WaitConnected(ctx, s.nc); err != nil {
		return err
	}
	if s.js, err = jsutil.JetStream(s.nc); err != nil {
		return err
	}
	if s.client, err = client.New(s.nc); err != nil {
		return err
	}
	top := jsutil.NewTopology(jsutil.TopologyOptions{Replicas: s.o.brokers, Storage: jetstream.FileStorage})
	return errors.Join(cluster.WaitFor(ctx, upTime, "the topology", func() bool {
		err = jsutil.EnsureTopology(ctx, s.js, top)
		return err == nil
	}), err)
}

func (s *system) addrs() []string {
	var all []string
	for _, n := range s.nodes {
		all = append(all, n.Addr)
	}
	return all
}

// startServices starts all of them, each under its supervisor.
func (s *system) startServices(ctx context.Context) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stopServices = stop
	for _, group := range []struct {
		kind    kind
		short   string
		n       int
		command func(int, *service) *exec.Cmd
	}{
		{kindDispatcher, "d", s.o.dispatchers, s.ofBinary},
		{kindStatekeeper, "s", s.o.statekeepers, s.ofBinary},
		{kindWorker, "w", s.o.workers, s.ofWorker},
		{kindReader, "r", s.o.readers, s.ofReader},
	} {
		for i := range group.n {
			sv := &service{kind: group.kind, name: fmt.Sprintf("%s-%d", group.short, i+1), dir: filepath.Join(s.dir, "logs"), command: group.command}
			links, err := s.links()
			if err != nil {
				return err
			}
			sv.links = links
			s.all = append(s.all, sv)
			s.services.Go(func() {
				if err := sv.supervise(running, s.ended(sv)); err != nil {
					s.mu.Lock()
					s.failed = append(s.failed, err)
					s.mu.Unlock()
				}
			})
		}
	}
	return nil
}

// links makes a link to each broker.
func (s *system) links() ([]*cluster.Link, error) {
	var all []*cluster.Link
	for _, n := range s.nodes {
		l, err := cluster.NewLink(n.Addr)
		if err != nil {
			return all, err
		}
		all = append(all, l)
	}
	return all, nil
}

// ended writes down that a process is gone. One that was not killed, did not
// stop as told, and was not ended by an agent has found a fault of its own.
func (s *system) ended(sv *service) func(string, error) {
	return func(who string, err error) {
		var exit *exec.ExitError
		switch {
		case err == nil:
			s.note("%s has stopped", who)
		case errors.As(err, &exit) && exit.ExitCode() == agentExit && sv.kind == kindWorker:
			s.write(history.Entry{Actor: "nemesis", Kind: history.KindFault, Op: history.OpInfo, Fault: &history.Fault{Name: history.FaultExit, Target: who, PID: exit.Pid()}})
		case errors.As(err, &exit) && exit.ExitCode() < 0: // by a signal
			s.note("%s ended: %v", who, err)
		default:
			s.note("%s ended by itself: %v", who, err)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.failed = append(s.failed, fmt.Errorf("%s ended by itself: %w; see %s.log", who, err, sv.name))
		}
	}
}

// awaitReady waits until the agents are known and somebody answers about runs,
// and begins to follow the log.
func (s *system) awaitReady(ctx context.Context) error {
	var err error
	if err := cluster.WaitFor(ctx, upTime, "workers and statekeepers", func() bool {
		var agents []client.Agent
		if agents, err = s.client.Agents(ctx); err == nil && len(agents) == len(agentKeys()) {
			_, err = s.client.Stats(ctx)
			return err == nil
		}
		return false
	}); err != nil {
		return fmt.Errorf("%w (%w); logs in %s", err, err, s.dir)
	}
	booking, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stopBook = stop
	s.booking.Go(func() { s.book.follow(booking, s.client) })
	// Following begins at a moment of its own. Runs that nobody can execute
	// show when that is past.
	return cluster.WaitFor(ctx, upTime, "the first event to be seen", func() bool {
		_, err = s.client.Submit(ctx, contracts.Submission{AgentKey: "nobody"})
		all, _ := s.book.counts()
		return all > 0
	})
}

// of lists the services of a kind.
func (s *system) of(k kind) []*service {
	var all []*service
	for _, sv := range s.all {
		if sv.kind == k {
			all = append(all, sv)
		}
	}
	return all
}

// stop ends everything, the brokers last.
func (s *system) stop() error {
	if s.stopServices != nil {
		s.stopServices()
		s.services.Wait()
	}
	if s.stopBook != nil {
		s.stopBook()
		s.booking.Wait()
	}
	if s.nc != nil {
		s.nc.Close()
	}
	var errs []error
	for _, n := range s.nodes {
		errs = append(errs, n.Kill())
	}
	for _, sv := range s.all {
		for _, l := range sv.links {
			l.Close()
		}
	}
	s.routes.Close()
	for _, d := range s.disks {
		errs = append(errs, unmount(d))
	}
	if s.out != nil {
		errs = append(errs, s.out.Close())
	}
	return errors.Join(errs...)
}

func (s *system) historyFile(name string) string {
	return filepath.Join(s.dir, "result", name+".jsonl")
}

// write writes an entry of the harness itself.
func (s *system) write(e history.Entry) {
	e.Mono = int64(time.Since(s.begun))
	if err := s.out.Write(e); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.failed = append(s.failed, err)
	}
}

func (s *system) note(format string, args ...any) {
	s.write(history.Entry{Kind: history.KindNote, Op: history.OpInfo, Text: fmt.Sprintf(format, args...)})
}

// troubles are what went wrong with the harness itself.
func (s *system) troubles() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.failed...)
}

func stderrLogger() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }
