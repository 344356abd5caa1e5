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
	// oldWorkWait is how long a redrive waits for the work message of the round
	// before to go away.
	oldWorkWait = 2 * time.Second
	oldWorkPoll = 50 * time.Millisecond
)

// redrive starts a new round of a run that ended badly. Delivered again before
// the round began, it only publishes the work again; delivered again after the
// round has ended badly as well, it does nothing.
func (c *commands) redrive(ctx context.Context, m *jsutil.Delivery, runID string, cmd contracts.RedriveCommand) error {
	for range maxLooks {
		last, err := c.log.LastFromLeader(ctx, runID)
		if errors.Is(err, jsutil.ErrNotFound) {
			c.logger.Warn("redrive of a run that does not exist is dropped", "run_id", runID)
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case redriven(last):
			return c.queueAgain(ctx, last)
		case !last.Status.Redrivable():
			c.logger.Warn("run cannot be redriven, the command is dropped", "run_id", runID, "status", last.Status)
			return nil
		}
		if m.Delivered > 1 {
			if done, err := c.redrivenSince(ctx, runID, m.Stored); err != nil || done {
				return err
			}
		}
		event, err := contracts.Next(last.Head().Head, runID, contracts.Draft{
			Type: contracts.TypeRequeued, FromStart: cmd.FromStart,
			Payload: contracts.Requeued{Reason: contracts.RequeueRedrive, By: cmd.By, FromStart: cmd.FromStart},
		}, time.Now())
		if err != nil {
			return fmt.Errorf("redrive the run: %w", err)
		}
		head, err := c.log.Append(ctx, last.Head(), event)
		if errors.Is(err, jsutil.ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		c.logger.Info("run is redriven", "run_id", runID, "from_start", cmd.FromStart)
		return c.queueAgain(ctx, runlog.Entry{Event: event, Sequence: head.Sequence})
	}
	return errContested
}

// redriven reports whether a log ends with a redrive that nobody has started yet.
func redriven(last runlog.Entry) bool {
	var p contracts.Requeued
	return last.Type == contracts.TypeRequeued && json.Unmarshal(last.Payload, &p) == nil && p.Reason == contracts.RequeueRedrive
}

// redrivenSince reports whether the run was redriven after a command was
// stored. Both times are the broker's, for the clocks of two machines prove
// nothing. It reads the whole log, which only a redelivered command costs.
func (c *commands) redrivenSince(ctx context.Context, runID string, since time.Time) (bool, error) {
	var newest uint64
	for e, err := range c.log.Read(ctx, runID, 1) {
		if err != nil && !errors.Is(err, runlog.ErrGap) && !errors.Is(err, runlog.ErrMalformed) {
			return false, fmt.Errorf("look for an earlier redrive: %w", err)
		}
		if err == nil && redriven(e) {
			newest = e.Sequence
		}
	}
	if newest == 0 {
		return false, nil
	}
	entry, err := c.broker.at(ctx, contracts.StreamLog, newest)
	if err != nil {
		return false, fmt.Errorf("look for an earlier redrive: %w", err)
	}
	return entry.Time.After(since), nil
}

// queueAgain publishes the work message of a new round.
//
// The message of the round before may still be there: a worker appends the
// terminal event before it acks, so a redrive that comes at once finds the
// subject taken by a message that is about to be acked away, and with it the
// new round would have none. So the present message is trusted only when it
// stays: its worker is then gone, and it will be delivered again.
func (c *commands) queueAgain(ctx context.Context, last runlog.Entry) error {
	m, err := c.workOf(ctx, last)
	if err != nil {
		return err
	}
	for until := time.Now().Add(oldWorkWait); ; pause(ctx, oldWorkPoll) {
		err := c.broker.publish(ctx, m)
		if !errors.Is(err, jsutil.ErrPresent) {
			return err
		}
		now, err := c.log.LastFromLeader(ctx, last.RunID)
		if err != nil {
			return err
		}
		if now.Sequence != last.Sequence {
			return nil // it is started, by the old message: its worker answers for it
		}
		if time.Now().After(until) {
			return c.stillPresent(ctx, m.Subject)
		}
	}
}

// stillPresent returns nil if there is a message on subject.
func (c *commands) stillPresent(ctx context.Context, subject string) error {
	_, err := c.broker.last(ctx, contracts.StreamWork, subject)
	if errors.Is(err, jsutil.ErrNotFound) {
		return notYet{delay: oldWorkPoll, reason: "old work message went away"}
	}
	return err
}
