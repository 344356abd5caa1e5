package statekeeper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/metrics"
	"longhaul/pkg/runlog"
)

// Statekeeper is one instance of the service. Make it with New.
type Statekeeper struct {
	cfg      Config
	nc       *nats.Conn
	js       jetstream.JetStream
	topology jsutil.Topology

	projector *projector
	feed      *feed
	api       *api
	watchdog  *watchdog
	sweeper   *sweeper
	auditor   *sweeper
	retirer   *sweeper
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
	s := &Statekeeper{cfg: cfg, nc: nc, js: js, topology: jsutil.NewTopology(cfg.Topology)}
	s.feed = &feed{js: js, logger: cfg.Logger}
	f := folding{log: runlog.New(js), counters: new(counters), logger: cfg.Logger, keep: cfg.CheckpointHistory, due: new(sync.Map)}
	f.counters.meters, err = metrics.NewStatekeeper(cfg.Metrics, metrics.StatekeeperSource{JS: js, Logger: cfg.Logger,
		Stats: f.counters.stats,
		Runs:  func() map[contracts.Status]int { return s.feed.current().stats().ByStatus }})
	s.projector = newProjector(js, f, s.feed)
	s.api = &api{folding: f, nc: nc, feed: s.feed, records: s.projector.records, version: cfg.Version}
	s.sweeper = newSweeper(s, (*sweeper).look, sweepInterval, sweepShare)
	s.auditor = newSweeper(s, (*sweeper).audit, auditInterval, 0) // reads every run, and rests in between: the others are not to wait for it
	s.retirer = newSweeper(s, (*sweeper).expire, retireInterval, 1)
	s.api.sweeper = s.sweeper
	s.watchdog = &watchdog{api: s.api, acting: s.projector.acting, interval: pingInterval, grace: takeoverGrace}
	return s, err
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
	s.cfg.Logger.Info("statekeeper started", "version", s.cfg.Version)
	// Whatever ends ctx, the children see a plain cancellation: a cause tells
	// them of a failure.
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(nil) })()
	var children sync.WaitGroup
	for name, run := range map[string]func(context.Context) error{
		"projector": untilRenewed(s.nc, s.projector.run), "index": untilRenewed(s.nc, s.feed.run),
		"api": s.api.run, "watchdog": s.watchdog.run, "sweeper": s.sweeper.run, "auditor": s.auditor.run, "retirer": s.retirer.run,
		"history": s.sweeper.keepNewest,
	} {
		children.Go(func() { s.supervise(work, cancel, name, run) })
	}
	children.Wait()
	return s.ended(ctx, context.Cause(work))
}

// ended is Run's result: an error that came of a cancelled context is none.
func (s *Statekeeper) ended(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("run statekeeper: %w", err)
}

// pause is between a child's failure and its next start.
const pause = 500 * time.Millisecond

// supervise runs one child again and again until ctx ends. An error is logged
// and the child goes on, on a broker that came back empty with a new topology.
func (s *Statekeeper) supervise(ctx context.Context, stop context.CancelCauseFunc, name string, run func(context.Context) error) {
	logger := s.cfg.Logger.With("child", name)
	for {
		err := run(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case s.nc.IsClosed():
			stop(nats.ErrConnectionClosed)
			return
		case errors.Is(err, errReconnected):
			logger.Info("connection was renewed, starting afresh")
			continue
		}
		s.api.counters.meters.Failed(name)
		logger.Warn("child failed, starting it again", "error", err)
		if errors.Is(err, jsutil.ErrNoTopology) {
			if err = jsutil.WaitTopology(ctx, s.js, s.topology, logger); err != nil && ctx.Err() == nil {
				logger.Error("cannot create the topology", "error", err)
			}
		}
		jsutil.Sleep(ctx, pause)
	}
}
