package dispatcher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/metrics"
	"longhaul/pkg/runlog"
	"longhaul/pkg/tracing"
)

// Config is a dispatcher's configuration. The zero value works.
type Config struct {
	// AcceptUnknownAgents takes submissions for agents that no worker has ever
	// registered; their runs wait until one does.
	AcceptUnknownAgents bool
	// MaxTimeout is the longest time for one attempt that a submission may ask
	// for; default, and at most, contracts.MaxTimeoutSeconds.
	MaxTimeout time.Duration
	// Topology is how streams are made that do not exist yet.
	Topology jsutil.TopologyOptions
	// Metrics is where the dispatcher's metrics are registered; nil for nowhere.
	// It holds one dispatcher.
	Metrics prometheus.Registerer
	// Tracer makes spans of submissions; nil makes none.
	Tracer *tracing.Tracer
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

const (
	// inFlight bounds, for each consumer, the messages that are handled beside
	// one another. More would only wait longer for their turn.
	inFlight = 256
	// stepTimeout bounds the handling of one message. It leaves runlog the time
	// to find out what became of an append whose ack was lost.
	stepTimeout = 15 * time.Second
	// drainTimeout is how long what is under way may go on once Run is told to end.
	drainTimeout = 5 * time.Second
	// tendPause keeps a broker that is in trouble from being asked all the time.
	tendPause = time.Second
)

// check fills the defaults and reports every fault.
func (c *Config) check() error {
	const longest = contracts.MaxTimeoutSeconds * time.Second
	c.Logger = cmp.Or(c.Logger, slog.Default())
	c.MaxTimeout = cmp.Or(c.MaxTimeout, longest)
	var faults []error
	if c.MaxTimeout < 0 || c.MaxTimeout > longest {
		faults = append(faults, fmt.Errorf("max_timeout must be above 0 and at most %s, not %s", longest, c.MaxTimeout))
	}
	if r := c.Topology.Replicas; r < 0 || r > 5 {
		faults = append(faults, fmt.Errorf("replicas must be 1 to 5, not %d", r))
	}
	return errors.Join(faults...)
}

// Dispatcher is the service. Make it with New; Run may be called once.
type Dispatcher struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	cfg    Config
	log    *runlog.Log
	agents *agents
	logger *slog.Logger
	held   held
	meters *metrics.Dispatcher
	// suspected says that a stream or consumer may be missing. Whoever meets an
	// error that can come from that sets it: a publish to a stream that is gone
	// looks just like one to a broker without a leader.
	suspected atomic.Bool
}

// New returns a dispatcher that works over nc, which it leaves open. It does
// no I/O: the broker need not be there yet. The error reports every fault of cfg.
func New(nc *nats.Conn, cfg Config) (*Dispatcher, error) {
	err := cfg.check()
	if nc == nil {
		err = errors.Join(err, errors.New("a connection is needed"))
	}
	if err != nil {
		return nil, fmt.Errorf("configure the dispatcher: %w", err)
	}
	js, err := jsutil.JetStream(nc)
	if err != nil {
		return nil, fmt.Errorf("make the dispatcher: %w", err)
	}
	meters, err := metrics.NewDispatcher(cfg.Metrics)
	return &Dispatcher{
		nc: nc, js: js, cfg: cfg, log: runlog.New(js), agents: newAgents(js, cfg.Logger), logger: cfg.Logger, meters: meters,
		held: held{since: make(map[*jsutil.Delivery]time.Time)},
	}, err
}

// Run serves until ctx ends; it then takes nothing more, lets what is under
// way go on for a few seconds, and returns nil. It waits for a broker that is
// not there yet and makes the topology if there is none. An error means that
// the topology that stands there cannot be used.
func (d *Dispatcher) Run(ctx context.Context) error {
	if err := d.prepare(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("start the dispatcher: %w", err)
	}
	d.logger.Info("dispatcher runs", "accept_unknown_agents", d.cfg.AcceptUnknownAgents, "max_timeout", d.cfg.MaxTimeout)

	// What is under way outlives ctx by the time to drain.
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(errDrained)
	defer context.AfterFunc(ctx, func() { time.AfterFunc(drainTimeout, func() { cancel(errDrained) }) })()

	var wg, holding sync.WaitGroup
	inHand, letGo := context.WithCancel(work)
	holding.Go(func() { d.held.keep(inHand) })
	wg.Go(func() { d.tend(ctx) })
	wg.Go(func() { d.takeSubmissions(ctx, work) })
	// Commands have a consumer of their own, so that a backlog of submissions
	// never delays a cancel.
	wg.Go(func() { d.takeCommands(ctx, work, contracts.StreamInbox, contracts.ConsumerCommands) })
	// And so have signals, which may wait for long.
	wg.Go(func() { d.takeCommands(ctx, work, contracts.StreamInbox, contracts.ConsumerSignals) })
	wg.Go(func() { d.takeCommands(ctx, work, contracts.StreamSchedule, contracts.ConsumerSchedule) })
	wg.Wait()
	letGo()
	holding.Wait()

	// The last acks are to be on their way, for the caller may close the connection.
	if d.nc.IsConnected() {
		if err := d.nc.FlushTimeout(time.Second); err != nil {
			d.logger.Warn("last acks may not have been sent", "error", err)
		}
	}
	d.logger.Info("dispatcher ended")
	return nil
}

// prepare waits until there is something to work with.
func (d *Dispatcher) prepare(ctx context.Context) error {
	if err := jsutil.WaitConnected(ctx, d.nc); err != nil {
		return err
	}
	if err := jsutil.WaitTopology(ctx, d.js, jsutil.NewTopology(d.cfg.Topology), d.logger); err != nil {
		return err
	}
	// Known agents from the first message on, so that the first submissions
	// need not leave the fast lane, which alone keeps the order. Failing is no harm.
	d.agents.refresh(ctx, time.Now())
	return nil
}

// tend keeps in order what everything else relies on, until ctx ends: streams
// and consumers that are missed are made again, the copy of the agents is kept fresh.
func (d *Dispatcher) tend(ctx context.Context) {
	defer d.meters.Tend.Stop()
	for ; ctx.Err() == nil; jsutil.Sleep(ctx, tendPause) {
		d.meters.Tend.Turn()
		if !d.nc.IsConnected() {
			continue
		}
		if d.suspected.Swap(false) {
			step, cancel := context.WithTimeout(ctx, stepTimeout)
			if err := jsutil.EnsureTopology(step, d.js, jsutil.NewTopology(d.cfg.Topology)); err != nil {
				d.logger.Warn("topology could not be ensured", "error", err)
			}
			cancel()
		}
		d.agents.refresh(ctx, time.Now().Add(-agentsTTL))
	}
}

// append writes what draft says on top of at, and returns the event as it
// stands in the log. ErrConflict says that another one stands there.
func (d *Dispatcher) append(ctx context.Context, at runlog.Head, runID string, draft contracts.Draft) (runlog.Entry, error) {
	event, err := contracts.Next(at.Head, runID, draft, time.Now())
	if err != nil {
		return runlog.Entry{}, fmt.Errorf("draft %s: %w", draft.Type, err)
	}
	head, err := d.log.Append(ctx, at, event)
	return runlog.Entry{Event: event, Sequence: head.Sequence}, err
}
