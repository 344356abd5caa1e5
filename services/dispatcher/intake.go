package dispatcher

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/jsutil"
)

const (
	// pullExpiry and pullHeartbeat are short, since a pull can get lost
	// unnoticed after a leader change (JETSTREAM.md "Costs").
	pullExpiry    = 5 * time.Second
	pullHeartbeat = time.Second
	// lookupTimeout bounds one question for a consumer.
	lookupTimeout = 5 * time.Second
	// retakePause is between two tries to take from a consumer.
	retakePause = 250 * time.Millisecond
	// leftoverWait bounds the wait for deliveries that are on their way when taking ends.
	leftoverWait = 250 * time.Millisecond
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
		d.repair.suspect()
		pause(ctx, retakePause)
	}
}

// takeWhile takes until something goes wrong, and says what.
func (d *Dispatcher) takeWhile(ctx context.Context, stream, consumer string, handle func(*jsutil.Delivery)) error {
	lookup, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	cons, err := d.broker.js.Consumer(lookup, stream, consumer)
	if err != nil {
		return translate("look up the consumer", err)
	}
	msgs, err := cons.Messages(jetstream.PullMaxMessages(d.cfg.Prefetch),
		jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullHeartbeat))
	if err != nil {
		return translate("take messages", err)
	}
	defer d.giveBack(msgs)
	for {
		m, err := msgs.Next(jetstream.NextContext(ctx))
		if err != nil {
			return translate("take a message", err)
		}
		del, err := jsutil.DeliveryOf(d.broker.nc, m)
		if err != nil {
			return err
		}
		handle(del)
	}
}

// giveBack ends the taking and returns what was delivered but not handled, so
// that another dispatcher need not wait for its AckWait.
func (d *Dispatcher) giveBack(msgs jetstream.MessagesContext) {
	defer msgs.Stop()
	if !d.broker.nc.IsConnected() {
		return // draining would wait for the broker
	}
	msgs.Drain()
	for {
		m, err := msgs.Next(jetstream.NextMaxWait(leftoverWait))
		if err != nil {
			if !errors.Is(err, jetstream.ErrMsgIteratorClosed) {
				d.logger.Debug("some deliveries may come again late", "error", jsutil.Translate(err))
			}
			return
		}
		if err := m.Nak(); err != nil {
			d.logger.Debug("delivery could not be given back", "subject", m.Subject(), "error", err)
		}
	}
}
