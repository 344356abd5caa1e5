package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// Bounds of what a run.rejected event repeats: a stranger's field names and
// values stand in faults, and the event must fit where the submission did not.
const (
	maxFaultField   = 256
	maxFaultMessage = 2048
)

// reject writes the refusal of a submission into the log of its run. A log that
// exists already belongs to an accepted run, or holds this very refusal: the
// submission is then a duplicate, and nothing is written.
func (s *submitter) reject(ctx context.Context, it *item, faults contracts.Faults) error {
	draft := contracts.Draft{
		Type: contracts.TypeRejected,
		Payload: contracts.Rejected{
			Errors: fit(faults), SubmittedAt: it.Stored.UTC(),
		},
	}
	if contracts.CheckAgentKey(it.sub.AgentKey) == nil {
		draft.AgentKey = it.sub.AgentKey
	}
	event, err := contracts.Next(contracts.Head{}, it.sub.RunID, draft, time.Now())
	if err != nil {
		return fmt.Errorf("refuse a submission: %w", err)
	}
	_, err = s.log.Append(ctx, runlog.Head{}, event)
	switch {
	case err == nil:
		s.logger.Info("submission is refused", "run_id", it.sub.RunID, "agent_key", draft.AgentKey, "faults", faults.Error())
		return nil
	case !errors.Is(err, jsutil.ErrConflict):
		return err
	}
	last, err := s.log.LastFromLeader(ctx, it.sub.RunID)
	if err != nil {
		return s.unseen(err)
	}
	if last.Status != contracts.StatusRejected {
		s.logger.Warn("bad submission names a run that exists, and is dropped as a duplicate",
			"run_id", it.sub.RunID, "status", last.Status, "faults", faults.Error())
	}
	return nil
}

// fit cuts faults to what an event may hold.
func fit(faults contracts.Faults) contracts.Faults {
	const most = contracts.MaxFaults + 1
	out := make(contracts.Faults, 0, min(len(faults), most))
	for _, f := range faults[:min(len(faults), most)] {
		out = append(out, contracts.Fault{Field: cut(f.Field, maxFaultField), Message: cut(f.Message, maxFaultMessage)})
	}
	return out
}

func cut(s string, most int) string {
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
