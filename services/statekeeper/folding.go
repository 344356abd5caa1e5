package statekeeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// folding makes status records out of events. It may be used by several
// goroutines.
type folding struct {
	log      *runlog.Log
	counters *counters
	logger   *slog.Logger
	keep     int       // checkpoints per run
	due      *sync.Map // ids of runs that may have more
}

// holds reports whether e is folded into rec.
func holds(rec contracts.StatusRecord, e runlog.Entry) bool {
	return e.Seq <= rec.Seq && e.Sequence <= rec.LogSequence
}

// ends reports whether rec ends just before e.
func ends(rec contracts.StatusRecord, e runlog.Entry) bool {
	return e.Seq == rec.Seq+1 && e.Sequence > rec.LogSequence
}

// beyond reports whether rec claims more than a log that ends with last holds:
// then it was written by hand.
func beyond(rec contracts.StatusRecord, last runlog.Entry) bool {
	return rec.LogSequence > last.Sequence || rec.Seq > last.Seq
}

// carry returns rec carried on to end just before e; one that holds e already
// is returned as it is. A record that does not lead to e, because it is missing
// or damaged, is made anew from the log alone.
func (f *folding) carry(ctx context.Context, rec contracts.StatusRecord, e runlog.Entry) (_ contracts.StatusRecord, anew bool, err error) {
	if rec.Seq > 0 && !holds(rec, e) && !ends(rec, e) {
		rec, err = f.between(ctx, rec, e.RunID, e.Sequence)
	}
	if err != nil || holds(rec, e) || ends(rec, e) {
		return rec, false, err
	}
	if rec, err = f.between(ctx, contracts.StatusRecord{}, e.RunID, e.Sequence); err != nil {
		return rec, false, err
	}
	return bridge(rec, e), true, nil
}

// between folds the events between rec and the stream sequence end of another
// one; end 0 is all there is. A replica that lags and does not show the event
// at end yet is asked again.
func (f *folding) between(ctx context.Context, rec contracts.StatusRecord, runID string, end uint64) (contracts.StatusRecord, error) {
	for range lagTries {
		var whole bool
		var err error
		if rec, whole, err = f.scan(ctx, rec, runID, end); whole || err != nil {
			return rec, err
		}
		jsutil.Sleep(ctx, lagPause)
	}
	return rec, fmt.Errorf("%w: the log of run %s does not show the event at sequence %d", jsutil.ErrUnavailable, runID, end)
}

const (
	lagTries = 20
	lagPause = 25 * time.Millisecond
)

// scan is between, once; whole is false if the log did not show the event at
// end. It stops at an event that does not follow, but not if it began with
// nothing: then the log is all there is, and each event carries the whole position.
func (f *folding) scan(ctx context.Context, rec contracts.StatusRecord, runID string, end uint64) (_ contracts.StatusRecord, whole bool, err error) {
	fresh := rec.Seq == 0
	for e, err := range f.log.Scan(ctx, runID, rec.LogSequence+1) {
		switch {
		case end > 0 && e.Sequence >= end:
			return rec, true, nil
		case errors.Is(err, runlog.ErrMalformed):
			continue
		case err != nil:
			return rec, false, fmt.Errorf("read the log of run %s for its status record: %w", runID, err)
		case fresh:
			rec = bridge(rec, e)
		}
		if !ends(rec, e) {
			return rec, true, nil
		}
		rec = f.project(rec, e)
	}
	return rec, end == 0, nil
}

// bridge steps over events before e that nobody can read any more.
func bridge(rec contracts.StatusRecord, e runlog.Entry) contracts.StatusRecord {
	if rec.Seq+1 < e.Seq {
		rec.Seq = e.Seq - 1
	}
	return rec
}

// project folds e into a record that ends just before it. If its payload cannot
// be read, what the envelope says is folded all the same.
func (f *folding) project(rec contracts.StatusRecord, e runlog.Entry) contracts.StatusRecord {
	next, err := contracts.Project(rec, e.Event, e.Sequence)
	if err != nil {
		f.counters.add(&f.counters.Poison, 1)
		f.logger.Error("folding the envelope of an event whose payload cannot be read",
			"run_id", e.RunID, "log_sequence", e.Sequence, "error", err)
	}
	return next
}
