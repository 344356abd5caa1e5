package statekeeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

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

	mu     sync.Mutex        // held by a sweep, it guards the rest
	handed map[string]handed // by run, what the last sweep saw handed out
	dry    bool              // change nothing
	did    contracts.SweepResponse

	acts    sync.Mutex // guards did while removals go on beside one another
	markers []marker   // that are up, in the order of time; guarded by acts
	stay    int        // runs that are needed beyond their time; guarded by acts
}

const (
	// sweepInterval is between two sweeps; a busy broker gets more.
	sweepInterval = 1500 * time.Millisecond
	// sweepShare is how many times a sweep's duration the next one waits:
	// 100,000 waiting runs are listed in some tenths of a second.
	sweepShare = 20
	// lostAge is how long a run must have been quiet before it is missed. A
	// dispatcher that dies between two writes is made up for in half of it.
	lostAge = 10 * time.Second
	// auditInterval is between two audits, which read every run. They have a
	// sweeper of their own, lest the other one wait for them.
	auditInterval = 10 * time.Minute
	// longestRest is between two rounds of anything, however long they take.
	longestRest = 6 * time.Hour
)

func newSweeper(k *Statekeeper) *sweeper {
	s := &sweeper{
		api: k.api, js: k.js, acting: k.projector.acting, interval: sweepInterval, lost: lostAge, cfg: k.cfg,
		pace: historyInterval, share: sweepShare, most: maxExpire,
	}
	s.task = s.look
	s.steps = []removalStep{s.leaveConversation, s.settleRound, s.purgeStates, s.purgeKey, s.purgeLog, s.purgeRounds, s.markGone}
	return s
}

// newAuditor is a sweeper that audits.
func newAuditor(k *Statekeeper) *sweeper {
	s := newSweeper(k)
	s.task, s.interval = s.audit, auditInterval
	return s
}

