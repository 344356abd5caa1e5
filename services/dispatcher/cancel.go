package dispatcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

const (
	// A cancel may come before its submission, which another client sends or
	// another dispatcher has just taken: it waits for it this often, this long
	// each time, and beyond that as long as an older submission is in the inbox.
	submitWaits = 20
	submitWait  = 500 * time.Millisecond
	firstWait   = 50 * time.Millisecond
)

// cancel carries out one cancel. It returns nil once the log shows it, or shows
// that there is nothing to cancel.
func (c *commands) cancel(ctx context.Context, m *jsutil.Delivery, runID string, cmd contracts.CancelCommand) error {
	asked := uint64(0) // the epoch whose holder did not take the request
	for range maxLooks {
		last, err := c.log.LastFromLeader(ctx, runID)
		if errors.Is(err, jsutil.ErrNotFound) {
			return c.awaitSubmit(ctx, m, runID)
		}
		if err != nil {
			return err
		}
		head := last.Head()
		switch {
		case head.Status == contracts.StatusCancelled:
			// Perhaps by this very command, whose dispatcher did not get further.
			return c.cleanUp(ctx, head)
		case head.Status.Terminal(), head.Status == contracts.StatusCancelling:
			c.logger.Debug("nothing to cancel", "run_id", runID, "status", head.Status)
			return nil
		case head.Status != contracts.StatusRunning:
			head, err = c.append(ctx, head, contracts.Draft{
				Type: contracts.TypeCancelled, Payload: contracts.Cancelled(cmd),
			})
			if err == nil {
				c.logger.Info("run is cancelled", "run_id", runID)
				return c.cleanUp(ctx, head)
			}
		case asked != head.Epoch:
			if c.askHolder(ctx, head, cmd) {
				return nil
			}
			// It is gone, or the run has left it: see what the log says now.
			asked = head.Epoch
			continue
		default:
			// Whoever holds or takes the run next finds this in the log.
			_, err = c.append(ctx, head, contracts.Draft{
				Type: contracts.TypeCancelRequested, Payload: contracts.CancelRequested(cmd),
			})
			if err == nil {
				c.logger.Info("cancel is written for a holder out of reach", "run_id", runID, "attempt", head.Attempt, "worker_id", head.WorkerID)
				return nil
			}
		}
		if !errors.Is(err, jsutil.ErrConflict) {
			return err
		}
	}
	return errContested
}

func (c *commands) append(ctx context.Context, at runlog.Head, d contracts.Draft) (runlog.Head, error) {
	event, err := contracts.Next(at.Head, at.RunID, d, time.Now())
	if err != nil {
		return runlog.Head{}, fmt.Errorf("carry out a command: %w", err)
	}
	return c.log.Append(ctx, at, event)
}

// cleanUp removes what a cancelled run waited with.
func (c *commands) cleanUp(ctx context.Context, cancelled runlog.Head) error {
	if err := c.removeSchedule(ctx, cancelled.RunID); err != nil {
		return err
	}
	return c.removeWork(ctx, cancelled)
}

// askHolder asks the holder of a run to cancel it, in its own turn: a second
// writer could lose every race against a holder that streams. It reports
// whether the log shows the request.
func (c *commands) askHolder(ctx context.Context, head runlog.Head, cmd contracts.CancelCommand) bool {
	reply, err := c.requestHolder(ctx, head, contracts.HolderRequest{
		Op: contracts.HolderCancel, RunID: head.RunID, Epoch: head.Epoch, Reason: cmd.Reason, By: cmd.By,
	})
	if err != nil {
		c.logger.Info("holder does not take a cancel", "run_id", head.RunID, "attempt", head.Attempt,
			"worker_id", head.WorkerID, "error", err)
		return false
	}
	return reply.Requested
}

func (c *commands) requestHolder(ctx context.Context, head runlog.Head, r contracts.HolderRequest) (contracts.HolderReply, error) {
	var reply contracts.HolderReply
	if err := contracts.CheckWorkerID(head.WorkerID); err != nil {
		return reply, fmt.Errorf("worker id %w", err)
	}
	body, err := contracts.Encode(r)
	if err != nil {
		return reply, fmt.Errorf("encode a request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.holderTimeout)
	defer cancel()
	m, err := c.broker.nc.RequestWithContext(ctx, contracts.WorkerSubject(head.WorkerID), body)
	if err != nil {
		return reply, translate("ask the holder", err)
	}
	if err := json.Unmarshal(m.Data, &reply); err != nil {
		return reply, fmt.Errorf("decode the holder's answer: %w", err)
	}
	return reply, nil
}

// awaitSubmit puts off a cancel of a run that has no log, as long as its
// submission may be on the way.
func (c *commands) awaitSubmit(ctx context.Context, m *jsutil.Delivery, runID string) error {
	if m.Delivered <= submitWaits {
		delay := submitWait
		if m.Delivered <= 3 { // mostly it is but a moment ahead
			delay = firstWait
		}
		return notYet{delay: delay, reason: "run has no log"}
	}
	oldest, err := c.broker.first(ctx, contracts.StreamInbox, contracts.SubjectSubmit)
	switch {
	case err == nil && oldest.Sequence < m.Sequence:
		return notYet{delay: submitWait, reason: "older submissions are in the inbox"}
	case err != nil && !errors.Is(err, jsutil.ErrNotFound):
		return err
	}
	c.logger.Warn("cancel of a run that does not exist is dropped", "run_id", runID)
	return nil
}
