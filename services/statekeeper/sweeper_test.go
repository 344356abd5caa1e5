package statekeeper

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/runlog"
)

// eager makes the sweeper look often and miss a run soon.
func eager(s *Statekeeper) {
	s.sweeper.interval, s.sweeper.lost, s.retirer.interval = 50*time.Millisecond, 100*time.Millisecond, 50*time.Millisecond
}

// idle has it sweep and remove only when asked to.
func idle(s *Statekeeper) { s.sweeper.interval, s.retirer.interval = time.Hour, time.Hour }

// putWork publishes the work message of a run, and returns where it stands.
func (p *player) putWork(runID string) uint64 {
	p.t.Helper()
	first, err := p.log.First(p.t.Context(), runID)
	if err != nil {
		p.t.Fatal(err)
	}
	data, err := contracts.Encode(first.Event)
	if err != nil {
		p.t.Fatal(err)
	}
	ack, err := p.records.js.Publish(p.t.Context(), contracts.WorkSubject(first.AgentKey, first.Priority, runID), data)
	if err != nil {
		p.t.Fatal(err)
	}
	return ack.Sequence
}

// asked are the runs that a dispatcher is asked to queue again.
func (p *player) asked() map[string]bool {
	p.t.Helper()
	found, err := subjectsOf(p.t.Context(), p.records.js, contracts.StreamSchedule, contracts.SubjectAllScheduleDue)
	if err != nil {
		p.t.Fatal(err)
	}
	runs := make(map[string]bool)
	for subject := range found {
		id, err := contracts.RunIDOfSubject(subject)
		if err != nil {
			p.t.Fatal(err)
		}
		runs[id] = true
	}
	return runs
}

