package runlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

const (
	// republishWait bounds one publish that stands in for another whose ack was
	// lost. A healthy broker acks in milliseconds, one that changes its leader
	// in a few seconds.
	republishWait = 5 * time.Second
	// hiddenWait is how long a conflict is looked into while the log does not
	// show the event that caused it: on several replicas it may still be on its
	// way to being stored. After that the head was none of this log's.
	hiddenWait = 2 * time.Second
)

// Pending is an append under way.
type Pending struct {
	log  *Log
	at   uint64 // the Sequence of the head that it is compared with
	head Head   // the outcome but for its Sequence
	kind contracts.EventType
	msg  nats.Msg
	ack  jetstream.PubAckFuture
}

// Data returns the event as it was sent: the bytes that stand in the log if
// Wait succeeds. The caller must not change them.
func (p *Pending) Data() []byte { return p.msg.Data }

// Wait returns the new head once the event is stored. It must be called once,
// by one goroutine, and settles what became of the append even when its ack
// was lost: the leader is asked for the event after at, and compared with what
// was sent; while there is none, the event is sent again, which the
// compare-and-set makes safe.
//
// Errors: jsutil.ErrConflict if another event was appended after at (this one
// is not in the log and will never be); jsutil.ErrUnavailable if ctx ended
// first (this one may be in the log, or get there later); others as
// jsutil.Translate names them.
func (p *Pending) Wait(ctx context.Context) (Head, error) {
	seq, err := p.firstAck(ctx)
	if err == nil {
		return p.done(seq), nil
	}
	if !unsettled(err) {
		return Head{}, p.failed(err)
	}
	return p.settle(ctx, err)
}

// firstAck waits for the ack of the publish that AppendAsync made.
func (p *Pending) firstAck(ctx context.Context) (uint64, error) {
	select {
	case ack := <-p.ack.Ok():
		return ack.Sequence, nil
	case err := <-p.ack.Err():
		return 0, jsutil.Translate(err)
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", jsutil.ErrUnavailable, context.Cause(ctx))
	}
}

// settle finds out what became of the append after err, which does not say so.
func (p *Pending) settle(ctx context.Context, err error) (Head, error) {
	lost := !errors.Is(err, jsutil.ErrConflict) // whether some answer was lost
	var hidden time.Time                        // since when the log does not show what it conflicts with
	for try := 0; ; try++ {
		found, lookupErr := jsutil.GetFromLeader(ctx, p.log.nc, contracts.StreamLog,
			jsutil.GetRequest{Seq: p.at + 1, NextFor: contracts.EventsSubject(p.head.RunID)})
		away := errors.Is(lookupErr, jsutil.ErrUnavailable)
		switch {
		case lookupErr == nil && bytes.Equal(found.Data, p.msg.Data):
			return p.done(found.Sequence), nil
		case lookupErr == nil:
			return Head{}, p.failed(fmt.Errorf("%w: another event stands at sequence %d, after %d",
				jsutil.ErrConflict, found.Sequence, p.at))
		case away:
			err = lookupErr
		case !errors.Is(lookupErr, jsutil.ErrNotFound):
			return Head{}, p.unknown(fmt.Errorf("ask what became of it: %w (after: %w)", lookupErr, err))
		case !errors.Is(err, jsutil.ErrConflict):
			hidden = time.Time{}
		case hidden.IsZero():
			hidden = time.Now()
		case time.Since(hidden) <= hiddenWait:
		case lost: // it may be a conflict with this very event
			return Head{}, p.unknown(fmt.Errorf("%w: refused, but no event follows sequence %d", jsutil.ErrUnavailable, p.at))
		default:
			return Head{}, p.failed(fmt.Errorf("%w: the log ends before sequence %d", err, p.at))
		}
		if pauseErr := p.log.pause(ctx, try); pauseErr != nil {
			return Head{}, p.unknown(fmt.Errorf("%w: %w (last: %w)", jsutil.ErrUnavailable, pauseErr, err))
		}
		if away {
			continue // ask again first: what was sent may be stored by now
		}
		var seq uint64
		if seq, err = p.publish(ctx); err == nil {
			return p.done(seq), nil
		}
		if !unsettled(err) {
			return Head{}, p.unknown(err)
		}
		lost = lost || !errors.Is(err, jsutil.ErrConflict)
	}
}

// publish sends the event again and waits for the ack.
func (p *Pending) publish(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, republishWait)
	defer cancel()
	msg := nats.Msg{Subject: p.msg.Subject, Header: p.msg.Header, Data: p.msg.Data}
	ack, err := p.log.js.PublishMsg(ctx, &msg)
	if err != nil {
		return 0, jsutil.Translate(err)
	}
	return ack.Sequence, nil
}

// unsettled reports whether after err the event may yet stand in the log: the
// answer was lost, or it is a conflict, which may be one with this very event.
func unsettled(err error) bool {
	return errors.Is(err, jsutil.ErrUnavailable) || errors.Is(err, jsutil.ErrConflict)
}

func (p *Pending) done(sequence uint64) Head {
	p.head.Sequence = sequence
	return p.head
}

func (p *Pending) failed(err error) error {
	return fmt.Errorf("append %s, event %d of run %s: %w", p.kind, p.head.Seq, p.head.RunID, err)
}

func (p *Pending) unknown(err error) error {
	return fmt.Errorf("append %s, event %d of run %s: outcome unknown: %w", p.kind, p.head.Seq, p.head.RunID, err)
}
