package dispatcher

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/jsutil"
)

const (
	// pullExpiry and pullHeartbeat are short, since a pull can get lost
	// unnoticed after a leader change (JETSTREAM.md "Costs").
	pullExpiry    = 5 * time.Second
	pullHeartbeat = time.Second
	// prefetch bounds, for each consumer, the messages that lie here untaken, and
	// that nothing keeps from being delivered again when their AckWait is over: a
	// broker that takes no more than 32 a second still has them handled in time.
	// More than this gains some 2 % (JETSTREAM.md "Costs").
	prefetch = 64
	// retakePause is between two tries to take from a consumer.
	retakePause = 250 * time.Millisecond
)

// take hands every message of a consumer to handle, one after the other, until
// ctx ends. An error is logged and taking goes on.
func (d *Dispatcher) take(ctx context.Context, stream, consumer string, handle func(*jsutil.Delivery)) {
	for ctx.Err() == nil {
		err := d.takeWhile(ctx, stream, consumer, handle)
		if ctx.Err() != nil {
			return
		}
		d.logger.Warn("consumer is taken up anew", "stream", stream, "consumer", consumer, "error", err)
		d.suspected.Store(true)
		jsutil.Sleep(ctx, retakePause)
	}
}

// takeWhile takes until something goes wrong, and says what.
func (d *Dispatcher) takeWhile(ctx context.Context, stream, consumer string, handle func(*jsutil.Delivery)) error {
	cons, err := d.js.Consumer(ctx, stream, consumer)
	if err != nil {
		return translate("look up the consumer", err)
	}
	msgs, err := cons.Messages(jetstream.PullMaxMessages(prefetch),
		jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat))
	if err != nil {
		return translate("take messages", err)
	}
	defer msgs.Stop()
	defer context.AfterFunc(ctx, func() {
		if d.nc.IsConnected() {
			msgs.Drain() // what was delivered still comes, and then an error
		} else {
			msgs.Stop() // draining would wait for the broker
		}
	})()
	for {
		m, err := msgs.Next()
		if err != nil {
			return translate("take a message", err)
		}
		del, err := jsutil.DeliveryOf(d.nc, m)
		if err != nil {
			return err
		}
		d.held.add(del)
		if ctx.Err() != nil {
			d.finish(del, "", fmt.Errorf("not taken up: %w", errDrained))
			continue
		}
		handle(del)
	}
}

// lane runs functions beside one another, inFlight at a time. Each must end in
// bounded time: a full lane makes its callers wait.
type lane struct {
	slots chan struct{}
	wg    sync.WaitGroup
}

func newLane() *lane { return &lane{slots: make(chan struct{}, inFlight)} }

// run starts f, once there is room for it.
func (l *lane) run(f func()) {
	l.slots <- struct{}{}
	l.wg.Go(func() {
		defer func() { <-l.slots }()
		f()
	})
}

// aside handles m in l with f, in bounded time, and answers it.
func (d *Dispatcher) aside(ctx context.Context, l *lane, m *jsutil.Delivery, runID string, f func(context.Context) error) {
	l.run(func() { d.finish(m, runID, bounded(ctx, f)) })
}

// bounded is f in bounded time.
func bounded(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	return f(ctx)
}
