package statekeeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// projector consumes RUNS_LOG and writes status records. run is called by one
// goroutine; acting and counters may be used by others.
type projector struct {
	js      jetstream.JetStream
	log     *runlog.Log
	records *records
	logger  *slog.Logger
	window  time.Duration
	live    int
	// consumer and group name the durable consumer and its priority group; a
	// consumer without one has group "".
	consumer, group string

	cons     jetstream.Consumer // kept over sessions, for it knows the pin; run's own
	pin      atomic.Value       // string: the pin of the last message delivered
	counters counters
}

// counters are what the projector has done since the start.
type counters struct {
	Events    atomic.Int64 // folded
	Writes    atomic.Int64 // records sent to be stored
	Conflicts atomic.Int64 // of those, refused because another stood there
	Rebuilt   atomic.Int64 // records made anew from the log
	Poison    atomic.Int64 // events that could not be decoded
}

func newProjector(js jetstream.JetStream, log *runlog.Log, records *records, cfg Config) *projector {
	return &projector{
		js: js, log: log, records: records, logger: cfg.Logger, window: cfg.Window, live: cfg.LiveRuns,
		consumer: contracts.ConsumerProjector, group: jsutil.ProjectorGroup,
	}
}

const (
	// pullExpiry must stay well below the consumer's PinnedTTL: it is the pull
	// requests that keep the pin.
	pullExpiry = time.Second
	// pullMessages bounds what is delivered and not yet looked at.
	pullMessages = 1000
	// finishWait bounds the writes and the farewell of an instance that stops.
	finishWait = 2 * time.Second
)

// run consumes until ctx ends, the connection is renewed or something fails.
// Whatever it held is then in the log and, unacknowledged, with the consumer.
func (p *projector) run(ctx context.Context) error {
	nc := p.js.Conn()
	renewed := nc.StatusChanged(nats.CONNECTED)
	defer nc.RemoveStatusListener(renewed)
	if err := jsutil.WaitConnected(ctx, nc); err != nil {
		return err
	}
	if err := p.lookup(ctx); err != nil {
		return err
	}
	deliveries := make(chan jetstream.Msg)
	failed := make(chan error, 1)
	stop := make(chan struct{})
	opts := []jetstream.PullConsumeOpt{
		jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullExpiry / 2), jetstream.PullMaxMessages(pullMessages),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			if err = p.serious(err); err == nil {
				return
			}
			select {
			case failed <- err:
			default:
			}
		}),
	}
	if p.group != "" {
		opts = append(opts, jetstream.PullPriorityGroup(p.group))
	}
	consuming, err := p.cons.Consume(func(m jetstream.Msg) {
		select {
		case deliveries <- m:
		case <-stop: // not acknowledged: whoever is active next gets it
		}
	}, opts...)
	if err != nil {
		return fmt.Errorf("consume %s: %w", p.consumer, jsutil.Translate(err))
	}
	s := newSession(p)
	err = s.loop(ctx, deliveries, renewed, failed)
	close(stop)
	consuming.Stop()
	<-consuming.Closed()
	s.close()
	if ctx.Err() != nil {
		p.unpin(context.WithoutCancel(ctx))
		return nil
	}
	return err
}

// lookup finds the consumer. The handle is kept, unless the consumer has gone.
func (p *projector) lookup(ctx context.Context) error {
	if p.cons != nil {
		_, err := p.cons.Info(ctx)
		if err == nil {
			return nil
		}
		p.cons = nil
		if err = jsutil.Translate(err); !errors.Is(err, jsutil.ErrNoTopology) {
			return fmt.Errorf("look consumer %s up: %w", p.consumer, err)
		}
	}
	cons, err := p.js.Consumer(ctx, contracts.StreamLog, p.consumer)
	if err != nil {
		return fmt.Errorf("look consumer %s up: %w", p.consumer, jsutil.Translate(err))
	}
	p.cons = cons
	return nil
}

// serious returns those errors of the client's consumer after which consuming
// begins anew; the others it deals with itself.
func (p *projector) serious(err error) error {
	switch {
	case errors.Is(err, jetstream.ErrConsumerDeleted), errors.Is(err, jetstream.ErrConsumerNotFound):
		return fmt.Errorf("consume %s: %w: %w", p.consumer, jsutil.ErrNoTopology, err)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoHeartbeat),
		errors.Is(err, jetstream.ErrBadRequest), errors.Is(err, jetstream.ErrConnectionClosed):
		return fmt.Errorf("consume %s: %w", p.consumer, jsutil.Translate(err))
	}
	return nil
}

// acting says whether this instance is the one that acts for all: the pinned
// one, or any if nobody is pinned, as when the pinned one died while nothing
// went on.
func (p *projector) acting(ctx context.Context) (bool, error) {
	pinned, err := p.pinned(ctx)
	if err != nil {
		return false, err
	}
	mine, _ := p.pin.Load().(string)
	return pinned == "" || pinned == mine, nil
}

// pinned asks the broker whose turn it is: the pin of the active instance, ""
// if there is none.
func (p *projector) pinned(ctx context.Context) (string, error) {
	cons, err := p.js.Consumer(ctx, contracts.StreamLog, p.consumer)
	if err != nil {
		return "", fmt.Errorf("ask who is active: %w", jsutil.Translate(err))
	}
	for _, g := range cons.CachedInfo().PriorityGroups {
		if g.Group == p.group {
			return g.PinnedClientID, nil
		}
	}
	return "", nil
}

// unpin hands over: a standby need not wait for the pin to run out.
func (p *projector) unpin(ctx context.Context) {
	mine, _ := p.pin.Load().(string)
	if mine == "" || p.group == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, finishWait)
	defer cancel()
	pinned, err := p.pinned(ctx)
	if err == nil && pinned == mine {
		var stream jetstream.Stream
		if stream, err = p.js.Stream(ctx, contracts.StreamLog); err == nil {
			err = stream.UnpinConsumer(ctx, p.consumer, p.group)
		}
	}
	if err != nil {
		p.logger.Info("could not hand the projection over, the next one waits for the pin to run out", "error", err)
	}
}

// snapshot returns the counters by name.
func (c *counters) snapshot() map[string]int64 {
	return map[string]int64{
		"events": c.Events.Load(), "writes": c.Writes.Load(), "conflicts": c.Conflicts.Load(),
		"rebuilt": c.Rebuilt.Load(), "poison": c.Poison.Load(),
	}
}
