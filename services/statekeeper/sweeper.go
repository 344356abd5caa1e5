package statekeeper

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/internal/sabotage"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// sweeper finds live runs that nothing would move any more: those whose work
// message or schedule has gone, and those whose work message was handed to a
// worker that died before it began. It asks dispatchers to look at the former,
// and gives back the leases of the latter. Both are harmless where it errs or
// where two do it at once: a dispatcher looks itself, a worker asks the log.
//
// It also audits what no index can tell (audit.go), and removes runs that ended
// long ago (retention.go).
//
// Only the acting instance sweeps, but any does so when it is asked to.
type sweeper struct {
	*api
	js       jetstream.JetStream
	acting   func(context.Context) (bool, error)
	interval time.Duration // sweepInterval but in tests
	lost     time.Duration // lostAge but in tests
	task     func(context.Context) error
	share    time.Duration // how many times a round's duration the next one waits
	pace     time.Duration // historyInterval but in tests
	most     int           // maxExpire but in tests
	cfg      Config
	steps    []removalStep // of a removal

	mu     sync.Mutex           // held by a sweep, it guards the rest
	handed map[uuid.UUID]handed // by run, what the last sweep saw handed out
	looked liveRun              // the last run that was looked at for what it waits with
	dry    bool                 // change nothing
	did    contracts.SweepResponse

	acts    sync.Mutex // guards did while removals go on beside one another
	markers []marker   // that are up, in the order of time; guarded by acts
	stay    int        // runs that are needed beyond their time; guarded by acts
}

const (
	// sweepInterval is between two sweeps; a busy broker gets more.
	sweepInterval = 1500 * time.Millisecond
	// sweepShare is how many times a sweep's duration the next one waits.
	sweepShare = 20
	// sweepRuns and sweepBytes bound what one sweep looks at of what runs wait
	// with; the next one goes on behind it. To list the subjects of half a million
	// work messages takes the broker seconds (nats-server 2.15.2, SubjectsTotals:
	// each page of a list makes and sorts the whole one), and half of them once a
	// second took more of its processors than executing them.
	sweepRuns  = 1000
	sweepBytes = 4 << 20
	// sweepTogether messages are in memory at a time, and each may be large.
	sweepTogether = 64
	// sweepDue bounds the runs of a queue that one sweep takes for handed out.
	sweepDue = 100
	// lostAge is how long a run must have been quiet before it is missed. A
	// dispatcher that dies between two writes is made up for in half of it.
	lostAge = 10 * time.Second
	// auditInterval is between two audits, which read every run. They have a
	// sweeper of their own, lest the other one wait for them.
	auditInterval = 10 * time.Minute
	// longestRest is between two rounds of anything, however long they take.
	longestRest = 6 * time.Hour
)

// newSweeper makes one that rests between two rounds of its task for interval
// at least, and for share times as long as a round took.
func newSweeper(k *Statekeeper, task func(*sweeper, context.Context) error, interval, share time.Duration) *sweeper {
	s := &sweeper{
		api: k.api, js: k.js, acting: k.projector.acting, interval: interval, lost: lostAge, cfg: k.cfg,
		pace: historyInterval, share: share, most: maxExpire,
	}
	s.task = func(ctx context.Context) error { return task(s, ctx) }
	// Checkpoints and key go before the log: behind it a run may begin under the
	// same id, and they would be its own. What was settled about rounds would not.
	s.steps = []removalStep{
		s.leaveConversation, s.settleRound, s.purging(checkpointSubjects), s.purgeKey, s.purgeLog, s.purging(roundSubjects), s.markGone,
	}
	return s
}

// handed is a run that a worker was handed and has not begun.
type handed struct {
	sequence uint64 // of its last event
	sweeps   int    // that saw it so
}

// run sweeps until ctx ends.
func (s *sweeper) run(ctx context.Context) error {
	// Of the last two sweeps the shorter one counts: what a stalled broker held
	// up, or cut off, says nothing of its load, and there is work for the next.
	for took, before := time.Duration(0), time.Duration(0); ; {
		jsutil.Sleep(ctx, max(s.interval, min(s.share*min(took, before), longestRest)))
		begun := time.Now()
		mine, err := s.acting(ctx)
		if err == nil && mine && s.feed.current() != nil && !sabotage.Broken(sabotage.Sweeper) {
			_, err = s.round(ctx, false, s.task)
		}
		before, took = took, time.Since(begun)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			took = 0
			s.logger.Info("cannot sweep, trying again", "error", err)
		}
	}
}