func purge(t *testing.T, b *jstest.Broker, name string) {
	t.Helper()
	stream, err := b.JS.Stream(t.Context(), name)
	if err == nil {
		err = stream.Purge(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func scheduled(at time.Time) contracts.Draft {
	return contracts.Draft{Type: contracts.TypeScheduled, AgentKey: "echo", Priority: contracts.PriorityNormal, MaxAttempts: 3, NotBefore: at,
		Payload: contracts.Scheduled{NotBefore: at, Submission: contracts.Submission{AgentKey: "echo"}}}
}

// A run that has nothing to wait with is noticed in whatever status it lives,
// by one of two instances, and no other one is.
func TestSweeperMissesWork(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	_, queuedLost := p.submit(contracts.Submission{})
	head, runningLost := p.submit(contracts.Submission{})
	p.next(head, runningLost, started("w-1", ""))
	scheduledLost, waits := contracts.NewRunID(), contracts.NewRunID()
	p.next(runlog.Head{}, scheduledLost, scheduled(time.Now().Add(time.Hour)))
	// A schedule that only says by when a run has to begin hides nothing.
	_, deadlineLost := p.submit(contracts.Submission{StartTimeoutSeconds: 3600})
	if _, err := b.JS.Publish(t.Context(), contracts.ScheduleAtSubject(deadlineLost), nil); err != nil {
		t.Fatal(err)
	}
	lost := []string{queuedLost, runningLost, scheduledLost, deadlineLost}

	p.next(runlog.Head{}, waits, scheduled(time.Now().Add(time.Hour)))
	schedule := func(id string) uint64 {
		ack, err := b.JS.PublishMsg(t.Context(), &nats.Msg{Subject: contracts.ScheduleAtSubject(id), Header: nats.Header{
			"Nats-Schedule": {"@at " + time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}, "Nats-Schedule-Target": {contracts.ScheduleDueSubject(id)}}})
		if err != nil {
			t.Fatal(err)
		}
		return ack.Sequence
	}
	schedule(waits)
	unscheduled := contracts.NewRunID()
	p.next(runlog.Head{}, unscheduled, scheduled(time.Now().Add(time.Hour)))
	place := schedule(unscheduled)
	_, has := p.submit(contracts.Submission{})
	p.putWork(has)
	head, runs := p.submit(contracts.Submission{})
	work := p.putWork(runs)
	p.next(head, runs, started("w-1", ""))
	p.short(contracts.Submission{})

	one := startKeeper(t, b, Config{}, eager)
	two := startKeeper(t, b, Config{}, eager)
	waitFor(t, "dispatchers to be asked", func() (bool, string) { a := p.asked(); return len(a) == 4, fmt.Sprint(a) })
	for _, id := range lost {
		if !p.asked()[id] {
			t.Errorf("run %s is not missed", id)
		}
	}
	stream, err := b.JS.Stream(t.Context(), contracts.StreamWork)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(t.Context(), work); err != nil {
		t.Fatal(err)
	}
	if a := p.asked(); a[unscheduled] || a[waits] {
		t.Errorf("runs with a schedule are missed: %v", a)
	}
	if stream, err = b.JS.Stream(t.Context(), contracts.StreamSchedule); err == nil {
		err = stream.DeleteMsg(t.Context(), place)
	}
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the runs whose messages were deleted to be missed", func() (bool, string) {
		a := p.asked()
		return a[runs] && a[unscheduled], fmt.Sprint(a)
	})
	if a := p.asked(); len(a) != 6 {
		t.Errorf("asked about %v", a)
	}
	// Whoever is not active does not sweep; while nobody was, both might have.
	if n := one.api.counters.stats().Requeued + two.api.counters.stats().Requeued; n < 6 || n > 12 {
		t.Errorf("6 runs were lost, asked %d times", n)
	}
	// Asked and not done yet: not asked again.
	if info, err := b.JS.Stream(t.Context(), contracts.StreamSchedule); err != nil || info.CachedInfo().State.Msgs > 12+2 {
		t.Errorf("the schedule holds %d messages, %v", info.CachedInfo().State.Msgs, err)
	}
}

// Where more runs wait than one sweep looks at, the next ones go on behind it,
// and then begin anew.
func TestSweeperGoesRound(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	var last string
	for i := range sweepRuns + 50 {
		s := contracts.Submission{}
		if i == sweepRuns { // the first behind a page, with an id that comes before all others
			s.RunID = "00000000-0000-4000-8000-000000000001"
		}
		_, last = p.submit(s)
		if i > 0 && i != sweepRuns && i < sweepRuns+49 {
			p.putWork(last)
		}
	}
	startKeeper(t, b, Config{}, eager)
	for range 3 { // as it may have seen some of them before it knew of all
		waitFor(t, "the first run of each page and the last to be missed", func() (bool, string) {
			a := p.asked()
			return len(a) == 3 && a[last], fmt.Sprint(len(a))
		})
		purge(t, b, contracts.StreamSchedule) // once it is asked for, a run waits with that
	}
}

// A worker takes a message and dies before it begins: the next one has it in
// no time. A run in backoff is left alone, and so is one that waits for its turn
// in a conversation.
func TestSweeperGivesBack(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	const lease = time.Minute
	if err := jsutil.EnsureWorkConsumers(t.Context(), b.JS, "echo", lease); err != nil {
		t.Fatal(err)
	}
	cons, err := b.JS.Consumer(t.Context(), contracts.StreamWork, contracts.WorkConsumer("echo", contracts.PriorityNormal))
	if err != nil {
		t.Fatal(err)
	}
	fetch := func(n int, wait time.Duration) (got []jetstream.Msg) {
		t.Helper()
		batch, err := cons.Fetch(n, jetstream.FetchMaxWait(wait))
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			got = append(got, m)
		}
		return got
	}
	head, backoff := p.submit(contracts.Submission{})
	p.putWork(backoff)
	follows := contracts.NewRunID()
	_, dropped := p.submit(contracts.Submission{})
	dropSequence := p.putWork(dropped)
	if _, err := b.JS.Publish(t.Context(), contracts.ScheduleAtSubject(dropped), nil); err != nil { // by when it has to begin
		t.Fatal(err)
	}
	follower := queued(contracts.Submission{})
	follower.Payload = contracts.Queued{Follows: backoff}
	p.next(runlog.Head{}, follows, follower)
	p.putWork(follows)
	for _, m := range fetch(3, 5*time.Second) {
		switch id, _ := contracts.RunIDOfSubject(m.Subject()); id {
		case follows:
			if err := m.NakWithDelay(time.Hour); err != nil {
				t.Fatal(err)
			}
		case backoff:
			head = p.next(head, id, started("w-1", ""))
			retryAt := time.Now().Add(time.Hour)
			p.next(head, id, contracts.Draft{Type: contracts.TypeRetrying, NotBefore: retryAt, Payload: contracts.Retrying{RetryAt: retryAt}})
			if err := m.NakWithDelay(time.Hour); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, fresh := p.submit(contracts.Submission{}) // not handed to anyone
	p.putWork(fresh)

	k := startKeeper(t, b, Config{}, func(s *Statekeeper) { s.sweeper.interval = 50 * time.Millisecond })
	waitFor(t, "the lease to be given back", func() (bool, string) { return k.api.counters.stats().Released > 0, "" })
	got := fetch(2, 5*time.Second)
	if len(got) != 2 {
		t.Fatalf("%d messages were delivered, expected the one given back and the fresh one", len(got))
	}
	seen := map[string]bool{}
	for _, m := range got {
		id, _ := contracts.RunIDOfSubject(m.Subject())
		seen[id] = true
		if meta, err := m.Metadata(); err != nil || id == dropped && meta.Sequence.Stream != dropSequence {
			t.Errorf("%s is %+v, %v", m.Subject(), meta, err)
		}
	}
	if !seen[dropped] || !seen[fresh] {
		t.Errorf("delivered %v, expected %s and %s", seen, dropped, fresh)
	}
	for _, m := range fetch(3, 500*time.Millisecond) { // again the two, for they have not begun
		if id, _ := contracts.RunIDOfSubject(m.Subject()); id == backoff || id == follows {
			t.Errorf("run %s was delivered: in backoff is %s, in waiting for its turn %s", id, backoff, follows)
		}
	}
	if n := k.api.counters.stats().Requeued; n != 0 {
		t.Errorf("%d runs were asked for", n)
	}
}

// What was handed out and given back while its queue is paused waits for the
// resume: it is not with a worker that never began it, and the doctor must not
// be told so.
func TestSweeperLeavesPausedQueues(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	p := newPlayer(t, b)
	if err := jsutil.EnsureWorkConsumers(t.Context(), b.JS, "echo", time.Minute); err != nil {
		t.Fatal(err)
	}
	name := contracts.WorkConsumer("echo", contracts.PriorityNormal)
	cons, err := b.JS.Consumer(t.Context(), contracts.StreamWork, name)
	if err != nil {
		t.Fatal(err)
	}
	_, id := p.submit(contracts.Submission{})
	p.putWork(id)
	m, err := cons.Next()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.JS.PauseConsumer(t.Context(), contracts.StreamWork, name, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := m.Nak(); err != nil {
		t.Fatal(err)
	}
	k := startKeeper(t, b, Config{}, func(s *Statekeeper) {
		idle(s)
		s.sweeper.interval = time.Millisecond
		s.sweeper.acting = func(context.Context) (bool, error) { return false, nil } // only when it is asked to
	})
	looked := func() contracts.SweepResponse {
		t.Helper()
		var did any
		waitFor(t, "a sweep", func() (bool, string) {
			var err error
			did, err = k.sweeper.now(t.Context(), []byte(`{"dry_run":true}`))
			return err == nil && k.feed.current().stats().Total == 1, fmt.Sprint(err)
		})
		return did.(contracts.SweepResponse)
	}
	for range 4 {
		if did := looked(); len(did.Released)+len(did.Requeued) > 0 {
			t.Fatalf("a run behind a pause is taken for stuck: %+v", did)
		}
	}
	if _, err := b.JS.ResumeConsumer(t.Context(), contracts.StreamWork, name); err != nil {
		t.Fatal(err)
	}
	if _, err = cons.Next(); err != nil { // it comes, and its receiver dies
		t.Fatal(err)
	}
	waitFor(t, "the lease to be missed", func() (bool, string) {
		did := looked()
		return len(did.Released) == 1 && did.Released[0] == id, fmt.Sprintf("%+v", did)
	})
}
