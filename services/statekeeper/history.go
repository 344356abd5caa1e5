package statekeeper

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// historyInterval is between two looks at the runs that have saved more
// checkpoints than are kept: an agent that saves a hundred times in it costs
// one look and a hundred purges.
const historyInterval = time.Second

// keepNewest removes old checkpoints of the runs that the projector has noted,
// until ctx ends. What it misses an audit finds, or the run's next checkpoint.
func (s *sweeper) keepNewest(ctx context.Context) error {
	for ctx.Err() == nil {
		jsutil.Sleep(ctx, s.pace)
		s.due.Range(func(id, _ any) bool {
			s.due.Delete(id) // first: a checkpoint that comes meanwhile is noted anew
			if err := s.trim(ctx, id.(string)); err != nil {
				s.logger.Info("cannot remove old checkpoints, leaving them to an audit", "run_id", id, "error", err)
			}
			return ctx.Err() == nil
		})
	}
	return nil
}

// trim removes a run's oldest checkpoints until no more than the limit are
// left. It leaves alone the one that the head names, which never goes back, and
// what is newer and may be about to be named: nothing goes that a run could
// resume from. A key is purged, not deleted, and leaves no marker.
func (s *sweeper) trim(ctx context.Context, runID string) error {
	last, err := s.log.LastFromLeader(ctx, runID)
	if err != nil || last.Checkpoint == nil { // gone; or begun anew, and nothing named
		return jsutil.Ignoring(jsutil.ErrNotFound, err)
	}
	keys, err := subjectsOf(ctx, s.js, contracts.StreamRuns, checkpointSubjects(runID))
	var named []contracts.CheckpointRef
	for subject := range keys {
		_, epoch, n, err := contracts.ParseCheckpointKey(strings.TrimPrefix(subject, contracts.KVSubject(contracts.BucketRuns, "")))
		if ref := (contracts.CheckpointRef{N: n, Epoch: epoch}); err == nil && earlier(ref, *last.Checkpoint) <= 0 {
			named = append(named, ref)
		}
	}
	slices.SortFunc(named, earlier)
	for i := 0; err == nil && i < len(named)-s.keep; i++ {
		key := contracts.CheckpointKey(runID, named[i].Epoch, named[i].N)
		err = s.purge(ctx, contracts.KVSubject(contracts.BucketRuns, key))
		s.counters.add(&s.counters.Trimmed, 1)
	}
	return err
}

// earlier orders checkpoints as they were saved: numbers begin anew when a run
// is redriven from the start, epochs never do.
func earlier(a, b contracts.CheckpointRef) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.N, b.N))
}

// checkpointSubjects matches what is stored of all checkpoints of a run.
func checkpointSubjects(runID string) string {
	return contracts.KVSubject(contracts.BucketRuns, "checkpoint."+runID+".>")
}
