package runlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/internal/sabotage"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// limits bound one follower.
type limits struct {
	// messages and bytes are what is kept for a receiver that does not keep up;
	// what comes past them is read from the log later.
	messages, bytes int
	// first is when a quiet tail is compared with the log for the first time,
	// and check how often from then on.
	first, check time.Duration
}

const (
	// checkInterval is how often a quiet tail is compared with the log. Only an
	// event that was lost on its way, with none after it on the same
	// connection, waits for it.
	checkInterval = 15 * time.Second
	// firstCheck comes early: in a cluster the subscription may have reached
	// the stream's leader later than the history was read from a replica.
	firstCheck = time.Second
	// lagTries is how often a replica is asked for an event that a subscriber
	// has seen already, before the leader is.
	lagTries = 3
)

// tail reads what the log holds on a subject, and then what is appended: the
// part that Follow and FollowAll have in common. Its one rule is that a live
// message is taken only if it is the very next one after the last that was
// taken; anything else is a reason to read the log from there. It belongs to
// one goroutine; only the subscription's callback runs on another.
type tail struct {
	log    *Log
	limits limits
	filter string // subject of the events of one run, or of all
	all    bool   // of all: the stream sequences have no gap
	at     uint64 // stream sequence of the last message taken; 0 at the start of the log

	// take hands a message on; false ends the tail.
	take func(jsutil.Stored) bool
	// ended is called when all that is known to be stored has been taken; true ends the tail.
	ended func(context.Context) bool
}

// errEnough ends a tail whose receiver wants no more.
var errEnough = errors.New("the receiver has had enough")

// run returns nil when the receiver has had enough or ended said so, else why
// it cannot go on. A receiver that does not keep up leaves the live messages in
// the subscription's queue, whose limits bound them.
func (t *tail) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	status := t.log.nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	defer t.log.nc.RemoveStatusListener(status)
	live := make(chan *nats.Msg)
	sub, err := t.log.nc.Subscribe(t.filter, func(m *nats.Msg) {
		select {
		case live <- m:
		case <-ctx.Done():
		}
	})
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", t.filter, jsutil.Translate(err))
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection, and so does this:
	_ = sub.SetPendingLimits(t.limits.messages, t.limits.bytes)
	if err := t.loop(ctx, live, sub, status); !errors.Is(err, errEnough) {
		return err
	}
	return nil
}

func (t *tail) loop(ctx context.Context, live <-chan *nats.Msg, sub *nats.Subscription, status <-chan nats.Status) error {
	if err := t.catchUp(ctx, 0); err != nil {
		return err
	}
	check := time.NewTimer(jitter(t.limits.first))
	defer check.Stop()
	dropped := 0
	for {
		if t.ended(ctx) {
			return nil
		}
		var err error
		select {
		case m := <-live:
			if err = t.receive(ctx, m); err != nil {
				return err
			}
			// Messages past the queue's limits are gone. They were sent after
			// those in the queue, so that it cannot be empty before this shows.
			if n, _ := sub.Dropped(); n != dropped {
				dropped = n
				err = t.catchUp(ctx, 0)
			}
		case <-status:
			if t.log.nc.IsClosed() {
				return fmt.Errorf("%w: %w", jsutil.ErrUnavailable, nats.ErrConnectionClosed)
			}
			err = t.catchUp(ctx, 0) // what was published meanwhile did not come here
		case <-check.C:
			err = t.check(ctx)
			check.Reset(jitter(t.limits.check))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// receive takes a live message, after those that precede it.
func (t *tail) receive(ctx context.Context, m *nats.Msg) error {
	sequence, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil || sequence <= t.at {
		return nil // not from the stream, or taken before
	}
	before := sequence - 1
	if !t.all {
		if before, err = strconv.ParseUint(m.Header.Get(jetstream.LastSequenceHeader), 10, 64); err != nil {
			before = sequence // read it from the log
		}
	}
	if before != t.at {
		if err := t.catchUp(ctx, before); err != nil {
			return err
		}
		if sequence <= t.at {
			return nil
		}
	}
	return t.accept(jsutil.Stored{Subject: m.Subject, Sequence: sequence, Data: m.Data})
}

func (t *tail) accept(m jsutil.Stored) error {
	t.at = m.Sequence
	if !t.take(m) {
		return errEnough
	}
	return nil
}

// catchUp takes what the log holds after at. A replica that has not got as far
// as the sequence until is asked again, and then the leader, event by event.
func (t *tail) catchUp(ctx context.Context, until uint64) error {
	if sabotage.Broken(sabotage.GapFilling) && t.at > 0 {
		return nil
	}
	for lag := 0; ; {
		got, more, err := t.log.fetch(ctx, t.filter, t.at+1, 0)
		if err != nil {
			return err
		}
		for _, m := range got {
			if err := t.accept(m); err != nil {
				return err
			}
		}
		switch {
		case more:
		case t.at >= until:
			return nil
		case lag < lagTries:
			if err := t.log.pause(ctx, lag); err != nil {
				return err
			}
			lag++
		default:
			if err := t.nextFromLeader(ctx); errors.Is(err, jsutil.ErrNotFound) {
				return nil // what even the leader does not have was removed
			} else if err != nil {
				return err
			}
		}
	}
}

// nextFromLeader takes one message. jsutil.ErrNotFound: there is none.
func (t *tail) nextFromLeader(ctx context.Context) error {
	m, err := t.log.fromLeader(ctx, jsutil.GetRequest{Seq: t.at + 1, NextFor: t.filter})
	if err != nil {
		return fmt.Errorf("read %s after sequence %d: %w", t.filter, t.at, err)
	}
	return t.accept(m)
}

// check finds a lost end of the log: an event that did not get here, and none
// after it to show the gap. Of one run it finds, too, that its log was removed,
// and asks twice, for a replica may lag.
func (t *tail) check(ctx context.Context) error {
	if t.all || t.at == 0 {
		return t.catchUp(ctx, 0)
	}
	r := jsutil.GetRequest{Seq: t.at, NextFor: t.filter}
	_, err := jsutil.Get(ctx, t.log.nc, contracts.StreamLog, r)
	if errors.Is(err, jsutil.ErrNotFound) {
		_, err = jsutil.GetFromLeader(ctx, t.log.nc, contracts.StreamLog, r)
	}
	if errors.Is(err, jsutil.ErrNotFound) {
		return fmt.Errorf("the log was removed, sequence %d was its last: %w", t.at, err)
	}
	return t.catchUp(ctx, 0)
}

// jitter spreads d by a fifth, so that the readers of one broker do not ask in step.
func jitter(d time.Duration) time.Duration { return d*9/10 + rand.N(d/5) }
