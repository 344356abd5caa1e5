package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

const (
	// maxLooks bounds how often one delivery of a cancel looks at the log. A
	// holder that streams events can win many races in a row.
	maxLooks = 10
	// holderTimeout is how long the holder of a run is given to answer.
	holderTimeout = time.Second
	// A cancel may come before its submission, which another client sends or
	// another dispatcher has just taken: it waits for it this often, at most
	// this long each time, and beyond that as long as an older submission is in
	// the inbox.
	submitWaits = 20
	submitWait  = 500 * time.Millisecond
)

// cancel carries out one cancel: it looks at the log, does what that asks for,
// and looks again, until the log shows the cancel or that there is nothing to cancel.
func (d *Dispatcher) cancel(ctx context.Context, m *jsutil.Delivery, runID string, cmd contracts.CancelCommand) error {
	asked := uint64(0) // the epoch whose holder was asked
	for range maxLooks {
		last, err := d.log.LastFromLeader(ctx, runID)
		switch head := last.Head(); {
		case errors.Is(err, jsutil.ErrNotFound):
			return d.awaitSubmit(ctx, m, runID)
		case err != nil:
			return err
		case head.Status == contracts.StatusCancelled:
			return d.cleanUp(ctx, head)
		case head.Status.Terminal(), head.Status == contracts.StatusCancelling:
			return nil
		case head.Status == contracts.StatusRunning && asked != head.Epoch:
			d.askHolder(ctx, head, cmd)
			asked = head.Epoch
		case head.Status == contracts.StatusRunning:
			// It is gone, or the run has left it. Whoever holds or takes the run
			// next finds this in the log.
			err = d.appendCancel(ctx, head, contracts.TypeCancelRequested, contracts.CancelRequested(cmd))
		default:
			err = d.appendCancel(ctx, head, contracts.TypeCancelled, contracts.Cancelled(cmd))
		}
		if err != nil && !errors.Is(err, jsutil.ErrConflict) {
			return err
		}
	}
	return fmt.Errorf("%w, %d times", jsutil.ErrConflict, maxLooks)
}

func (d *Dispatcher) appendCancel(ctx context.Context, at runlog.Head, kind contracts.EventType, payload any) error {
	_, err := d.append(ctx, at, at.RunID, contracts.Draft{Type: kind, Payload: payload})
	if err == nil {
		d.logger.Info("cancel is written", "run_id", at.RunID, "type", kind, "attempt", at.Attempt, "worker_id", at.WorkerID)
	}
	return err
}

// cleanUp removes what a cancelled run waited with. Perhaps it was cancelled
// by this very command, whose dispatcher did not get further.
func (d *Dispatcher) cleanUp(ctx context.Context, cancelled runlog.Head) error {
	// A schedule that has just fired is dropped when it is seen that the run has ended.
	if err := jsutil.Purge(ctx, d.nc, contracts.StreamSchedule, contracts.ScheduleAtSubject(cancelled.RunID), 0); err != nil {
		return err
	}
	return d.removeWork(ctx, cancelled)
}

// askHolder asks the holder of a run to cancel it, in its own turn: a second
// writer could lose every race against a holder that streams. Whether it did
// is seen in the log.
func (d *Dispatcher) askHolder(ctx context.Context, head runlog.Head, cmd contracts.CancelCommand) {
	ctx, cancel := context.WithTimeout(ctx, holderTimeout)
	defer cancel()
	if _, err := jsutil.AskHolder(ctx, d.nc, head.WorkerID, contracts.HolderRequest{ // a foreign worker may have left its name out
		Op: contracts.HolderCancel, RunID: head.RunID, Epoch: head.Epoch, Reason: cmd.Reason, By: cmd.By,
	}); err != nil {
		d.logger.Info("holder does not take a cancel", "run_id", head.RunID, "attempt", head.Attempt,
			"worker_id", head.WorkerID, "error", err)
	}
}

// awaitSubmit puts off a command about a run that has no log, as long as its
// submission may be on the way.
func (d *Dispatcher) awaitSubmit(ctx context.Context, m *jsutil.Delivery, runID string) error {
	if m.Delivered <= submitWaits {
		return notYet{delay: backoff(m.Delivered, submitWait), reason: "run has no log"}
	}
	// What lies below the floor is done with, though a broker whose disk was full
	// may show it again.
	queue, err := d.js.Consumer(ctx, contracts.StreamInbox, contracts.ConsumerSubmit)
	if err != nil {
		return translate("look at the submissions", err)
	}
	oldest, err := jsutil.GetFromLeader(ctx, d.nc, contracts.StreamInbox,
		jsutil.GetRequest{Seq: queue.CachedInfo().AckFloor.Stream + 1, NextFor: contracts.SubjectSubmit})
	switch {
	case err == nil && oldest.Sequence < m.Sequence:
		return notYet{delay: submitWait, reason: "older submissions are in the inbox"}
	case err != nil && !errors.Is(err, jsutil.ErrNotFound):
		return err
	}
	// Its submission may have been taken between the look at the log and the
	// look at the inbox.
	if _, err := d.log.LastFromLeader(ctx, runID); !errors.Is(err, jsutil.ErrNotFound) {
		return notYet{delay: submitWait, reason: "run has a log by now"}
	}
	d.logger.Warn("command about a run that does not exist is dropped", "run_id", runID)
	return nil
}
