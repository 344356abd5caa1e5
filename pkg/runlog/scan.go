package runlog

import (
	"context"
	"fmt"
	"iter"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// Scan yields what the log of a run holds from a stream sequence on; runID ""
// is the logs of all runs, in the order of the stream. It is for those who know
// a place in RUNS_LOG: unlike Read it neither begins at the log's beginning nor
// minds a gap.
//
// An unavailable broker is tried again for about 10 s. After an error that
// wraps ErrMalformed the loop may go on, and the Entry has the Sequence of the
// message; any other error is the last thing yielded.
func (l *Log) Scan(ctx context.Context, runID string, from uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		subject := contracts.SubjectAllEvents
		if runID != "" {
			if err := contracts.CheckRunID(runID); err != nil {
				yield(Entry{}, fmt.Errorf("scan: run id %w", err))
				return
			}
			subject = contracts.EventsSubject(runID)
		}
		for more := true; more; {
			var got []jsutil.Stored
			var err error
			if got, more, err = l.fetch(ctx, subject, max(from, 1), readPatience); err != nil {
				yield(Entry{}, err)
				return
			}
			for _, m := range got {
				e, err := decode(m)
				e.Sequence, from = m.Sequence, m.Sequence+1
				if !yield(e, err) {
					return
				}
			}
		}
	}
}

// SequenceSince returns the sequence of the first event that was stored in the
// log of a run at the time or later, by the broker's clock, as the stream's
// leader sees it. jsutil.ErrNotFound: none was.
func (l *Log) SequenceSince(ctx context.Context, runID string, t time.Time) (uint64, error) {
	if err := contracts.CheckRunID(runID); err != nil {
		return 0, fmt.Errorf("find an event by its time: run id %w", err)
	}
	m, err := jsutil.GetFromLeader(ctx, l.nc, contracts.StreamLog,
		jsutil.GetRequest{StartTime: t.UTC(), NextFor: contracts.EventsSubject(runID)})
	if err != nil {
		return 0, fmt.Errorf("find the first event of run %s since %s: %w", runID, t.UTC().Format(time.RFC3339), err)
	}
	return m.Sequence, nil
}

// Decode reads an event that a consumer of RUNS_LOG delivered. The error wraps
// ErrMalformed.
func Decode(subject string, sequence uint64, data []byte) (Entry, error) {
	return decode(jsutil.Stored{Subject: subject, Sequence: sequence, Data: data})
}
