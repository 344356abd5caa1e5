package runlog

import (
	"context"
	"fmt"
	"iter"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

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
		order := order{runID: runID, from: o.From}
		t := tail{
			log: l, limits: l.one, filter: contracts.EventsSubject(runID),
			take: func(m jsutil.Stored) bool { return order.pass(m, yield) },
		}
		// The head is looked at because a slow receiver may see a terminal event
		// long after the run was redriven.
		t.ended = func(ctx context.Context) bool {
			if !o.UntilEnd || order.last.Sequence != t.at || !order.last.Status.Terminal() {
				return false
			}
			last, err := jsutil.GetLast(ctx, l.nc, contracts.StreamLog, t.filter)
			return err != nil || last.Sequence <= t.at
		}
		if err := t.run(ctx); err != nil {
			yield(Entry{}, fmt.Errorf("follow run %s: %w", runID, err))
		}
	}
}
