package runlog

import (
	"context"
	"fmt"
	"iter"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// readPatience is how long Read goes on against an unavailable broker without
// getting anything: a broker restarts in a second or two, a leader is elected
// in four to six.
const readPatience = 10 * time.Second

// Last returns the last event of a run's log from any replica: it may be one
// that has been followed by others a moment ago. jsutil.ErrNotFound: the log
// is empty.
func (l *Log) Last(ctx context.Context, runID string) (Entry, error) {
	return single("last", runID, func(subject string) (jsutil.Stored, error) {
		return jsutil.GetLast(ctx, l.nc, contracts.StreamLog, subject)
	})
}

// LastFromLeader is Last as the stream's leader sees it: it has every event
// whose append was acknowledged before the call. It costs the broker more.
func (l *Log) LastFromLeader(ctx context.Context, runID string) (Entry, error) {
	return single("last", runID, func(subject string) (jsutil.Stored, error) {
		return jsutil.GetFromLeader(ctx, l.nc, contracts.StreamLog, jsutil.GetRequest{LastFor: subject})
	})
}

// First returns the first event of a run's log from any replica: the
// submission as it was accepted. jsutil.ErrNotFound: the log is empty.
func (l *Log) First(ctx context.Context, runID string) (Entry, error) { return l.Next(ctx, runID, 1) }

// Next returns the first event of a run's log at or after a stream sequence,
// from any replica. jsutil.ErrNotFound: there is none.
func (l *Log) Next(ctx context.Context, runID string, sequence uint64) (Entry, error) {
	return single("next", runID, func(subject string) (jsutil.Stored, error) {
		return jsutil.Get(ctx, l.nc, contracts.StreamLog, jsutil.GetRequest{Seq: sequence, NextFor: subject})
	})
}

func single(which, runID string, get func(subject string) (jsutil.Stored, error)) (Entry, error) {
	if err := contracts.CheckRunID(runID); err != nil {
		return Entry{}, fmt.Errorf("%s event: run id %w", which, err)
	}
	m, err := get(contracts.EventsSubject(runID))
	if err != nil {
		return Entry{}, fmt.Errorf("%s event of run %s: %w", which, runID, err)
	}
	return decode(m)
}

// decode reads a stored event. The error wraps ErrMalformed.
func decode(m jsutil.Stored) (Entry, error) {
	e, err := contracts.DecodeEvent(m.Data)
	if err != nil {
		return Entry{}, fmt.Errorf("%w: sequence %d of %s: %w", ErrMalformed, m.Sequence, contracts.StreamLog, err)
	}
	if runID, err := contracts.RunIDOfSubject(m.Subject); err != nil || runID != e.RunID {
		return Entry{}, fmt.Errorf("%w: sequence %d of %s: run id %q on subject %q", ErrMalformed, m.Sequence, contracts.StreamLog, e.RunID, m.Subject)
	}
	return Entry{Event: e, Sequence: m.Sequence}, nil
}

// Read yields the events of a run that are in its log now, in order, from the
// event with seq from (0 and 1 are the first one). It holds a batch of up to
// 256 events or 1 MiB at a time.
//
// An unavailable broker is tried again for about 10 s. A yielded error that
// wraps ErrMalformed or ErrGap is a report on the log, after which the loop
// may go on; any other is the last thing yielded.
func (l *Log) Read(ctx context.Context, runID string, from uint64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if err := contracts.CheckRunID(runID); err != nil {
			yield(Entry{}, fmt.Errorf("read: run id %w", err))
			return
		}
		o := order{runID: runID, from: from}
		for next := uint64(1); ; {
			got, more, err := l.fetch(ctx, contracts.EventsSubject(runID), next, readPatience)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, m := range got {
				if !o.pass(m, yield) {
					return
				}
				next = m.Sequence + 1
			}
			if !more {
				return
			}
		}
	}
}

// order checks that a run's events come one after the other, and passes on
// those that were asked for.
type order struct {
	runID string
	from  uint64 // the first seq that is wanted
	seq   uint64 // of the last event seen
	last  Entry  // the last event that could be read
}

// pass yields m; false if the receiver has had enough. Messages must come in
// the order of their sequence, each once.
func (o *order) pass(m jsutil.Stored, yield func(Entry, error) bool) bool {
	e, err := decode(m)
	if err != nil {
		o.seq++ // it stands where an event should
		return yield(Entry{}, err)
	}
	want := max(o.seq+1, o.from)
	missing := e.Seq > want || e.Seq <= o.seq // the latter: the log was removed and begun anew
	o.seq, o.last = e.Seq, e
	if missing && !yield(Entry{}, fmt.Errorf("%w: run %s: event %d, at sequence %d, where %d was expected",
		ErrGap, o.runID, e.Seq, e.Sequence, want)) {
		return false
	}
	return e.Seq < o.from || yield(e, nil)
}
