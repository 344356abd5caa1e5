package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/tracing"
)

const (
	// outagePatience is how long SubmitAll outwaits a broker that is away.
	outagePatience = 30 * time.Second
	// outagePause lies between two tries meanwhile.
	outagePause = 250 * time.Millisecond
)

// SubmitAll submits every one of submissions, many at a time, and yields for
// each, in order, its run id once it is stored, or why it is not. One that is
// wrong does not keep the others back. A broker that goes away is waited for,
// for half a minute, and what it did not acknowledge is submitted again, which
// is harmless. If it stays away, the iteration ends with an ErrUnavailable for
// the first that is not known to be stored; of those after it some may be.
//
// Ending the loop early leaves those under way to their fate. SubmitAll starts
// no goroutine: submissions is drawn from by the loop.
func (c *Client) SubmitAll(ctx context.Context, submissions iter.Seq[contracts.Submission]) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		var window []*underWay
		settle := func() bool {
			u := window[0]
			window = window[1:]
			err := c.settle(ctx, u, window)
			return yield(u.sub.RunID, err) && !errors.Is(err, ErrUnavailable)
		}
		for s := range submissions {
			u := &underWay{}
			if s, u.data, u.err = c.prepare(ctx, s); u.err == nil {
				u.sub = s
				u.header, u.span = c.tracer.Submit(ctx, s)
				if u.asked = c.direct.ask(ctx, s, u.header, u.data); u.asked == nil {
					u.receipt, u.err = c.publish(ctx, s.RunID, u.header, u.data, u.span)
				}
			}
			if window = append(window, u); len(window) >= maxInFlight && !settle() {
				return
			}
		}
		for len(window) > 0 {
			if !settle() {
				return
			}
		}
	}
}

// underWay is a submission of SubmitAll whose outcome is not known yet.
type underWay struct {
	sub     contracts.Submission // zero if it is wrong
	header  nats.Header
	data    []byte
	span    tracing.Span
	asked   jetstream.PubAckFuture // of a dispatcher; nil if it was not
	receipt *Receipt               // of the inbox
	err     error                  // of sending it
}

// settle waits until u is stored, and sends it again while the broker is away. If
// no dispatcher has taken it, what stands behind it and was not taken either goes to
// the inbox together with it: one after the other each would cost a round trip.
func (c *Client) settle(ctx context.Context, u *underWay, behind []*underWay) error {
	if u.asked != nil {
		if c.direct.await(ctx, u.asked) == nil {
			u.span.End(nil)
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("submit run %s: %w", u.sub.RunID, context.Cause(ctx))
		}
		c.leave(ctx, u)
		for _, b := range behind {
			if b.asked == nil {
				continue
			}
			select {
			case err := <-b.asked.Err():
				_ = c.direct.note(err)
				c.leave(ctx, b)
			default:
			}
		}
	}
	err := u.err
	if err == nil {
		err = u.receipt.Wait(ctx)
	}
	if u.sub.RunID == "" || !errors.Is(err, ErrUnavailable) {
		return err
	}
	patient, cancel := context.WithTimeout(ctx, outagePatience)
	defer cancel()
	for {
		if jsutil.WaitConnected(patient, c.nc) != nil {
			break
		}
		r, again := c.publish(patient, u.sub.RunID, u.header, u.data, u.span)
		if again == nil {
			again = r.Wait(patient)
		}
		if again == nil || !errors.Is(again, ErrUnavailable) && patient.Err() == nil {
			return again
		}
		select {
		case <-time.After(outagePause):
		case <-patient.Done():
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("submit run %s: %w", u.sub.RunID, context.Cause(ctx))
	}
	return err
}

// leave leaves in the inbox what no dispatcher has taken.
func (c *Client) leave(ctx context.Context, u *underWay) {
	u.asked = nil
	u.receipt, u.err = c.publish(ctx, u.sub.RunID, u.header, u.data, u.span)
}
