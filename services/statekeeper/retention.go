package statekeeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

const (
	// retireInterval is between two looks for runs whose time is over. A look
	// that removed some is followed by a pause as long as itself, so that those
	// which ended together hurt nobody a week later, and yet as many can be
	// removed as are submitted.
	retireInterval = time.Second
	// maxExpire bounds the runs of one look, removals those under way at once.
	maxExpire = 1000
	removals  = 16
	// markerLife is how long the marker of a removed run stands. An index that
	// misses it lists the run until its removal is tried again.
	markerLife = 30 * time.Second
)

// marker is one that this instance has put up. Those of one that was killed are
// an audit's to take down.
type marker struct {
	subject  string
	sequence uint64
	put      time.Time
}

// expire removes runs that ended longer ago than they are kept.
func (s *sweeper) expire(ctx context.Context) error {
	now, before := time.Now(), make(map[contracts.Status]time.Time)
	for _, status := range contracts.Statuses() {
		if status.Terminal() {
			before[status] = now.Add(-cmp.Or(s.cfg.RetentionFor[status], s.cfg.Retention))
		}
	}
	var removing errgroup.Group
	removing.SetLimit(removals)
	for _, m := range s.fallen(now) {
		removing.Go(func() error { return jsutil.Purge(ctx, s.js.Conn(), contracts.StreamRuns, m.subject, m.sequence+1) })
	}
	limit := s.most + s.stay // who stays is not to keep others from being removed
	s.stay = 0
	for _, id := range s.feed.current().expired(before, limit) {
		removing.Go(func() error {
			if err := s.remove(ctx, id, before); err != nil && !errors.Is(err, runlog.ErrMalformed) { // kept: who knows what it is
				return fmt.Errorf("remove run %s: %w", id, err)
			}
			return nil
		})
	}
	return removing.Wait()
}

// fallen takes out the markers whose time is over.
func (s *sweeper) fallen(now time.Time) []marker {
	s.acts.Lock()
	defer s.acts.Unlock()
	n := 0
	for n < len(s.markers) && now.Sub(s.markers[n].put) >= markerLife {
		n++
	}
	due := s.markers[:n:n]
	s.markers = s.markers[n:]
	return due
}

// remove removes all that there is of a run that ended before the time for its
// status. That it did is the log's word, not the index's. Without a log the
// run is one that a sweep was cut off from removing.
func (s *sweeper) remove(ctx context.Context, runID string, before map[contracts.Status]time.Time) error {
	last, err := s.log.LastFromLeader(ctx, runID)
	live := err == nil && !last.Time.Before(before[last.Status]) // of a live status there is no time
	if err != nil && !errors.Is(err, jsutil.ErrNotFound) || live {
		return err
	}
	r := removal{runID: runID}
	if err == nil {
		r.last = last.Head()
	}
	if r.record, err = s.records.get(ctx, runID); err != nil {
		return err
	}
	for _, step := range s.steps {
		if s.dry {
			break
		}
		if err := step(ctx, r); errors.Is(err, errStays) {
			s.acts.Lock()
			defer s.acts.Unlock()
			s.stay++
			return nil
		} else if err != nil {
			return err
		}
	}
	if s.act(&s.did.Expired, runID, &s.counters.Expired) {
		s.logger.Info("removed a run that ended long ago", "run_id", runID, "status", r.last.Status)
	}
	return nil
}

// removal is a run that is being removed.
type removal struct {
	runID  string
	last   runlog.Head // zero if its log has gone already
	record stored
}

// removalStep is one step of a removal. Each leaves what the next sweep needs
// to go on if this one is cut off: the status record is last.
type removalStep func(context.Context, removal) error

// errStays is in the error of a removal that gives way to a redrive, or to another run.
var errStays = errors.New("run is redriven, or needed")

// settleRound makes sure that no redrive comes any more, or gives way to it.
// The broker has no purge that is compared with a log's end; so both sides
// create a key first, and only one of them can.
func (s *sweeper) settleRound(ctx context.Context, r removal) error {
	if !r.last.Status.Redrivable() {
		return nil
	}
	subject := contracts.KVSubject(contracts.BucketRuns, contracts.RoundKey(r.runID, r.last.Sequence))
	holder, err := jsutil.Claim(ctx, s.js, contracts.StreamRuns, subject, contracts.RoundRemoval)
	if err == nil && holder != contracts.RoundRemoval {
		err = errStays
	}
	return err
}

