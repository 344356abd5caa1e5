package runlog

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

func followLimits() limits {
	return limits{messages: 512, bytes: 8 << 20, first: firstCheck, check: checkInterval}
}

// FollowOptions says what Follow yields.
type FollowOptions struct {
	// From is the seq of the first event wanted; 0 and 1 are from the start.
	From uint64
	// UntilEnd ends the iteration after a terminal event that is the last of
	// the log. The terminal events of a redriven run's earlier rounds are passed.
	UntilEnd bool
}

// Follow yields the events of a run in order, each once: those in the log and
// then those that are appended, within a millisecond or so. It waits for the
// first one if the log is empty, outlasts the broker's absence, and ends when
// ctx does (the cause is then the last thing yielded), with o.UntilEnd, or when
// the loop is left.
//
// A loop body may take its time: up to 512 events or 8 MiB are kept for it,
// what comes past that is read from the log later.
//
// A yielded error that wraps ErrMalformed or ErrGap is a report on the log,
// after which the loop may go on; any other is the last thing yielded.
// jsutil.ErrNotFound among them says that the log was removed meanwhile.
func (l *Log) Follow(ctx context.Context, runID string, o FollowOptions) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if err := contracts.CheckRunID(runID); err != nil {
			yield(Entry{}, fmt.Errorf("follow: run id %w", err))
			return
		}
		f := follower{order: order{runID: runID, from: o.From}, untilEnd: o.UntilEnd}
		f.tail = tail{
			log: l, limits: l.one, filter: contracts.EventsSubject(runID),
			before: beforeOnSubject,
			take:   func(m stored) bool { return f.order.pass(m, yield) },
			behind: f.behind, caughtUp: f.ended,
		}
		if err := f.tail.run(ctx); err != nil {
			yield(Entry{}, fmt.Errorf("follow run %s: %w", runID, err))
		}
	}
}

// follower follows one run.
type follower struct {
	order    order
	tail     tail
	untilEnd bool
}

// beforeOnSubject returns what the broker says of a republished message: the
// sequence of the one before it on its subject.
func beforeOnSubject(m *nats.Msg, _ uint64) (uint64, error) {
	return strconv.ParseUint(m.Header.Get(jetstream.LastSequenceHeader), 10, 64)
}

// behind compares with the last event of the log. A log that has become
// shorter is looked at twice, for a replica may lag.
func (f *follower) behind(ctx context.Context) (bool, error) {
	last, err := f.tail.log.directLast(ctx, f.tail.filter)
	if f.tail.at > 0 && (errors.Is(err, jsutil.ErrNotFound) || err == nil && last.sequence < f.tail.at) {
		last, err = f.tail.log.lastFromLeader(ctx, f.order.runID)
		if err == nil && last.sequence < f.tail.at {
			return false, fmt.Errorf("%w: the log ends at sequence %d, but event %d was at %d",
				jsutil.ErrNotFound, last.sequence, f.order.seq, f.tail.at)
		}
		if errors.Is(err, jsutil.ErrNotFound) {
			return false, fmt.Errorf("the log was removed: %w", err)
		}
	}
	if errors.Is(err, jsutil.ErrNotFound) {
		return false, nil
	}
	return last.sequence > f.tail.at, err
}

// ended reports whether the last event taken ends the log, as far as is known.
// The head is looked at because a slow receiver may see a terminal event long
// after the run was redriven.
func (f *follower) ended(ctx context.Context) bool {
	if !f.untilEnd || f.order.last.Sequence != f.tail.at || !f.order.last.Status.Terminal() {
		return false
	}
	last, err := f.tail.log.directLast(ctx, f.tail.filter)
	return err != nil || last.sequence <= f.tail.at
}
