package statekeeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// Statekeeper is one instance of the service. Make it with New.
type Statekeeper struct {
	cfg      Config
	nc       *nats.Conn
	js       jetstream.JetStream
	topology jsutil.Topology
	ensuring sync.Mutex // one child at a time makes the topology anew

	projector *projector
	feed      *feed
	api       *api
	watchdog  *watchdog
}

// New checks cfg, all faults together, and builds an instance on nc. It does no
// I/O: nc may still be connecting.
func New(nc *nats.Conn, cfg Config) (*Statekeeper, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	js, err := jsutil.JetStream(nc)
	if err != nil {
		return nil, fmt.Errorf("new statekeeper: %w", err)
	}
	log, records := runlog.New(js), &records{js: js}
	s := &Statekeeper{cfg: cfg, nc: nc, js: js, topology: jsutil.NewTopology(cfg.Topology)}
	s.projector = newProjector(js, log, records, cfg)
	s.feed = &feed{js: js, logger: cfg.Logger}
	s.api = &api{nc: nc, feed: s.feed, records: records, log: log, counters: &s.projector.counters, version: cfg.Version, logger: cfg.Logger}
	s.watchdog = &watchdog{
		nc: nc, log: log, feed: s.feed, acting: s.projector.acting,
		interval: cfg.PingInterval, grace: cfg.TakeoverGrace, logger: cfg.Logger,
	}
	return s, nil
}

// Run works until ctx ends, and returns when every child has ended: nil then,
// an error only if the connection was closed under it or the broker refuses the
// topology. The broker may come, go and come back empty meanwhile.
func (s *Statekeeper) Run(ctx context.Context) error {
	if err := jsutil.WaitConnected(ctx, s.nc); err != nil {
		return s.ended(ctx, err)
	}
	if err := jsutil.WaitTopology(ctx, s.js, s.topology, s.cfg.Logger); err != nil {
		return s.ended(ctx, err)
	}
	s.cfg.Logger.Info("statekeeper started", "window", s.cfg.Window, "live_runs", s.cfg.LiveRuns,
		"ping_interval", s.cfg.PingInterval, "takeover_grace", s.cfg.TakeoverGrace, "version", s.cfg.Version)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var children sync.WaitGroup
	for name, run := range map[string]func(context.Context) error{
		"projector": s.projector.run, "index": s.feed.run, "api": s.api.run, "watchdog": s.watchdog.run,
	} {
		children.Go(func() { s.supervise(ctx, cancel, name, run) })
	}
	children.Wait()
	return s.ended(ctx, context.Cause(ctx))
}

// ended is Run's result: an error that came of a cancelled context is none.
func (s *Statekeeper) ended(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return nil
	}
	return fmt.Errorf("run statekeeper: %w", err)
}

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 2 * time.Second
	// steady is how long a child must have run for its next pause to be a first one.
	steady = 10 * time.Second
)

// supervise runs one child again and again until ctx ends. An error is logged
// and the child goes on; the pauses between grow while it fails at once.
func (s *Statekeeper) supervise(ctx context.Context, stop context.CancelCauseFunc, name string, run func(context.Context) error) {
	logger := s.cfg.Logger.With("child", name)
	pause := firstPause
	for ctx.Err() == nil {
		began := time.Now()
		err := run(ctx)
		if ctx.Err() != nil {
			return
		}
		if s.nc.IsClosed() {
			stop(nats.ErrConnectionClosed)
			return
		}
		if errors.Is(err, errReconnected) {
			logger.Info("connection was renewed, starting afresh")
			continue
		}
		if time.Since(began) > steady {
			pause = firstPause
		}
		logger.Warn("child failed, starting it again", "error", err, "pause", pause)
		if errors.Is(err, jsutil.ErrNoTopology) {
			s.ensureTopology(ctx, logger)
		}
		sleep(ctx, pause)
		pause = min(2*pause, maxPause)
	}
}

// ensureTopology makes what is missing on a broker that came back without it.
func (s *Statekeeper) ensureTopology(ctx context.Context, logger *slog.Logger) {
	s.ensuring.Lock()
	defer s.ensuring.Unlock()
	if err := jsutil.WaitTopology(ctx, s.js, s.topology, logger); err != nil && ctx.Err() == nil {
		logger.Error("cannot create the topology", "error", err)
	}
}

// errReconnected ends a child's turn after a reconnect: what it knew of the
// broker may be void, and starting afresh is how it finds out.
var errReconnected = errors.New("connection was renewed")

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
