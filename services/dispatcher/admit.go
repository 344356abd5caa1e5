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

// maxFaultField bounds what a run.rejected event repeats of a stranger's field
// names: the event must fit where the submission did not.
const maxFaultField = 256

// admit takes one submission in, asking what must be asked, and writes the
// first event of its run: run.rejected, run.scheduled or run.queued. It
// returns nil when the message is done with.
func (s *submitter) admit(ctx context.Context, it *item, faults contracts.Faults) error {
	faults, err := s.examine(ctx, it, faults)
	if err != nil {
		return err
	}
	first, err := s.append(ctx, runlog.Head{}, it.sub.RunID, firstDraft(it, faults))
	switch {
	case errors.Is(err, jsutil.ErrConflict):
		if len(faults) > 0 {
			s.logger.Warn("refused submission names a run that has a log, and is dropped as a duplicate",
				"run_id", it.sub.RunID, "faults", faults.Error())
		}
		return s.resume(ctx, it.sub.RunID)
	case err != nil:
		return err
	case len(faults) > 0:
		s.logger.Info("submission is refused", "run_id", it.sub.RunID, "agent_key", first.AgentKey, "faults", faults.Error())
	}
	s.meters.Submitted(string(first.Type))
	return s.advance(ctx, first, leastSchedule)
}

// examine completes the submission and adds to its faults those that only the
// broker knows of. Whether the agent is known is asked even of one whose form
// is wrong: whoever mends a submission wants to hear of every fault at once.
func (s *submitter) examine(ctx context.Context, it *item, faults contracts.Faults) (_ contracts.Faults, err error) {
	if contracts.CheckAgentKey(it.sub.AgentKey) == nil {
		rec, known, err := s.agents.find(ctx, it.sub)
		if err != nil {
			return nil, err
		}
		if !known && !s.cfg.AcceptUnknownAgents {
			faults = append(contracts.Faults{s.agents.unknown(ctx, it.sub.AgentKey)}, faults...)
		}
		if len(faults) == 0 { // of another one the input is not at hand
			faults = rec.misfit(it.sub)
		}
		complete(&it.sub, rec.AgentRecord, s.cfg.MaxTimeout)
	}
	if len(faults) > 0 {
		return faults, nil
	}
	if !it.named && it.sub.IdempotencyKey != "" {
		if err := s.passRejected(ctx, it); err != nil {
			return nil, err
		}
	}
	if it.sub.ConversationID != "" {
		it.follows = it.sub.RunID // as long as whichever it will be
		if it.sub.OnConflict == contracts.OnConflictReject && it.delayed {
			return contracts.Faults{{Field: "on_conflict", Message: "must not be reject for a run with a not_before: by then it is accepted"}}, nil
		}
	}
	if event, err := contracts.Next(contracts.Head{}, it.sub.RunID, firstDraft(it, nil), time.Now()); err != nil {
		return nil, fmt.Errorf("draft the first event: %w", err)
	} else if err := s.log.Fits(event); errors.Is(err, runlog.ErrTooLarge) {
		return contracts.Faults{{Message: "is too large for the broker once it is encoded as an event"}}, nil
	}
	// Claimed last, so that no refused run holds a key, and joined behind that.
	if key := it.sub.IdempotencyKey; key != "" {
		holder, err := s.claim(ctx, key, it.sub.RunID)
		if err != nil {
			return nil, err
		}
		if holder != it.sub.RunID {
			return contracts.Faults{{Field: "idempotency_key", Message: "belongs to run " + holder}}, nil
		}
	}
	if it.follows = ""; it.sub.ConversationID == "" || it.delayed {
		return nil, nil
	}
	if _, err := s.log.LastFromLeader(ctx, it.sub.RunID); !errors.Is(err, jsutil.ErrNotFound) {
		return nil, err // it was taken in before, and has its turn
	}
	it.follows, faults, err = s.join(ctx, it.sub)
	return faults, err
}

// passRejected gives a submission whose run id comes from its idempotency key
// the next one that the key stands for, if an earlier submission was rejected
// under it: that one is to be followed there, and this one may be the corrected
// one. Delivered again after its own rejection it stays where it is.
func (s *submitter) passRejected(ctx context.Context, it *item) error {
	for {
		last, err := s.log.LastFromLeader(ctx, it.sub.RunID)
		if errors.Is(err, jsutil.ErrNotFound) {
			return nil
		}
		var p contracts.Rejected
		if err != nil || last.Type != contracts.TypeRejected || json.Unmarshal(last.Payload, &p) == nil && p.SubmittedAt.Equal(it.Stored) {
			return err
		}
		it.sub.RunID = contracts.RunIDAfter(it.sub.RunID, it.sub.IdempotencyKey)
	}
}

// firstDraft is the first event of the submission's run.
func firstDraft(it *item, faults contracts.Faults) contracts.Draft {
	switch {
	case len(faults) > 0:
		shown := make(contracts.Faults, 0, len(faults))
		for _, f := range faults {
			shown = append(shown, contracts.Fault{Field: contracts.Shorten(f.Field, maxFaultField), Message: f.Message})
		}
		draft := contracts.Draft{Type: contracts.TypeRejected, Payload: contracts.Rejected{Errors: shown, SubmittedAt: it.Stored.UTC()}}
		if contracts.CheckAgentKey(it.sub.AgentKey) == nil {
			draft.AgentKey = it.sub.AgentKey
		}
		return draft
	case it.delayed:
		draft := queuedOf(it.sub, it.Stored, "")
		draft.Type, draft.NotBefore = contracts.TypeScheduled, it.sub.NotBefore
		draft.Payload = contracts.Scheduled{NotBefore: it.sub.NotBefore.UTC(), Submission: it.sub, SubmittedAt: it.Stored.UTC()}
		return draft
	}
	return queuedOf(it.sub, it.Stored, it.follows)
}

// queuedOf is run.queued. What follows from the head it repeats, for the
// case that it is the first event; follows is the run before it in its conversation.
func queuedOf(sub contracts.Submission, submitted time.Time, follows string) contracts.Draft {
	return contracts.Draft{
		Type: contracts.TypeQueued, AgentKey: sub.AgentKey, Priority: sub.Priority, MaxAttempts: sub.MaxAttempts,
		Payload: contracts.Queued{Submission: sub, SubmittedAt: submitted.UTC(), Follows: follows},
	}
}

// resume goes on with a submission whose run has a log already.
func (s *submitter) resume(ctx context.Context, runID string) error {
	last, err := s.log.LastFromLeader(ctx, runID)
	if err != nil {
		return err // if there is none, it was removed a moment ago, or a new leader is still behind
	}
	s.meters.Submitted("duplicate")
	s.logger.Debug("submission has a log already", "run_id", runID, "status", last.Status)
	return s.advance(ctx, last, leastSchedule)
}
