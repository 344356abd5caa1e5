package runlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

const (
	// batchMessages and batchBytes bound what one batched get holds in memory.
	// The broker stops after the message that passes batchBytes.
	batchMessages = 256
	batchBytes    = 1 << 20
	// stallWait is how long the next message of a batch is waited for, and
	// glanceWait how often the connection is looked at meanwhile: over a
	// reconnect the rest of a batch is lost.
	stallWait  = 5 * time.Second
	glanceWait = 250 * time.Millisecond
)

// fetch is batch, tried again while the broker is unavailable: for patience,
// or until ctx ends if that is zero.
func (l *Log) fetch(ctx context.Context, subject string, sequence uint64, patience time.Duration) (got []stored, more bool, err error) {
	began := time.Now()
	for try := 0; ; try++ {
		got, more, err = l.batch(ctx, subject, sequence)
		if err == nil {
			return got, more, nil
		}
		out := patience > 0 && time.Since(began) > patience
		if ctx.Err() == nil && errors.Is(err, jsutil.ErrUnavailable) && !out {
			pauseCtx, cancel := ctx, context.CancelFunc(func() {})
			if patience > 0 {
				pauseCtx, cancel = context.WithDeadline(ctx, began.Add(patience))
			}
			pauseErr := l.pause(pauseCtx, try)
			cancel()
			if pauseErr == nil {
				continue
			}
		}
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, false, fmt.Errorf("read %s from sequence %d: %w", subject, sequence, err)
	}
}

// batch gets up to batchMessages messages on a subject (a filter), beginning
// at a stream sequence, from any replica. more says that others follow. An
// answer that breaks off gives what arrived, and more; an error comes without
// messages.
//
// It stands in for jetstreamext.GetBatch, which ends in the same way whether
// the batch is whole or its answers stopped coming.
func (l *Log) batch(ctx context.Context, subject string, sequence uint64) (got []stored, more bool, err error) {
	body, err := json.Marshal(getRequest{Seq: sequence, NextFor: subject, Batch: batchMessages, MaxBytes: batchBytes})
	if err != nil {
		return nil, false, fmt.Errorf("encode a get: %w", err)
	}
	reconnects := l.nc.Stats().Reconnects
	inbox := l.nc.NewRespInbox()
	sub, err := l.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, false, jsutil.Translate(err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	if err := l.nc.PublishRequest(l.api+"DIRECT.GET."+contracts.StreamLog, inbox, body); err != nil {
		return nil, false, jsutil.Translate(err)
	}
	for last := ""; ; {
		m, err := l.nextOfBatch(ctx, sub, reconnects)
		if err == nil && m.Header.Get("Status") == "204" && len(m.Data) == 0 { // end of batch
			pending := m.Header.Get("Nats-Num-Pending")
			return got, pending != "" && pending != "0", nil
		}
		var s stored
		if err == nil {
			s, err = fromDirect(m)
		}
		if err == nil && last != "" && m.Header.Get("Nats-Last-Sequence") != last {
			err = fmt.Errorf("%w: a message of the batch was lost", jsutil.ErrUnavailable)
		}
		switch {
		case err == nil:
			got, last = append(got, s), m.Header.Get(jetstream.SequenceHeader)
		case len(got) > 0:
			return got, true, nil
		case errors.Is(err, jsutil.ErrNotFound):
			return nil, false, nil
		default:
			return nil, false, err
		}
	}
}

// nextOfBatch waits for the next message, and gives up early when the
// connection was lost since reconnects counted its reconnections.
func (l *Log) nextOfBatch(ctx context.Context, sub *nats.Subscription, reconnects uint64) (*nats.Msg, error) {
	for end := time.Now().Add(stallWait); ; {
		glance, cancel := context.WithTimeout(ctx, glanceWait)
		m, err := sub.NextMsgWithContext(glance)
		cancel()
		switch {
		case err == nil:
			return m, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("%w: %w", jsutil.ErrUnavailable, context.Cause(ctx))
		case !errors.Is(err, context.DeadlineExceeded):
			return nil, jsutil.Translate(err)
		case l.nc.Stats().Reconnects != reconnects || !l.nc.IsConnected():
			return nil, fmt.Errorf("%w: %w", jsutil.ErrUnavailable, nats.ErrDisconnected)
		case time.Now().After(end):
			return nil, fmt.Errorf("%w: no answer within %s", jsutil.ErrUnavailable, stallWait)
		}
	}
}
