package statekeeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// maxExpire bounds the runs that one sweep removes, so that a thousand that
// ended at the same time hurt nobody a week later.
const maxExpire = 100

// expire removes runs that ended longer ago than they are kept.
func (s *sweeper) expire(ctx context.Context) error {
	before := time.Now().Add(-s.retention)
	for _, id := range s.feed.current().expired(before.UnixNano(), maxExpire) {
		if err := s.remove(ctx, id, before); err != nil {
			return fmt.Errorf("remove run %s: %w", id, jsutil.Translate(err))
		}
	}
	return nil
}

// remove removes all that there is of a run that ended before the time. Each
// step leaves what the next sweep needs to go on: the status record is last.
// The log is first, up to its terminal event: a redrive either finds none, or
// has been appended behind it, and then the rest stays.
func (s *sweeper) remove(ctx context.Context, runID string, before time.Time) error {
	last, err := s.log.LastFromLeader(ctx, runID)
	live := err == nil && (!last.Status.Terminal() || last.Time.After(before))
	if err != nil && !errors.Is(err, jsutil.ErrNotFound) || live || !s.act(&s.did.Expired, runID, &s.counters.Expired) {
		return ignoring(jsutil.ErrNotFound, err)
	}
	if err == nil {
		if err = s.log.Purge(ctx, last.Head()); err == nil {
			_, err = s.log.LastFromLeader(ctx, runID)
		}
		if !errors.Is(err, jsutil.ErrNotFound) {
			return err
		}
	}
	there, err := s.records.get(ctx, runID)
	if err != nil {
		return err
	}
	if err := s.purge(ctx, contracts.KVSubject(contracts.BucketRuns, "checkpoint."+runID+".>")); err != nil {
		return err
	}
	if key := there.rec.IdempotencyKey; key != "" {
		subject := contracts.KVSubject(contracts.BucketRuns, contracts.IdempotencyKey(key))
		m, err := jsutil.GetFromLeader(ctx, s.nc, contracts.StreamRuns, jsutil.GetRequest{LastFor: subject})
		if err == nil && string(m.Data) == runID { // else it is another run's
			err = s.purge(ctx, subject)
		}
		if err = ignoring(jsutil.ErrNotFound, err); err != nil {
			return err
		}
	}
	// A marker, for the indexes to see. An audit removes it.
	_, err = s.js.PublishMsg(ctx, &nats.Msg{Subject: statusSubject(runID), Header: nats.Header{kvOperation: {"DEL"}}},
		jetstream.WithExpectLastSequencePerSubject(there.revision))
	return err
}

// ignoring is err, but nil if it is the one expected.
func ignoring(expected, err error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// purge removes what stands on the subjects in bucket runs.
func (s *sweeper) purge(ctx context.Context, subjects string) error {
	stream, err := s.js.Stream(ctx, contracts.StreamRuns)
	if err == nil {
		err = stream.Purge(ctx, jetstream.WithPurgeSubject(subjects))
	}
	return err
}
