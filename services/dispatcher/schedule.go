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
	// mostSchedule is the longest wait that the broker is given at once: it
	// counts nanoseconds in 64 bits, and a not_before may be in the year 9999.
	mostSchedule = 365 * 24 * time.Hour
	// leastReschedule is the rest of a wait for which a new schedule is put,
	// instead of keeping the message in flight.
	leastReschedule = time.Hour
)

// putSchedule has the broker deliver the run to us when it is due. A schedule
// that is there already is replaced.
func (h handler) putSchedule(ctx context.Context, runID string, notBefore time.Time) error {
	due := contracts.ScheduleDueSubject(runID)
	rest := time.Until(notBefore)
	if rest < leastSchedule {
		return h.broker.publish(ctx, &nats.Msg{Subject: due})
	}
	at := notBefore.Add(-scheduleLead).UTC()
	if rest > mostSchedule {
		at = time.Now().Add(mostSchedule).UTC()
	}
	return h.broker.publish(ctx, &nats.Msg{
		Subject: contracts.ScheduleAtSubject(runID),
		Header: nats.Header{
			headerSchedule:       {"@at " + at.Format(time.RFC3339Nano)},
			headerScheduleTarget: {due},
		},
	})
}

// removeSchedule takes the schedule of a cancelled run back. One that has just
// fired is dropped when it is seen that the run has ended.
func (h handler) removeSchedule(ctx context.Context, runID string) error {
	return h.broker.purge(ctx, contracts.StreamSchedule, contracts.ScheduleAtSubject(runID))
}

// schedules queues runs whose time has come.
type schedules struct {
	handler
	lane *lane
}

func (s *schedules) handle(ctx context.Context, m *jsutil.Delivery) {
	s.lane.run(func() {
		ctx, cancel := context.WithTimeout(ctx, stepTimeout)
		defer cancel()
		runID, err := contracts.RunIDOfSubject(m.Subject)
		if err != nil {
			err = fmt.Errorf("%w: %w", errMalformed, err)
		} else {
			err = s.due(ctx, runID)
		}
		s.finish(m, err, "run_id", runID)
	})
}

// due queues a run if its not_before has come; if not, the message comes again then.
func (s *schedules) due(ctx context.Context, runID string) error {
	for range maxLooks {
		last, err := s.log.LastFromLeader(ctx, runID)
		if errors.Is(err, jsutil.ErrNotFound) {
			s.logger.Warn("schedule of a run without a log is dropped", "run_id", runID)
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case last.Type == contracts.TypeQueued: // by this message, delivered before
			return s.repost(ctx, last)
		case last.Status != contracts.StatusScheduled:
			return nil
		}
		switch rest := time.Until(last.NotBefore); {
		case rest > leastReschedule:
			return s.putSchedule(ctx, runID, last.NotBefore)
		case rest > 0:
			return notYet{delay: rest, reason: "not_before"}
		}
		var p contracts.Scheduled
		if err := json.Unmarshal(last.Payload, &p); err != nil {
			return fmt.Errorf("decode run.scheduled: %w", err)
		}
		event, err := contracts.Next(last.Head().Head, runID, contracts.Draft{
			Type: contracts.TypeQueued, Payload: contracts.Queued{Submission: p.Submission, SubmittedAt: p.SubmittedAt},
		}, time.Now())
		if err != nil {
			return fmt.Errorf("queue the scheduled run: %w", err)
		}
		pending, err := s.log.AppendAsync(last.Head(), event)
		if err != nil {
			return err
		}
		head, err := pending.Wait(ctx)
		if errors.Is(err, jsutil.ErrConflict) {
			continue // cancelled, or queued by another dispatcher: look again
		}
		if err != nil {
			return err
		}
		return s.postWork(ctx, head, pending.Data())
	}
	return errContested
}
