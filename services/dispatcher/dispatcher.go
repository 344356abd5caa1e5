package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// Config is a dispatcher's configuration. The zero value works.
type Config struct {
	// AcceptUnknownAgents takes submissions for agents that no worker has ever
	// registered; their runs wait until one does.
	AcceptUnknownAgents bool
	// Topology is how streams are made that do not exist yet.
	Topology jsutil.TopologyOptions
	// Prefetch is how many messages of each consumer are held here unhandled. Default 256.
	Prefetch int
	// Concurrency bounds the messages of each consumer that are handled off the
	// fast lane at once. Default 64.
	Concurrency int
	// HolderTimeout is how long the holder of a run is given to answer a cancel. Default 1 s.
	HolderTimeout time.Duration
	// DrainTimeout is how long Run, once told to end, waits for what is under way. Default 5 s.
	DrainTimeout time.Duration
	// Logger defaults to slog.Default().
	Logger *slog.Logger
}

const (
	defaultPrefetch      = 256
	defaultConcurrency   = 64
	defaultHolderTimeout = time.Second
	defaultDrainTimeout  = 5 * time.Second

	maxPrefetch    = 4096 // deliveries wait for their turn, and their AckWait runs
	maxConcurrency = 1024

	// stepTimeout bounds one step towards the broker. It leaves runlog the time
	// to find out what became of an append whose ack was lost, and ends before
	// the consumers' AckWait.
	stepTimeout = 15 * time.Second
)

// check fills the defaults and reports every fault.
func (c *Config) check() error {
	var faults []error
	number := func(name string, v *int, def, most int) {
		if *v == 0 {
			*v = def
		}
		if *v < 1 || *v > most {
			faults = append(faults, fmt.Errorf("%s must be 1 to %d, not %d", name, most, *v))
		}
	}
	duration := func(name string, v *time.Duration, def time.Duration) {
		if *v == 0 {
			*v = def
		}
		if *v < 0 {
			faults = append(faults, fmt.Errorf("%s must not be negative, and is %s", name, *v))
		}
	}
	number("prefetch", &c.Prefetch, defaultPrefetch, maxPrefetch)
	number("concurrency", &c.Concurrency, defaultConcurrency, maxConcurrency)
	duration("holder timeout", &c.HolderTimeout, defaultHolderTimeout)
	duration("drain timeout", &c.DrainTimeout, defaultDrainTimeout)
	if r := c.Topology.Replicas; r < 0 || r > 5 {
		faults = append(faults, fmt.Errorf("replicas must be 1 to 5, not %d", r))
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return errors.Join(faults...)
}

// Dispatcher is the service. Make it with New; Run may be called once.
type Dispatcher struct {
	cfg    Config
	broker *broker
	log    *runlog.Log
	agents *agents
	repair *repair
	logger *slog.Logger
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
	b := &broker{nc: nc, js: js}
	return &Dispatcher{
		cfg: cfg, broker: b, log: runlog.New(js), logger: cfg.Logger,
		agents: newAgents(b, cfg.Logger),
		repair: newRepair(js, jsutil.NewTopology(cfg.Topology), cfg.Logger),
	}, nil
}

// Run serves until ctx ends; it then takes nothing more, waits at most
// DrainTimeout for what is under way, and returns nil. It waits for a broker
// that is not there yet and makes the topology if there is none. An error
// means that the topology that stands there cannot be used.
func (d *Dispatcher) Run(ctx context.Context) error {
	if err := d.prepare(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("start the dispatcher: %w", err)
	}
	d.logger.Info("dispatcher runs", "accept_unknown_agents", d.cfg.AcceptUnknownAgents, "prefetch", d.cfg.Prefetch)

	// What is under way outlives ctx by the time to drain.
	work, cancel := withGrace(ctx, d.cfg.DrainTimeout)
	defer cancel()
	handler := handler{broker: d.broker, log: d.log, repair: d.repair, logger: d.logger}
	submits := newSubmitter(handler, d.agents, d.cfg)
	commands := &commands{handler: handler, lane: newLane(d.cfg.Concurrency), holderTimeout: d.cfg.HolderTimeout}
	schedules := &schedules{handler: handler, lane: newLane(d.cfg.Concurrency)}

	var wg sync.WaitGroup
	wg.Go(func() { d.repair.run(ctx) })
	wg.Go(func() { d.agents.run(ctx) })
	wg.Go(func() {
		submits.run(work, func(handle func(*jsutil.Delivery)) {
			d.take(ctx, contracts.StreamInbox, contracts.ConsumerSubmit, handle)
		})
	})
	wg.Go(func() {
		d.take(ctx, contracts.StreamInbox, contracts.ConsumerCommands, func(m *jsutil.Delivery) { commands.handle(work, m) })
		commands.lane.wait()
	})
	wg.Go(func() {
		d.take(ctx, contracts.StreamSchedule, contracts.ConsumerSchedule, func(m *jsutil.Delivery) { schedules.handle(work, m) })
		schedules.lane.wait()
	})
	wg.Wait()
	d.flush()
	d.logger.Info("dispatcher ended")
	return nil
}

// prepare waits until there is something to work with.
func (d *Dispatcher) prepare(ctx context.Context) error {
	if err := jsutil.WaitConnected(ctx, d.broker.nc); err != nil {
		return err
	}
	if err := jsutil.WaitTopology(ctx, d.broker.js, d.repair.topology, d.logger); err != nil {
		return err
	}
	// Known agents from the first message on, so that the first submissions
	// need not leave the fast lane, which alone keeps the order. Failing is no harm.
	d.agents.refresh(ctx)
	return nil
}

// flush sends the last acks on their way, for the caller may close the connection.
func (d *Dispatcher) flush() {
	if !d.broker.nc.IsConnected() {
		return
	}
	if err := d.broker.nc.FlushTimeout(time.Second); err != nil {
		d.logger.Warn("last acks may not have been sent", "error", err)
	}
}

// handler is what everything that handles messages has in common.
type handler struct {
	broker *broker
	log    *runlog.Log
	repair *repair
	logger *slog.Logger
}

// errDrained is the cause by which what is under way ends when the time to drain is over.
var errDrained = errors.New("dispatcher ends")

// withGrace returns a context that ends d after ctx has.
func withGrace(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	graced, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(d, func() { cancel(errDrained) })
	})
	return graced, func() {
		stop()
		cancel(errDrained)
	}
}

// pause waits for d, and returns early if ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// translate is jsutil.Translate for the answer of a JetStream call, with what was being done.
func translate(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, jsutil.Translate(err))
}