// now answers endpoint sweep.
func (s *sweeper) now(ctx context.Context, data []byte) (any, error) {
	var q contracts.SweepRequest
	if err := json.Unmarshal(data, &q); err != nil && len(data) > 0 {
		return nil, &apiError{code: 400, text: "decode the request: " + err.Error()}
	}
	if _, err := s.ready(); err != nil {
		return nil, err
	}
	return s.round(ctx, q.DryRun, s.handedOut, func(ctx context.Context) error {
		s.looked = liveRun{}
		var faults []error
		for {
			err := s.missing(ctx, s.interval)
			if faults = append(faults, err); s.looked == (liveRun{}) || ctx.Err() != nil || errors.Is(err, jsutil.ErrUnavailable) {
				return errors.Join(faults...)
			}
		}
	}, s.expire, s.audit)
}

// round does some tasks, up to the first that fails.
func (s *sweeper) round(ctx context.Context, dry bool, tasks ...func(context.Context) error) (contracts.SweepResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dry, s.did = dry, contracts.SweepResponse{}
	for _, task := range tasks {
		if err := task(ctx); err != nil {
			return s.did, err
		}
	}
	return s.did, nil
}

// look is one sweep, which misses what has been quiet for long.
func (s *sweeper) look(ctx context.Context) error {
	return cmp.Or(s.handedOut(ctx), s.missing(ctx, s.lost))
}

// act notes in list what is about to be done and reports whether it is to be.
func (s *sweeper) act(list *[]string, what string, count *int64) bool {
	s.acts.Lock()
	defer s.acts.Unlock()
	if len(*list) < contracts.MaxListLimit {
		*list = append(*list, what)
	}
	if !s.dry {
		s.counters.add(count, 1)
	}
	return !s.dry
}

