package statekeeper

import (
	"context"
	"errors"
	"fmt"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// prior returns the entry that e, at sequence in the log, is to be folded
// into: its record ends just before e, or holds e already.
func (s *session) prior(ctx context.Context, e contracts.Event, sequence uint64) (*entry, error) {
	if ent, ok := s.cache.get(e.RunID); ok {
		if fits(ent.rec, e, sequence) {
			return ent, nil
		}
		return ent, s.rebuild(ctx, ent, e)
	}
	ent := &entry{}
	s.cache.put(e.RunID, ent)
	if e.Seq == 1 {
		return ent, nil // if a record exists, the write will show it
	}
	there, err := s.credible(ctx, e.RunID, sequence)
	if err != nil {
		return nil, err
	}
	ent.revision = there.revision
	if !there.valid || !fits(there.rec, e, sequence) {
		return ent, s.rebuild(ctx, ent, e)
	}
	ent.rec, ent.confirmed = there.rec, there.rec.LogSequence
	return ent, nil
}

// fits reports whether e may be folded into rec, or is in it.
func fits(rec contracts.StatusRecord, e contracts.Event, sequence uint64) bool {
	if e.Seq <= rec.Seq {
		return sequence <= rec.LogSequence
	}
	return e.Seq == rec.Seq+1 && sequence > rec.LogSequence
}

// rebuild makes the record before e anew, from the log alone: the stored one is
// missing, damaged, or not the one before e.
func (s *session) rebuild(ctx context.Context, ent *entry, e contracts.Event) error {
	rec, err := foldLog(s.log.Read(ctx, e.RunID, 1), contracts.StatusRecord{}, e.Seq, s.project)
	if err != nil {
		return fmt.Errorf("rebuild the status record of run %s: %w", e.RunID, err)
	}
	s.counters.Rebuilt.Add(1)
	s.logger.Info("rebuilt a status record from the log", "run_id", e.RunID, "seq", e.Seq)
	ent.rec, ent.confirmed = bridge(rec, e), 0
	return nil
}

// foldLog folds the events before seq end that the log yields into rec; end 0
// is all of them.
func foldLog(events func(func(runlog.Entry, error) bool), rec contracts.StatusRecord, end uint64,
	project func(contracts.StatusRecord, contracts.Event, uint64) contracts.StatusRecord) (contracts.StatusRecord, error) {
	for e, err := range events {
		switch {
		case errors.Is(err, runlog.ErrMalformed), errors.Is(err, runlog.ErrGap):
			continue // every event carries the whole position: go on behind it
		case errors.Is(err, jsutil.ErrNotFound):
			return rec, nil
		case err != nil:
			return rec, err
		}
		if end != 0 && e.Seq >= end {
			break
		}
		rec = project(bridge(rec, e.Event), e.Event, e.Sequence)
	}
	return rec, nil
}

// bridge steps over events before e that nobody can read any more.
func bridge(rec contracts.StatusRecord, e contracts.Event) contracts.StatusRecord {
	if rec.Seq+1 < e.Seq {
		rec.Seq = e.Seq - 1
	}
	return rec
}

// project is contracts.Project for an event that follows rec. If its payload
// cannot be read, what the envelope says is folded all the same.
func (s *session) project(rec contracts.StatusRecord, e contracts.Event, sequence uint64) contracts.StatusRecord {
	next, err := contracts.Project(rec, e, sequence)
	if err != nil {
		s.counters.Poison.Add(1)
		s.logger.Error("folding the envelope of an event whose payload cannot be read", "run_id", e.RunID, "log_sequence", sequence, "error", err)
	}
	return next
}
