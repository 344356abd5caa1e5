package statekeeper

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// projector consumes RUNS_LOG and writes status records. run is called by one
// goroutine; acting and counters may be used by others.
type projector struct {
	folding
	js      jetstream.JetStream
	records *records
	feed    *feed
	// window and live are the constants below but in tests.
	window   time.Duration
	live     int
	consumer string // durable, with jsutil.ProjectorGroup; another one in tests

	cons jetstream.Consumer // kept over sessions, for it knows the pin; run's own
	pin  atomic.Value       // string: the pin of the last message delivered
}

const (
	// window is how long a change of a run's status may wait for further events
	// of that run, so that a short run costs one write. A run's end waits for nothing.
	window = 30 * time.Millisecond
	// ahead is how many deliveries may wait to be folded: to hand over each by
	// itself would wake a goroutine for each.
	ahead = 64
	// liveRuns bounds the records kept in memory, about 1 KB each. Above it
	// records are made of the index or read again.
	liveRuns = 20_000
	// finishWait bounds the writes and the farewell of an instance that stops.
	finishWait = 2 * time.Second
)

func newProjector(js jetstream.JetStream, f folding, of *feed) *projector {
	return &projector{
		folding: f, feed: of, js: js, records: &records{js: js}, window: window, live: liveRuns,
		consumer: contracts.ConsumerProjector,
	}
}

// run consumes until ctx ends or something fails. Whatever it held is then in
// the log and, unacknowledged, with the consumer.
func (p *projector) run(ctx context.Context) error {
	if err := p.lookup(ctx); err != nil {
		return err
	}
	deliveries := make(chan jetstream.Msg, ahead)
	deliver := func(ctx context.Context, m jetstream.Msg) error {
		select {
		case deliveries <- m:
		case <-ctx.Done(): // not acknowledged: whoever is active next gets it
		}
		return nil
	}
	s := session{projector: p, entries: make(map[string]*entry), ahead: make(map[string]stored)}
	err := consume(ctx, p.cons, deliver, func(ctx context.Context) error { return s.loop(ctx, deliveries) },
		jetstream.PullPriorityGroup(jsutil.ProjectorGroup))
	if stopped(ctx) {
		p.unpin(context.WithoutCancel(ctx))
	}
	return err
}

// stopped reports whether ctx has ended because the service shall.
func stopped(ctx context.Context) bool { return errors.Is(context.Cause(ctx), context.Canceled) }

// lookup finds the consumer. The handle is kept, unless the consumer has gone.
func (p *projector) lookup(ctx context.Context) (err error) {
	if p.cons == nil {
		p.cons, err = p.js.Consumer(ctx, contracts.StreamLog, p.consumer)
	} else if _, err = p.cons.Info(ctx); err != nil {
		p.cons = nil
	}
	if err != nil {
		return fmt.Errorf("look consumer %s up: %w", p.consumer, jsutil.Translate(err))
	}
	return nil
}

// acting says whether this instance is the one that acts for all: the pinned
// one, or any if nobody is pinned, as when the pinned one died while nothing
// went on.
func (p *projector) acting(ctx context.Context) (bool, error) {
	pinned, err := p.pinned(ctx)
	return err == nil && (pinned == "" || pinned == p.lastPin()), err
}

// lastPin is the pin that this instance had last, "" if it never had one.
func (p *projector) lastPin() string {
	pin, _ := p.pin.Load().(string)
	return pin
}

// pinned asks the broker whose turn it is: the pin of the active instance, ""
// if there is none.
func (p *projector) pinned(ctx context.Context) (string, error) {
	cons, err := p.js.Consumer(ctx, contracts.StreamLog, p.consumer)
	if err != nil {
		return "", fmt.Errorf("ask who is active: %w", jsutil.Translate(err))
	}
	for _, g := range cons.CachedInfo().PriorityGroups {
		if g.Group == jsutil.ProjectorGroup {
			return g.PinnedClientID, nil
		}
	}
	return "", nil
}

// unpin hands over: a standby need not wait for the pin to run out.
func (p *projector) unpin(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, finishWait)
	defer cancel()
	pinned, err := p.pinned(ctx)
	if err == nil && pinned != "" && pinned == p.lastPin() {
		var stream jetstream.Stream
		if stream, err = p.js.Stream(ctx, contracts.StreamLog); err == nil {
			err = stream.UnpinConsumer(ctx, p.consumer, jsutil.ProjectorGroup)
		}
	}
	if err != nil {
		p.logger.Info("could not hand the projection over, the next one waits for the pin to run out", "error", err)
	}
}
