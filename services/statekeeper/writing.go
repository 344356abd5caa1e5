package statekeeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"longhaul/pkg/jsutil"
)

// write sends what is due by now, as far as there is room, and returns how long
// it is until more is.
func (s *session) write(now time.Time) (time.Duration, error) {
	s.fallDue(&s.soon, now)
	if s.unconfirmed.len() >= maxUnconfirmed/2 {
		s.fallDue(&s.quiet, now.Add(quietWindow)) // they hold the others' acknowledgements up
	} else {
		s.fallDue(&s.quiet, now)
	}
	for s.ready.len() > 0 && s.aloft < maxFlights {
		e := s.ready.pop()
		if !e.dirty || e.flight != 0 {
			continue
		}
		future, err := s.records.putAsync(e.rec, e.revision)
		if err != nil {
			return 0, err
		}
		e.dirty, e.flight = false, e.rec.LogSequence
		s.aloft++
		s.counters.Writes.Add(1)
		s.flights <- flight{e, future} // has room for maxFlights
	}
	next := quietWindow
	for _, q := range []*fifo[appointment]{&s.soon, &s.quiet} {
		if q.len() > 0 {
			next = min(next, q.front().at.Sub(now))
		}
	}
	return max(next, 0), nil
}

// fallDue moves to ready what has an appointment by now.
func (s *session) fallDue(q *fifo[appointment], now time.Time) {
	for q.len() > 0 && !q.front().at.After(now) {
		a := q.pop()
		switch {
		case !a.entry.dirty || !a.entry.due.Equal(a.at): // overtaken
		case a.entry.flight == 0:
			s.ready.push(a.entry)
		default:
			a.entry.due = time.Time{} // as soon as the write under way has landed
		}
	}
}

// landed takes the answer to one write.
func (s *session) landed(ctx context.Context, l landing) error {
	e := l.entry
	s.aloft--
	switch {
	case l.err == nil:
		e.revision, e.confirmed = l.revision, e.flight
		e.flight = 0
	case errors.Is(l.err, jsutil.ErrConflict):
		s.counters.Conflicts.Add(1)
		if err := s.resolve(ctx, e); err != nil {
			return err
		}
	default:
		return fmt.Errorf("write the status record of run %s: %w", e.rec.RunID, l.err)
	}
	if !e.dirty {
		s.cache.rest(e)
	} else if !e.due.After(time.Now()) {
		s.ready.push(e) // fell due while the write was under way
	}
	return nil
}

// resolve settles a refused write: whoever folded further has the last word.
func (s *session) resolve(ctx context.Context, e *entry) error {
	there, err := s.credible(ctx, e.rec.RunID, e.rec.LogSequence)
	if err != nil {
		return err
	}
	e.revision = there.revision
	if there.valid && there.rec.LogSequence >= e.flight {
		e.confirmed = there.rec.LogSequence
		if there.rec.LogSequence >= e.rec.LogSequence {
			e.rec, e.dirty = there.rec, false
		}
	} else {
		// Missing, garbage or older: write over it. Not at once, for a replica
		// that lags may have answered, and two that race should not spin.
		s.appoint(e, time.Now().Add(s.window), &s.soon)
	}
	e.flight = 0
	return nil
}

// credible reads the stored record of a run, and takes one that claims to be
// further than the log for what it is: written by hand.
func (s *session) credible(ctx context.Context, runID string, known uint64) (stored, error) {
	there, err := s.records.get(ctx, runID)
	if err != nil || !there.valid || there.rec.LogSequence <= known {
		return there, err
	}
	last, err := s.log.LastFromLeader(ctx, runID)
	switch {
	case errors.Is(err, jsutil.ErrNotFound):
	case err != nil:
		return there, fmt.Errorf("check the status record of run %s: %w", runID, err)
	case there.rec.LogSequence <= last.Sequence && there.rec.Seq <= last.Seq:
		return there, nil
	}
	s.logger.Warn("status record is ahead of the log, making it anew", "run_id", runID,
		"record_log_sequence", there.rec.LogSequence, "log_sequence", last.Sequence)
	there.valid = false
	return there, nil
}

// confirm drops the events whose records are stored, as far as there is no
// gap, and notes the last one for acknowledge.
func (s *session) confirm() {
	for s.unconfirmed.len() > 0 {
		f := s.unconfirmed.front()
		if f.entry != nil && f.entry.confirmed < f.sequence {
			return
		}
		if f.msg != nil {
			s.toAck, s.acked = f.msg, f.sequence
		}
		s.unconfirmed.pop()
	}
}

// acknowledge acknowledges all that is confirmed, but not more often than once
// in a window, and returns when it wants to be called again.
func (s *session) acknowledge(now time.Time) time.Duration {
	if s.toAck == nil {
		return quietWindow
	}
	if wait := s.ackedAt.Add(s.window).Sub(now); wait > 0 {
		return wait
	}
	if err := s.toAck.Ack(); err != nil {
		s.logger.Warn("cannot acknowledge, the events will come again", "error", jsutil.Translate(err))
	}
	s.toAck, s.ackedAt = nil, now
	return quietWindow
}
