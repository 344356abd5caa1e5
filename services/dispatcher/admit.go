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

// admit takes one submission in, step by step, asking what must be asked: is
// the agent known to the bucket, does another run hold the idempotency key, is
// it to wait. It returns nil when the message is done with.
func (s *submitter) admit(ctx context.Context, it *item) error {
	rec, known, err := s.agents.find(ctx, it.sub.AgentKey)
	if err != nil {
		return err
	}
	if !known && !s.acceptUnknown {
		return s.reject(ctx, it, contracts.Faults{s.agents.unknown(ctx, it.sub.AgentKey)})
	}
	complete(&it.sub, rec)
	// Claimed last of all checks, so that no refused run holds a key.
	if key := it.sub.IdempotencyKey; key != "" {
		holder, err := s.broker.claim(ctx, key, it.sub.RunID)
		if err != nil {
			return err
		}
		if holder != it.sub.RunID {
			return s.reject(ctx, it, contracts.Faults{{Field: "idempotency_key", Message: "belongs to run " + holder}})
		}
	}
	if it.delayed() {
		return s.schedule(ctx, it)
	}
	return s.queue(ctx, it)
}

// refuse rejects a submission whose form is wrong. Whether its agent is known
// is asked all the same: whoever mends a submission wants to hear of every fault at once.
func (s *submitter) refuse(ctx context.Context, it *item, faults contracts.Faults) error {
	if !s.acceptUnknown && contracts.CheckAgentKey(it.sub.AgentKey) == nil {
		_, known, err := s.agents.find(ctx, it.sub.AgentKey)
		if err != nil {
			return err
		}
		if !known {
			faults = append(faults, s.agents.unknown(ctx, it.sub.AgentKey))
		}
	}
	return s.reject(ctx, it, faults)
}

// queue is the fast lane's three stages in one go.
func (s *submitter) queue(ctx context.Context, it *item) error {
	p, err := s.appendQueued(it)
	if err != nil {
		return s.oversized(ctx, it, err)
	}
	head, err := p.Wait(ctx)
	if errors.Is(err, jsutil.ErrConflict) {
		return s.resume(ctx, it)
	}
	if err != nil {
		return err
	}
	return s.postWork(ctx, head, p.Data())
}

// schedule takes in a run that has to wait for its not_before.
func (s *submitter) schedule(ctx context.Context, it *item) error {
	event, err := contracts.Next(contracts.Head{}, it.sub.RunID, contracts.Draft{
		Type: contracts.TypeScheduled, AgentKey: it.sub.AgentKey, Priority: it.sub.Priority, MaxAttempts: it.sub.MaxAttempts,
		NotBefore: it.sub.NotBefore,
		Payload:   contracts.Scheduled{NotBefore: it.sub.NotBefore.UTC(), Submission: it.sub, SubmittedAt: it.Stored.UTC()},
	}, time.Now())
	if err != nil {
		return fmt.Errorf("schedule the run: %w", err)
	}
	_, err = s.log.Append(ctx, runlog.Head{}, event)
	switch {
	case errors.Is(err, jsutil.ErrConflict):
		return s.resume(ctx, it)
	case err != nil:
		return s.oversized(ctx, it, err)
	}
	return s.putSchedule(ctx, it.sub.RunID, it.sub.NotBefore)
}

// resume goes on with a submission whose run has a log already: it is
// delivered again, to this dispatcher or to another one beside it, or somebody
// submitted the run twice. What the log shows to be next is done again; every
// such step is harmless where it was done already.
func (s *submitter) resume(ctx context.Context, it *item) error {
	last, err := s.log.LastFromLeader(ctx, it.sub.RunID)
	if err != nil {
		return s.unseen(err)
	}
	s.logger.Debug("submission has a log already", "run_id", it.sub.RunID, "status", last.Status, "delivered", it.Delivered)
	switch last.Status {
	case contracts.StatusPending:
		return s.repost(ctx, last)
	case contracts.StatusScheduled:
		return s.putSchedule(ctx, it.sub.RunID, last.NotBefore)
	}
	return nil
}

// unseen is the error of a log that should be there, and was not found: it was
// removed a moment ago, or a new leader is still behind. The whole is to be
// tried again.
func (s *submitter) unseen(err error) error {
	if errors.Is(err, jsutil.ErrNotFound) {
		return fmt.Errorf("%w, and now %w", jsutil.ErrConflict, err)
	}
	return err
}

// oversized refuses a submission that fits into the inbox but, as an event of
// the log, not through the broker; any other err it returns.
func (s *submitter) oversized(ctx context.Context, it *item, err error) error {
	if !errors.Is(err, runlog.ErrTooLarge) {
		return err
	}
	return s.reject(ctx, it, contracts.Faults{{Message: "is too large for the broker once it is encoded as an event"}})
}
