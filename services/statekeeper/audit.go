package statekeeper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

const (
	// auditAge is how old the last event of a run must be before its record is
	// held against it.
	auditAge = 5 * time.Second
	// orphanAge is the same of a checkpoint that is taken for an orphan.
	orphanAge = time.Minute
	// auditTogether keys are looked at at a time.
	auditTogether = 100
	// auditShare is how many times as long as that took an audit rests that
	// nobody waits for: nobody is to feel it.
	auditShare = 20
)

// audit compares every status record with its log, and removes checkpoints that
// no log names, or that are too many. It takes the keys as they were at its
// start, and then looks for logs that none of them is of.
func (s *sweeper) audit(ctx context.Context) error {
	keys := make(map[string]uint64)
	for _, what := range []string{"checkpoint.>", "round.>", "status.*"} {
		found, err := subjectsOf(ctx, s.js, contracts.StreamRuns, contracts.KVSubject(contracts.BucketRuns, what))
		if err != nil {
			return err
		}
		maps.Copy(keys, found)
	}
	logs, err := s.auditKeys(ctx, slices.Collect(maps.Keys(keys)))
	if err != nil {
		return err
	}
	stream, err := s.js.Stream(ctx, contracts.StreamLog)
	if err != nil {
		return fmt.Errorf("look stream %s up: %w", contracts.StreamLog, jsutil.Translate(err))
	}
	if stream.CachedInfo().State.NumSubjects <= uint64(logs) {
		return ctx.Err() // each log has its record; to list them would cost the broker much
	}
	all, err := subjectsOf(ctx, s.js, contracts.StreamLog, contracts.SubjectAllEvents)
	if err != nil {
		return err
	}
	var without []string
	for subject := range all {
		if id, err := contracts.RunIDOfSubject(subject); err == nil && keys[statusSubject(id)] == 0 {
			without = append(without, statusSubject(id))
		}
	}
	_, err = s.auditKeys(ctx, without)
	return err
}

// auditKeys audits some keys of bucket runs, and counts the logs that those of
// records are of.
func (s *sweeper) auditKeys(ctx context.Context, keys []string) (logs int, err error) {
	slices.Sort(keys)              // which is mostly the order of their making: the broker reads what stands together
	stored := make(map[string]int) // checkpoints, by run
	for some := range slices.Chunk(keys, auditTogether) {
		begun := time.Now()
		fine, err := s.agreeing(ctx, some)
		if err != nil {
			return logs, fmt.Errorf("audit %d keys from %s on: %w", len(some), some[0], err)
		}
		logs += len(fine)
		for _, subject := range some {
			key := strings.TrimPrefix(subject, contracts.KVSubject(contracts.BucketRuns, ""))
			if err := s.auditKey(ctx, key, fine, stored); err != nil {
				return logs, fmt.Errorf("audit %s: %w", key, jsutil.Translate(err))
			}
		}
		if _, hurry := ctx.Deadline(); !hurry {
			jsutil.Sleep(ctx, auditShare*time.Since(begun))
		}
	}
	return logs, ctx.Err()
}

// auditKey audits one key. fine says of runs whether their records are known to
// agree with their logs, stored counts the checkpoints of each.
func (s *sweeper) auditKey(ctx context.Context, key string, fine map[string]bool, stored map[string]int) error {
	if id, ok := strings.CutPrefix(key, "status."); ok && contracts.CheckRunID(id) == nil {
		if fine[id] {
			return nil
		}
		return s.repair(ctx, id)
	}
	if id, ok := contracts.RunIDOfRoundKey(key); ok {
		return s.repair(ctx, id)
	}
	id, epoch, n, err := contracts.ParseCheckpointKey(key)
	if err != nil {
		return nil //nolint:nilerr // it is none of ours
	}
	if err := s.orphan(ctx, id, epoch, n); err != nil {
		return err
	}
	stored[id]++
	if stored[id] != s.keep+1 || s.dry {
		return nil
	}
	return s.trim(ctx, id)
}

// agreeing finds, among keys, the runs that have a log, and whether their status
// records say what that does. Of another one nothing is said: it may be about to
// be written.
func (s *sweeper) agreeing(ctx context.Context, keys []string) (map[string]bool, error) {
	var ids, logs []string
	for _, subject := range keys {
		if id := runIDOf(subject); contracts.CheckRunID(id) == nil {
			ids, logs = append(ids, id), append(logs, contracts.EventsSubject(id))
		}
	}
	records, err := s.records.page(ctx, ids) // first: it then claims no more than the log
	if err != nil {
		return nil, err
	}
	ends, err := jsutil.GetLasts(ctx, s.nc, contracts.StreamLog, logs)
	fine := make(map[string]bool)
	for i, id := range ids {
		m, there := ends[logs[i]]
		if !there {
			continue
		}
		e, err := runlog.Decode(logs[i], m.Sequence, m.Data)
		rec := records[id].rec
		fine[id] = err == nil && rec.Seq == e.Seq && rec.LogSequence == e.Sequence && reflect.DeepEqual(rec.Position, e.Position)
	}
	return fine, err
}

// repair writes the record of a run anew if its log says something else, and
// removes a deleted one of a run that has gone.
func (s *sweeper) repair(ctx context.Context, runID string) error {
	there, err := s.records.get(ctx, runID)
	if err != nil {
		return err
	}
	want, err := s.lookup(ctx, runID)
	switch rec := want.Run; {
	case errors.As(err, new(*apiError)) && there.rec.RunID == "" && !s.dry: // and what a redrive left that came too late
		return errors.Join(s.purge(ctx, roundSubjects(runID)), s.purge(ctx, statusSubject(runID)))
	case errors.As(err, new(*apiError)), err == nil && time.Since(rec.UpdatedAt) < auditAge:
		return nil
	case err != nil, reflect.DeepEqual(there.rec, rec), !s.act(&s.did.Statuses, runID, &s.counters.Repaired):
		return err
	}
	s.logger.Warn("status record said something else than the log, written anew", "run_id", runID, "status", want.Run.Status)
	future, err := s.records.putAsync(want.Run, there.revision)
	if err != nil {
		return err
	}
	select {
	case <-future.Ok():
	case err = <-future.Err():
	}
	return jsutil.Ignoring(jsutil.ErrConflict, jsutil.Translate(err)) // then the projector is at it
}

// orphan removes a checkpoint if its epoch is over and no event names it: none
// ever will.
func (s *sweeper) orphan(ctx context.Context, runID string, epoch, n uint64) error {
	last, err := s.log.LastFromLeader(ctx, runID)
	switch current := epoch >= last.Epoch && last.Status.Held(); {
	case err != nil && !errors.Is(err, jsutil.ErrNotFound):
		return err
	case err == nil && (current || time.Since(last.Time) < orphanAge):
		return nil // it may be about to be named
	}
	for e, err := range s.log.Scan(ctx, runID, 0) {
		if err != nil && !errors.Is(err, runlog.ErrMalformed) {
			return err
		}
		if c := e.Checkpoint; e.Type == contracts.TypeCheckpoint && c != nil && c.Epoch == epoch && c.N == n {
			return nil
		}
	}
	key := contracts.CheckpointKey(runID, epoch, n)
	if !s.act(&s.did.Checkpoints, key, &s.counters.Orphans) {
		return nil
	}
	s.logger.Info("removing a checkpoint that no log names", "run_id", runID, "key", key)
	return s.purge(ctx, contracts.KVSubject(contracts.BucketRuns, key))
}