// newRetirer is a sweeper that removes runs.
func newRetirer(k *Statekeeper) *sweeper {
	s := newSweeper(k)
	s.task, s.interval, s.share = s.expire, retireInterval, 1
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
		sleep(ctx, max(s.interval, min(s.share*min(took, before), longestRest)))
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
	return s.round(ctx, q.DryRun, func(ctx context.Context) error {
		return s.sweep(ctx, s.feed.current().quiet(s.interval), s.interval)
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
	return s.sweep(ctx, s.feed.current().quiet(s.interval), s.lost)
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

// sweep looks at runs in the order of their last events.
func (s *sweeper) sweep(ctx context.Context, runs []liveRun, lost time.Duration) error {
	before := s.handed
	s.handed = make(map[string]handed)
	if len(runs) == 0 {
		return nil
	}
	waits, err := s.waiting(ctx)
	queues := make(map[string]*jetstream.ConsumerInfo) // nil: what follows has not been handed out
	looked := make(map[string]bool)                    // queues whose stranded messages have been looked for
	for _, run := range runs {
		subject := waits[run.runID]
		if run.status != contracts.StatusScheduled && subject == contracts.ScheduleAtSubject(run.runID) {
			subject = "" // it only says by when the run has to begin
		}
		if err == nil && strings.HasPrefix(subject, "runs.work.") && time.Since(run.seen) >= lost {
			err = s.clear(ctx, subject, looked)
		}
		switch {
		case err != nil || ctx.Err() != nil:
			return err
		case subject == "" && time.Since(run.seen) >= lost:
			err = s.restore(ctx, run)
		case run.status == contracts.StatusPending && run.notBefore.Before(time.Now()) && strings.HasPrefix(subject, "runs.work."):
			err = s.giveBack(ctx, run, subject, before[run.runID], queues)
		}
	}
	return err
}

// waiting lists the subjects on which runs have a work message or a schedule, by
// run. Of several it is the work message, or a dispatcher's turn that has come.
func (s *sweeper) waiting(ctx context.Context) (map[string]string, error) {
	subjects := make(map[string]string)
	for _, name := range []string{contracts.StreamSchedule, contracts.StreamWork} {
		found, err := subjectsOf(ctx, s.js, name, ">")
		if err != nil {
			return nil, err
		}
		for subject := range found {
			if id, err := contracts.RunIDOfSubject(subject); err == nil && (subjects[id] == "" || subject != contracts.ScheduleAtSubject(id)) {
				subjects[id] = subject
			}
		}
	}
	return subjects, nil
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
	last, err := s.log.LastFromLeader(ctx, run.runID)
	if errors.Is(err, jsutil.ErrNotFound) || err == nil && last.Status.Terminal() {
		return nil
	}
	if err != nil || !s.act(&s.did.Requeued, run.runID, &s.counters.Requeued) {
		return err
	}
	if _, err = s.js.Publish(ctx, contracts.ScheduleDueSubject(run.runID), []byte(contracts.RequeueWorkLost)); err != nil {
		return fmt.Errorf("have run %s queued again: %w", run.runID, jsutil.Translate(err))
	}
	s.logger.Warn("live run has neither work message nor schedule, a dispatcher is to queue it again",
		"run_id", run.runID, "status", last.Status, "attempt", last.Attempt)
	return nil
}

// giveBack gives back the lease on a work message that a second sweep in turn
// finds handed out while the run has not begun: its receiver has died. Once per
// head; after that the lease decides.
func (s *sweeper) giveBack(ctx context.Context, run liveRun, subject string, seen handed, queues map[string]*jetstream.ConsumerInfo) error {
	part := strings.Split(subject, ".")
	name := "work-" + part[2] + "-" + part[3]
	queue, asked := queues[name]
	switch {
	case seen.sequence == run.sequence && seen.sweeps > 1:
		s.handed[run.runID] = seen
		return nil
	case !asked:
		if cons, err := s.js.Consumer(ctx, contracts.StreamWork, name); err == nil {
			queue = cons.CachedInfo()
		} // else no worker has ever asked for it
		queues[name] = queue
	}
	if queue == nil || queue.Paused { // what was given back to a paused queue waits there
		return nil
	}
	m, err := jsutil.GetLast(ctx, s.js.Conn(), contracts.StreamWork, subject)
	switch {
	case errors.Is(err, jsutil.ErrNotFound): // begun and ended meanwhile
		return nil
	case err != nil:
		return fmt.Errorf("look at the work message of run %s: %w", run.runID, err)
	case m.Sequence > queue.Delivered.Stream: // and so are, most likely, those that came after it
		queues[name] = nil
		return nil
	case seen.sequence != run.sequence:
		s.handed[run.runID] = handed{run.sequence, 1}
		return nil
	}
	var q contracts.Queued
	if e, err := contracts.DecodeEvent(m.Data); err == nil && json.Unmarshal(e.Payload, &q) == nil && q.Follows != "" {
		if before, err := s.log.LastFromLeader(ctx, q.Follows); err == nil && !before.Status.Terminal() {
			s.handed[run.runID] = handed{run.sequence, 2} // it was given back by whoever saw that it is not its turn
			return nil
		}
	}
	last, err := s.log.LastFromLeader(ctx, run.runID)
	if err != nil || last.Sequence != run.sequence || !s.act(&s.did.Released, run.runID, &s.counters.Released) {
		return err
	}
	s.handed[run.runID] = handed{run.sequence, 2}
	s.logger.Warn("worker was handed a run and has not begun it, gave its lease back", "run_id", run.runID, "attempt", last.Attempt)
	// Of an ack subject the broker takes the two sequences alone: that of the
	// message, and one of the consumer's that is in range.
	return jsutil.ReleaseToken(s.js.Conn(), fmt.Sprintf("$JS.ACK.%s.%s.1.%d.%d.0.0",
		contracts.StreamWork, name, m.Sequence, queue.Delivered.Consumer))
}