// handedOut looks at the runs that may have been handed to a worker which died.
func (s *sweeper) handedOut(ctx context.Context) error {
	before, queues := s.handed, make(map[queue]*jetstream.ConsumerInfo) // nil: what follows has not been handed out
	s.handed = make(map[uuid.UUID]handed)
	// Of some it is known that nobody has to give them back: they do not take the
	// places of those behind them.
	settled := func(run *liveRun) bool {
		seen := before[run.id]
		if seen.sequence != run.sequence || seen.sweeps < 2 {
			return false
		}
		s.handed[run.id] = seen
		return true
	}
	var faults []error
	for _, run := range s.feed.current().due(s.interval, sweepDue, settled) {
		err := s.giveBack(ctx, run, before[run.id], queues)
		if ctx.Err() != nil || errors.Is(err, jsutil.ErrUnavailable) {
			return err
		}
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

// missing looks at some of the runs that have been quiet for long, those behind
// where it ended the last time, and misses what they should wait with.
func (s *sweeper) missing(ctx context.Context, lost time.Duration) error {
	stream, err := s.js.Stream(ctx, contracts.StreamWork)
	if err != nil {
		return fmt.Errorf("look stream %s up: %w", contracts.StreamWork, jsutil.Translate(err))
	}
	size := stream.CachedInfo().State
	most := int(min(sweepRuns, max(16, sweepBytes*size.Msgs/max(size.Bytes, 1))))
	runs := s.feed.current().quiet(lost, s.looked, most)
	waits, err := s.waiting(ctx, runs)
	if err != nil {
		return err
	}
	var faults []error
	cleared := make(map[queue]bool)
	for _, run := range runs {
		var err error
		if !waits[run.id] {
			err = s.restore(ctx, run)
		} else if !cleared[run.queue] {
			cleared[run.queue] = true
			err = s.clear(ctx, run.queue)
		}
		if ctx.Err() != nil || errors.Is(err, jsutil.ErrUnavailable) {
			return err // this page again
		}
		faults = append(faults, err) // one bad run is not to keep those behind it waiting
	}
	s.looked = liveRun{}
	if len(runs) == most {
		s.looked = runs[most-1]
		s.looked.sequence++
		s.looked.id = uuid.Nil // the next one's may be anything
	}
	return errors.Join(faults...)
}

// waiting finds out which runs have a work message or a schedule. A schedule
// that only says by when a run has to begin is none to wait with.
func (s *sweeper) waiting(ctx context.Context, runs []liveRun) (map[uuid.UUID]bool, error) {
	subjects := make(map[string][]string) // by stream
	look := func(name, subject string) { subjects[name] = append(subjects[name], subject) }
	for _, run := range runs {
		id := run.id.String()
		look(contracts.StreamSchedule, contracts.ScheduleDueSubject(id))
		if run.status == contracts.StatusScheduled {
			look(contracts.StreamSchedule, contracts.ScheduleAtSubject(id))
		} else {
			look(contracts.StreamWork, run.work())
		}
	}
	waits := make(map[uuid.UUID]bool, len(runs))
	for _, name := range []string{contracts.StreamSchedule, contracts.StreamWork} { // in the order in which a run passes through them
		for some := range slices.Chunk(subjects[name], sweepTogether) {
			found, err := jsutil.GetLasts(ctx, s.js.Conn(), name, some)
			if err != nil {
				return nil, fmt.Errorf("look for what %d runs wait with: %w", len(runs), err)
			}
			for subject := range found {
				if id, err := contracts.RunIDOfSubject(subject); err == nil {
					waits[uuid.MustParse(id)] = true
				}
			}
		}
	}
	return waits, nil
}

// subjectsOf lists the subjects of a stream that hold messages.
func subjectsOf(ctx context.Context, js jetstream.JetStream, name, filter string) (map[string]uint64, error) {
	stream, err := js.Stream(ctx, name)
	if err == nil {
		var info *jetstream.StreamInfo
		if info, err = stream.Info(ctx, jetstream.WithSubjectFilter(filter)); err == nil {
			return info.State.Subjects, nil
		}
	}
	return nil, fmt.Errorf("list the subjects of %s: %w", name, jsutil.Translate(err))
}

// restore has a dispatcher queue a run again, if the log says that it is live.
func (s *sweeper) restore(ctx context.Context, run liveRun) error {
	id := run.id.String()
	last, err := s.log.LastFromLeader(ctx, id)
	// One that has gone on since the index heard of it may have gone from its
	// schedule to its work just when both were looked at.
	if errors.Is(err, jsutil.ErrNotFound) || err == nil && (last.Status.Terminal() || last.Sequence != run.sequence) {
		return nil
	}
	if err != nil || !s.act(&s.did.Requeued, id, &s.counters.Requeued) {
		return err
	}
	if _, err = s.js.Publish(ctx, contracts.ScheduleDueSubject(id), []byte(contracts.RequeueWorkLost)); err != nil {
		return fmt.Errorf("have run %s queued again: %w", id, jsutil.Translate(err))
	}
	s.logger.Warn("live run has neither work message nor schedule, a dispatcher is to queue it again",
		"run_id", id, "status", last.Status, "attempt", last.Attempt)
	return nil
}

// giveBack gives back the lease on a work message that a second sweep in turn
// finds handed out while the run has not begun: its receiver has died. Once per
// head; after that the lease decides.
func (s *sweeper) giveBack(ctx context.Context, run liveRun, seen handed, queues map[queue]*jetstream.ConsumerInfo) error {
	id, subject := run.id.String(), run.work()
	cons, asked := queues[run.queue]
	if !asked {
		if c, err := s.js.Consumer(ctx, contracts.StreamWork, contracts.WorkConsumer(run.agent, run.priority)); err == nil {
			cons = c.CachedInfo()
		} // else no worker has ever asked for it
		queues[run.queue] = cons
	}
	if cons == nil || cons.Paused { // what was given back to a paused queue waits there
		return nil
	}
	m, err := jsutil.GetLast(ctx, s.js.Conn(), contracts.StreamWork, subject)
	switch {
	case errors.Is(err, jsutil.ErrNotFound): // begun and ended meanwhile
		return nil
	case err != nil:
		return fmt.Errorf("look at the work message of run %s: %w", id, err)
	case m.Sequence > cons.Delivered.Stream: // and so are, most likely, those that came after it
		queues[run.queue] = nil
		return nil
	case seen.sequence != run.sequence:
		s.handed[run.id] = handed{run.sequence, 1}
		return nil
	}
	var q contracts.Queued
	if e, err := contracts.DecodeEvent(m.Data); err == nil && json.Unmarshal(e.Payload, &q) == nil && q.Follows != "" {
		if before, err := s.log.LastFromLeader(ctx, q.Follows); err == nil && !before.Status.Terminal() {
			s.handed[run.id] = handed{run.sequence, 2} // it was given back by whoever saw that it is not its turn
			return nil
		}
	}
	last, err := s.log.LastFromLeader(ctx, id)
	if err != nil || last.Sequence != run.sequence || !s.act(&s.did.Released, id, &s.counters.Released) {
		return err
	}
	s.handed[run.id] = handed{run.sequence, 2}
	s.logger.Warn("worker was handed a run and has not begun it, gave its lease back", "run_id", id, "attempt", last.Attempt)
	// Of an ack subject the broker takes the two sequences alone: that of the
	// message, and one of the consumer's that is in range.
	return jsutil.ReleaseToken(s.js.Conn(), fmt.Sprintf("$JS.ACK.%s.%s.1.%d.%d.0.0",
		contracts.StreamWork, cons.Name, m.Sequence, cons.Delivered.Consumer))
}
