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
	// held against it, and before a checkpoint is taken for an orphan.
	auditAge, orphanAge = 5 * time.Second, time.Minute
	// auditKeys are looked at together. An audit that nobody waits for rests then for
	// auditShare times as long as that took: nobody is to feel it.
	auditKeys, auditShare = 100, 20
)

// audit compares every status record with its log, and removes checkpoints that
// no log names, or that are too many. It takes the records and keys as they were at its start.
func (s *sweeper) audit(ctx context.Context) error {
	var found map[string]uint64
	keys, prefix := make(map[string]uint64), contracts.KVSubject(contracts.BucketRuns, "")
	for _, filter := range []string{"checkpoint.>", "round.>", "status.*"} {
		var err error
		if found, err = subjectsOf(ctx, s.js, contracts.StreamRuns, prefix+filter); err != nil {
			return err
		}
		maps.Copy(keys, found)
	}
	stream, err := s.js.Stream(ctx, contracts.StreamLog)
	var logs map[string]uint64
	if err == nil && stream.CachedInfo().State.NumSubjects > uint64(len(found)) { // some have no record; to list them costs the broker much
		logs, err = subjectsOf(ctx, s.js, contracts.StreamLog, contracts.SubjectAllEvents)
	}
	if err != nil {
		return fmt.Errorf("look for logs without a record: %w", jsutil.Translate(err))
	}
	for subject := range logs {
		if id, err := contracts.RunIDOfSubject(subject); err == nil {
			keys[statusSubject(id)] = 1
		}
	}
	stored := make(map[string]int) // checkpoints, by run
	// In order, which is mostly that of their making: the broker reads what stands together.
	for some := range slices.Chunk(slices.Sorted(maps.Keys(keys)), auditKeys) {
		begun := time.Now()
		fine, err := s.agreeing(ctx, some)
		for _, subject := range some {
			key := strings.TrimPrefix(subject, prefix)
			if id := runIDOf(subject); err == nil && contracts.CheckRunID(id) == nil && !fine[id] {
				err = s.repair(ctx, id)
			} else if id, epoch, n, parseErr := contracts.ParseCheckpointKey(key); parseErr == nil && err == nil {
				err = s.orphan(ctx, id, epoch, n)
				if stored[id]++; err == nil && stored[id] == s.keep+1 && !s.dry {
					err = s.trim(ctx, id)
				}
			} else if id, ok := contracts.RunIDOfRoundKey(key); ok && err == nil {
				err = s.repair(ctx, id)
			}
			if err != nil {
				return fmt.Errorf("audit %s: %w", key, jsutil.Translate(err))
			}
		}
		if _, hurry := ctx.Deadline(); !hurry {
			sleep(ctx, auditShare*time.Since(begun))
		}
	}
	return ctx.Err()
}

// agreeing finds, among keys, the runs whose status record says what their log
// does. Of another one nothing is said: it may be about to be written.
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
	for subject, m := range ends {
		e, err := runlog.Decode(subject, m.Sequence, m.Data)
		rec := records[e.RunID].rec
		fine[e.RunID] = err == nil && rec.Seq == e.Seq && rec.LogSequence == e.Sequence && reflect.DeepEqual(rec.Position, e.Position)
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
	return ignoring(jsutil.ErrConflict, jsutil.Translate(err)) // then the projector is at it
}

// orphan removes a checkpoint if its epoch is over and no event names it: none
// ever will.
func (s *sweeper) orphan(ctx context.Context, runID string, epoch, n uint64) error {
	last, err := s.log.LastFromLeader(ctx, runID)
	if err != nil && !errors.Is(err, jsutil.ErrNotFound) || err == nil && (epoch >= last.Epoch && last.Status.Held() || time.Since(last.Time) < orphanAge) {
		return err
	}
	for e, err := range s.log.Scan(ctx, runID, 0) {
		if err != nil && !errors.Is(err, runlog.ErrMalformed) || e.Type == contracts.TypeCheckpoint && e.Checkpoint != nil && e.Checkpoint.Epoch == epoch && e.Checkpoint.N == n {
			return err
		}
	}
	key := contracts.CheckpointKey(runID, epoch, n)
	if !s.act(&s.did.Checkpoints, key, &s.counters.Orphans) {
		return nil
	}
	s.logger.Info("removing a checkpoint that no log names", "run_id", runID, "key", key)
	return s.purge(ctx, contracts.KVSubject(contracts.BucketRuns, key))
}
