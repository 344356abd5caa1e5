package runlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

const (
	// batchMessages and batchBytes bound what one batched get holds in memory.
	batchMessages = 256
	batchBytes    = 1 << 20
	// Pauses between tries, doubled each time.
	minPause = 10 * time.Millisecond
	maxPause = 2 * time.Second
)

// fetch gets a batch of the messages on a subject (a filter), beginning at a
// stream sequence, from any replica. more says that others follow. It is tried
// again while the broker is unavailable: for patience, or until ctx ends if
// that is zero.
func (l *Log) fetch(ctx context.Context, subject string, sequence uint64, patience time.Duration) (got []jsutil.Stored, more bool, err error) {
	if patience > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, patience, fmt.Errorf("%w: no answer within %s", jsutil.ErrUnavailable, patience))
		defer cancel()
	}
	r := jsutil.GetRequest{Seq: sequence, NextFor: subject, Batch: batchMessages, MaxBytes: batchBytes}
	err = l.persist(ctx, func() error {
		got, more, err = jsutil.GetBatch(ctx, l.nc, contracts.StreamLog, r)
		return err
	})
	if err != nil {
		return nil, false, fmt.Errorf("read %s from sequence %d: %w", subject, sequence, err)
	}
	return got, more, nil
}

// fromLeader gets a message from the stream's leader, however long that takes.
func (l *Log) fromLeader(ctx context.Context, r jsutil.GetRequest) (m jsutil.Stored, err error) {
	err = l.persist(ctx, func() error {
		m, err = jsutil.GetFromLeader(ctx, l.nc, contracts.StreamLog, r)
		return err
	})
	return m, err
}

// persist calls get again while the broker is unavailable. When ctx ends, it
// returns the cause.
func (l *Log) persist(ctx context.Context, get func() error) error {
	for try := 0; ; try++ {
		err := get()
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !errors.Is(err, jsutil.ErrUnavailable) {
			return err
		}
		if err := l.pause(ctx, try); err != nil {
			return err
		}
	}
}

// pause waits before the next try after try earlier ones: a little longer each
// time, and until the connection is up. An error says that the wait is over
// for good: ctx has ended, and this is the cause, or the connection is closed.
func (l *Log) pause(ctx context.Context, try int) error {
	d := min(minPause<<min(try, 8), maxPause)
	select {
	case <-time.After(d/2 + rand.N(d/2)):
		return jsutil.WaitConnected(ctx, l.nc)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