func (s *sweeper) purgeLog(ctx context.Context, r removal) error {
	if r.last.Sequence == 0 {
		return nil
	}
	if err := s.log.Purge(ctx, r.last); err != nil {
		return err
	}
	// A redrive by something that does not know of the key lives, without what was before.
	if _, err := s.log.LastFromLeader(ctx, r.runID); err != nil {
		return jsutil.Ignoring(jsutil.ErrNotFound, err)
	}
	return errStays
}

// purging purges what stands on subjects that come from the run's id.
func (s *sweeper) purging(subjects func(runID string) string) removalStep {
	return func(ctx context.Context, r removal) error { return s.purge(ctx, subjects(r.runID)) }
}

// roundSubjects matches what was settled about a run's rounds.
func roundSubjects(runID string) string {
	return contracts.KVSubject(contracts.BucketRuns, "round."+runID+".>")
}

// purgeKey purges the idempotency key that the run holds.
func (s *sweeper) purgeKey(ctx context.Context, r removal) error {
	key := r.record.rec.IdempotencyKey
	if key == "" {
		return nil
	}
	subject := contracts.KVSubject(contracts.BucketRuns, contracts.IdempotencyKey(key))
	m, err := jsutil.GetFromLeader(ctx, s.nc, contracts.StreamRuns, jsutil.GetRequest{LastFor: subject})
	if err == nil && string(m.Data) == r.runID { // else it is another run's
		err = s.purge(ctx, subject)
	}
	return jsutil.Ignoring(jsutil.ErrNotFound, err)
}

// leaveConversation takes the run off those of its conversation, which is
// forgotten with the last one. It stays while the next one has not begun:
// that begins with what it said.
func (s *sweeper) leaveConversation(ctx context.Context, r removal) error {
	id := r.record.rec.ConversationID
	if id == "" {
		return nil
	}
	subject := contracts.KVSubject(contracts.BucketRuns, contracts.ConversationKey(id))
	there, err := jsutil.GetFromLeader(ctx, s.nc, contracts.StreamRuns, jsutil.GetRequest{LastFor: subject})
	runs := strings.Fields(string(there.Data))
	i := slices.Index(runs, r.runID)
	if err != nil || i < 0 {
		return jsutil.Ignoring(jsutil.ErrNotFound, err)
	}
	if i+1 < len(runs) {
		next, err := s.log.LastFromLeader(ctx, runs[i+1])
		if err == nil && next.Epoch == 0 {
			return errStays
		} else if jsutil.Ignoring(jsutil.ErrNotFound, err) != nil {
			return err
		}
	}
	if len(runs) == 1 { // up to what was read: whoever comes into it just now stays
		return jsutil.Purge(ctx, s.js.Conn(), contracts.StreamRuns, subject, there.Sequence+1)
	}
	_, err = s.js.Publish(ctx, subject, []byte(strings.Join(slices.Delete(runs, i, i+1), " ")), jetstream.WithExpectLastSequencePerSubject(there.Sequence))
	if err = jsutil.Translate(err); errors.Is(err, jsutil.ErrConflict) {
		return errStays // for now
	}
	return err
}

// markGone puts a marker in place of the status, for the indexes to see. A
// conflict is another's, who is at it too.
func (s *sweeper) markGone(ctx context.Context, r removal) error {
	subject := statusSubject(r.runID)
	ack, err := s.js.PublishMsg(ctx, &nats.Msg{Subject: subject, Header: nats.Header{kvOperation: {"DEL"}}},
		jetstream.WithExpectLastSequencePerSubject(r.record.revision))
	if err == nil {
		s.acts.Lock()
		defer s.acts.Unlock()
		s.markers = append(s.markers, marker{subject, ack.Sequence, time.Now()})
	}
	return jsutil.Ignoring(jsutil.ErrConflict, jsutil.Translate(err))
}

// purge removes what stands on the subjects in bucket runs.
func (s *sweeper) purge(ctx context.Context, subjects string) error {
	return jsutil.Purge(ctx, s.js.Conn(), contracts.StreamRuns, subjects, 0)
}
