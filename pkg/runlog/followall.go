package runlog

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// FollowAll yields the events of every run, or of the runs of one agent if
// agentKey is not empty, that are appended from now on: all of them, in the
// order of RUNS_LOG (so that each run's are in the order of its log, beginning
// in the midst of those that are under way). Nothing is left out over a
// reconnect or by a slow loop body; what was missed is read from the log, in
// which the stream sequences leave no gap.
//
// Now is when the loop begins, or when the broker answers for the first time.
// The iteration ends when ctx does (the cause is then the last thing yielded)
// or when the loop is left. A yielded error that wraps ErrMalformed is a report
// on one stored event, of whatever agent, after which the loop may go on; any
// other is the last thing yielded.
func (l *Log) FollowAll(ctx context.Context, agentKey string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		last, err := l.fromLeader(ctx, jsutil.GetRequest{LastFor: contracts.SubjectAllEvents})
		if err == nil || errors.Is(err, jsutil.ErrNotFound) { // the latter: nothing is stored yet
			t := tail{log: l, limits: l.all, filter: contracts.SubjectAllEvents, at: last.Sequence, all: true}
			t.take = func(m jsutil.Stored) bool {
				e, err := decode(m)
				if err == nil && agentKey != "" && e.AgentKey != agentKey {
					return true
				}
				return yield(e, err)
			}
			t.ended = func(context.Context) bool { return false }
			err = t.run(ctx)
		}
		if err != nil {
			yield(Entry{}, fmt.Errorf("follow all runs: %w", err))
		}
	}
}
