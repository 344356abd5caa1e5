package dispatcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// The broker's message schedules (NATS ADR-51): a message with these headers
// stays on its subject until the time, and is then moved to the target.
const (
	headerSchedule       = "Nats-Schedule"
	headerScheduleTarget = "Nats-Schedule-Target"
)

const (
	// scheduleLead is how much before its time a run's schedule fires. The
	// broker looks for due schedules no oftener than every 250 ms; the rest of
	// the wait is the consumer's redelivery timer, which is exact.
	scheduleLead = 300 * time.Millisecond
	// leastSchedule is the wait below which a schedule could fire too late.
	leastSchedule = 2 * scheduleLead
	// leastReschedule is the rest of a wait, left when a schedule has fired, for
	// which a new one is put. It is longer than the broker's clock may be ahead:
	// a schedule that fires at once would be put again and again.
	leastReschedule = time.Hour
	// maxRestore bounds the wait before work that was made again is made again once more.
	maxRestore = time.Minute
	// mostSchedule is the longest wait that the broker is given at once: it
	// counts nanoseconds in 64 bits, and a not_before may be in the year 9999.
	mostSchedule = 365 * 24 * time.Hour
)

// advance does what the log of a run that has not begun shows to be next;
// last is its end. Every step is harmless where it was done already. A run
// that has to wait longer than least gets a schedule; if it is less, the
// message in hand is to come again when it is over.
func (d *Dispatcher) advance(ctx context.Context, last runlog.Entry, least time.Duration) error {
	if last.Status == contracts.StatusScheduled {
		switch rest := time.Until(last.NotBefore); {
		case rest > least:
			return d.putSchedule(ctx, last.RunID, last.NotBefore)
		case rest > 0:
			return notYet{delay: rest, reason: "not_before"}
		}
		var p contracts.Scheduled
		if err := json.Unmarshal(last.Payload, &p); err != nil {
			return fmt.Errorf("decode run.scheduled: %w", err)
		}
		follows, _, err := d.join(ctx, p.Submission)
		if err != nil {
			return err
		}
		if last, err = d.append(ctx, last.Head(), last.RunID, queuedOf(p.Submission, p.SubmittedAt, follows)); err != nil {
			return err // a conflict: cancelled, or queued by another dispatcher
		}
	}
	switch {
	case last.Status == contracts.StatusPending:
		return d.offer(ctx, last, least)
	case last.Type == contracts.TypeTimedOut && last.Epoch == 0:
		// Perhaps by a dispatcher that did not get further.
		return d.removeWork(ctx, last.Head())
	}
	return nil
}

// offer publishes the work of a run that waits for a worker. If it has to begin
// by some time we look again then, by a schedule on the subject where a delayed
// run had its first; what nobody has begun is given up.
func (d *Dispatcher) offer(ctx context.Context, last runlog.Entry, least time.Duration) error {
	var p contracts.Queued
	if last.Type == contracts.TypeQueued {
		if err := json.Unmarshal(last.Payload, &p); err != nil {
			return fmt.Errorf("decode run.queued: %w", err)
		}
	}
	startBy := p.Submission.StartBy(last.Event)
	rest := time.Until(startBy)
	if startBy.IsZero() || rest > 0 {
		if err := d.putWork(ctx, last); err != nil || startBy.IsZero() {
			return err
		}
		if rest > least {
			return d.putSchedule(ctx, last.RunID, startBy)
		}
		return notYet{delay: rest, reason: "start_timeout_seconds"}
	}
	late, err := d.append(ctx, last.Head(), last.RunID, contracts.Draft{Type: contracts.TypeTimedOut, Payload: contracts.TimedOut{
		TimeoutSeconds: p.Submission.TimeoutSeconds, StartTimeoutSeconds: p.Submission.StartTimeoutSeconds,
	}})
	if err != nil {
		return err // a conflict: begun, or given up by another
	}
	d.logger.Info("run was not begun in time", "run_id", last.RunID, "start_by", startBy)
	return d.removeWork(ctx, late.Head())
}

// putSchedule has the broker deliver the run to us shortly before it is due. A
// schedule that is there already is replaced.
func (d *Dispatcher) putSchedule(ctx context.Context, runID string, due time.Time) error {
	at := due.Add(-scheduleLead)
	if latest := time.Now().Add(mostSchedule); at.After(latest) {
		at = latest
	}
	return d.publish(ctx, &nats.Msg{
		Subject: contracts.ScheduleAtSubject(runID),
		Header: nats.Header{
			headerSchedule:       {"@at " + at.UTC().Format(time.RFC3339Nano)},
			headerScheduleTarget: {contracts.ScheduleDueSubject(runID)},
		},
	})
}

// due handles a schedule that has fired, and a statekeeper's word that a run
// has lost what it waited with.
func (d *Dispatcher) due(ctx context.Context, m *jsutil.Delivery, runID string) error {
	last, err := d.log.LastFromLeader(ctx, runID)
	if errors.Is(err, jsutil.ErrNotFound) {
		d.logger.Warn("schedule of a run without a log is dropped", "run_id", runID)
		return nil
	}
	if err != nil {
		return err
	}
	if string(m.Data) == contracts.RequeueWorkLost && (last.Status == contracts.StatusPending || last.Status.Held()) {
		if p, ok := requeuedOf(last); ok && p.Reason == contracts.RequeueWorkLost && m.Delivered == 1 {
			// Made again once, and gone again: whatever takes it away is to be fed ever more slowly.
			return notYet{delay: min(max(time.Since(last.Time), time.Second), maxRestore), reason: "work was lost before"}
		}
		return d.restore(ctx, last)
	}
	return d.advance(ctx, last, leastReschedule)
}
