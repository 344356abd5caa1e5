package runlog

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

func followAllLimits() limits {
	return limits{messages: 8192, bytes: 32 << 20, first: firstCheck, check: checkInterval}
}

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
		last, err := l.lastSequence(ctx)
		if err != nil {
			yield(Entry{}, fmt.Errorf("follow all runs: %w", err))
			return
		}
		t := tail{
			log: l, limits: l.all, filter: contracts.SubjectAllEvents, at: last,
			before: func(_ *nats.Msg, sequence uint64) (uint64, error) { return sequence - 1, nil },
			take: func(m stored) bool {
				e, err := decode(m)
				if err == nil && agentKey != "" && e.AgentKey != agentKey {
					return true
				}
				return yield(e, err)
			},
			caughtUp: func(context.Context) bool { return false },
		}
		t.behind = func(ctx context.Context) (bool, error) {
			_, err := l.directNext(ctx, t.filter, t.at+1)
			if errors.Is(err, jsutil.ErrNotFound) {
				return false, nil
			}
			return err == nil, err
		}
		if err := t.run(ctx); err != nil {
			yield(Entry{}, fmt.Errorf("follow all runs: %w", err))
		}
	}
}

// lastSequence returns the stream's last sequence, of whatever run, and waits
// for a broker that is away.
func (l *Log) lastSequence(ctx context.Context) (uint64, error) {
	for try := 0; ; try++ {
		askCtx, cancel := context.WithTimeout(ctx, answerWait)
		s, err := l.js.Stream(askCtx, contracts.StreamLog)
		cancel()
		if err == nil {
			return s.CachedInfo().State.LastSeq, nil
		}
		err = jsutil.Translate(err)
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if !errors.Is(err, jsutil.ErrUnavailable) {
			return 0, err
		}
		if err := l.pause(ctx, try); err != nil {
			return 0, err
		}
	}
}
