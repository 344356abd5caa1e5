package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"longhaul/test/cluster"
)

// kind is what a service is.
type kind string

// The kinds.
const (
	kindDispatcher  kind = "dispatcher"
	kindStatekeeper kind = "statekeeper"
	kindWorker      kind = "worker"
	kindReader      kind = "reader"
)

// service is a process that is started again when it ends, as a supervisor on
// a machine would have it. It reaches each broker by a link of its own.
type service struct {
	kind    kind
	name    string
	links   []*cluster.Link
	dir     string // of its log
	command func(life int, s *service) *exec.Cmd

	mu     sync.Mutex
	proc   *cluster.Process
	life   int
	id     string        // of a worker: its name among all, in this life
	keepID bool          // whether the next life keeps it
	rest   time.Duration // before the next life
	skew   time.Duration // of its wall clock, in the lives to come
}

// upkeep is how long a service stays down that ended by itself.
const upkeep = 200 * time.Millisecond

// addrs are where its links listen.
func (s *service) addrs() []string {
	var all []string
	for _, l := range s.links {
		all = append(all, l.Addr())
	}
	return all
}

// supervise starts it and starts it again until ctx ends, then kills it. ended
// is told of every life that ended before that.
func (s *service) supervise(ctx context.Context, ended func(who string, err error)) error {
	for {
		p, who, err := s.begin()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return p.Kill()
		case <-p.Done():
		}
		ended(who, p.Wait())
		if cluster.Sleep(ctx, s.resting()) != nil {
			return nil // told to stop
		}
	}
}

// begin starts the next life and says who it is.
func (s *service) begin() (*cluster.Process, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life++
	if s.id == "" || !s.keepID {
		s.id = fmt.Sprintf("%s-%d", s.name, s.life)
	}
	s.keepID = false
	p, err := cluster.StartProcess(s.command(s.life, s), s.name, s.dir)
	if err != nil {
		return nil, "", err
	}
	s.proc = p
	return p, s.called(), nil
}

// resting returns the pause before the next life; what was asked for holds once.
func (s *service) resting() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.rest
	s.rest = 0
	return max(d, upkeep)
}

// next says what the life after this one is to be like.
func (s *service) next(rest time.Duration, keepID bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest, s.keepID = rest, keepID
}

// process is that of its present life; it may have ended.
func (s *service) process() *cluster.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// who is the worker's id in its present life, or else the service's name.
func (s *service) who() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.called()
}

// called is who, with mu held.
func (s *service) called() string {
	if s.kind == kindWorker {
		return s.id
	}
	return s.name
}

// setSkew says how far the wall clock of the lives to come is ahead.
func (s *service) setSkew(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skew = d
}

// signal sends a signal to the process if it is there.
func (s *service) signal(sig syscall.Signal) error {
	p := s.process()
	if p == nil || !p.Running() {
		return nil
	}
	if err := p.Signal(sig); err != nil && p.Running() {
		return err
	}
	return nil
}

// ofBinary is the command of a service of the binary.
func (s *system) ofBinary(_ int, sv *service) *exec.Cmd {
	cmd := exec.Command(s.o.binary, string(sv.kind), "--nats", cluster.URLs(sv.addrs()), "--replicas", fmt.Sprint(s.o.brokers), "--log-level", "info")
	cmd.Env = append(os.Environ(), s.o.environment()...)
	return cmd
}

// ofWorker is the command of a worker: this program again, or the build of it
// whose clock can be put ahead.
func (s *system) ofWorker(life int, sv *service) *exec.Cmd {
	f := workerFlags{
		id: sv.id, nats: cluster.URLs(sv.addrs()), history: s.historyFile(fmt.Sprintf("%s-%d", sv.name, life)),
		replicas: s.o.brokers, slots: s.o.slots, lease: s.o.lease, drain: s.o.drain, retryMax: s.o.retryMax, skew: sv.skew,
	}
	self := s.self
	if sv.skew != 0 {
		self = s.skewed
	}
	cmd := exec.Command(self, f.args()...)
	cmd.Env = append(os.Environ(), s.o.environment()...)
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", skewVariable, int(sv.skew.Seconds())))
	return cmd
}

// ofReader is the command of a process of readers.
func (s *system) ofReader(life int, sv *service) *exec.Cmd {
	f := readerFlags{
		name: fmt.Sprintf("%s-%d", sv.name, life), nats: cluster.URLs(sv.addrs()), history: s.historyFile(fmt.Sprintf("%s-%d", sv.name, life)),
		seed: s.o.seed + uint64(life),
	}
	cmd := exec.Command(s.self, f.args()...)
	cmd.Env = append(os.Environ(), s.o.environment()...)
	return cmd
}
