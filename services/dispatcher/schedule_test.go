package dispatcher

import (
	"errors"
	"testing"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

func TestNotBefore(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	start := time.Now()
	want := map[string]time.Time{}
	for _, d := range []time.Duration{1, 50, 200, 400, 590, 650, 800, 1000, 1100, 1234, 1500} {
		id := contracts.NewRunID()
		want[id] = start.Add(d * time.Millisecond)
		b.submit(t, contracts.Submission{RunID: id, AgentKey: "echo", NotBefore: want[id]})
	}
	past := contracts.NewRunID()
	b.submit(t, contracts.Submission{RunID: past, AgentKey: "echo", NotBefore: start.Add(-time.Hour)})
	b.checkQueued(t, past)
	var late time.Duration
	for id, due := range want {
		waitFor(t, "run "+id+" to be queued", func() bool { return b.work(t, id) != nil })
		e := b.history(t, id)
		queued := e[len(e)-1]
		if queued.Type != contracts.TypeQueued {
			t.Fatalf("run %s has the log %s", id, types(e))
		}
		if queued.Time.Before(due) {
			t.Errorf("run %s was queued %s too early", id, due.Sub(queued.Time))
		}
		late = max(late, queued.Time.Sub(due))
	}
	t.Logf("the latest run was queued %s after its time", late)
	if late > 250*time.Millisecond { // a few ms on a machine that does nothing else
		t.Errorf("a run was queued %s after its time", late)
	}
	waitFor(t, "the schedule to be empty", func() bool { return b.count(t, contracts.StreamSchedule) == 0 })
}

func TestNotBeforeFarAway(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	id := contracts.NewRunID()
	b.submit(t, contracts.Submission{RunID: id, AgentKey: "echo", NotBefore: time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)})
	b.waitHistory(t, id, "run.scheduled")
	b.waitEmpty(t)
	m, err := b.last(t, contracts.StreamSchedule, contracts.ScheduleAtSubject(id))
	if err != nil {
		t.Fatal(err)
	}
	at, err := time.Parse("@at "+time.RFC3339Nano, m.Header.Get(headerSchedule))
	if err != nil {
		t.Fatal(err)
	}
	if in := time.Until(at); in < mostSchedule-time.Hour || in > mostSchedule {
		t.Errorf("schedule fires in %s", in)
	}
	// It fires long before its time: it is put again.
	b.publish(t, contracts.ScheduleDueSubject(id), "")
	waitFor(t, "a new schedule", func() bool {
		now, err := b.last(t, contracts.StreamSchedule, contracts.ScheduleAtSubject(id))
		return err == nil && now.Sequence > m.Sequence
	})
	b.waitHistory(t, id, "run.scheduled")
}

func TestDueAfterCrash(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	s := full(contracts.NewRunID())
	s.NotBefore = time.Now().Add(-time.Second)
	b.append(t, s.RunID, scheduledDraft(s), queuedDraft(contracts.Submission{}))
	gone := contracts.NewRunID() // its log was removed
	b.publish(t, contracts.ScheduleDueSubject(s.RunID), "")
	b.publish(t, contracts.ScheduleDueSubject(gone), "")
	b.publish(t, "runs.schedule.due.nonsense", "")
	b.start(t, Config{})
	waitFor(t, "the work message", func() bool { return b.work(t, s.RunID) != nil })
	waitFor(t, "the schedule to be empty", func() bool { return b.count(t, contracts.StreamSchedule) == 0 })
	b.waitHistory(t, s.RunID, "run.scheduled run.queued")
}

func TestDispose(t *testing.T) {
	for _, c := range []struct {
		err       error
		delivered uint64
		act       action
		delay     time.Duration
	}{
		{nil, 1, actAck, 0},
		{notYet{delay: time.Minute}, 9, actNak, time.Minute},
		{errMalformed, 1, actTerm, 0},
		{errors.Join(jsutil.ErrUnavailable, errDrained), 5, actNak, 0},
		{jsutil.ErrUnavailable, 1, actNak, firstDelay},
		{jsutil.ErrConflict, 3, actNak, 4 * firstDelay},
		{jsutil.ErrNoTopology, 1000, actNak, maxDelay},
		{jsutil.ErrRefused, 1000, actNak, maxOddDelay},
		{errors.New("who knows"), 2, actNak, 2 * firstDelay},
	} {
		if act, delay := dispose(c.err, c.delivered); act != c.act || delay != c.delay {
			t.Errorf("%v, delivery %d: %s after %s, want %s after %s", c.err, c.delivered, act, delay, c.act, c.delay)
		}
	}
}

// What statekeeper asks when it misses a run's work message: the message comes
// back, the log says why if the run waited, and nothing happens to others.
func TestWorkLost(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	pending, running, kept, ended := b.newRun(t), b.newRun(t), b.newRun(t), b.newRun(t)
	want := string(b.work(t, pending).Data)
	b.append(t, running, startedDraft("w-1"))
	b.append(t, ended, startedDraft("w-1"), failedDraft)
	backoff := b.newRun(t)
	retryAt := time.Now().Add(time.Hour)
	b.append(t, backoff, startedDraft("w-1"), contracts.Draft{Type: contracts.TypeRetrying, NotBefore: retryAt,
		Payload: contracts.Retrying{RetryAt: retryAt}})
	for _, id := range []string{pending, running, ended, backoff} {
		b.remove(t, b.work(t, id).Sequence)
	}
	b.start(t, Config{})
	for range 2 {
		for _, id := range []string{pending, running, kept, ended, backoff, contracts.NewRunID()} {
			b.publish(t, contracts.ScheduleDueSubject(id), contracts.RequeueWorkLost)
		}
		waitFor(t, "the schedule to be empty", func() bool { return b.count(t, contracts.StreamSchedule) == 0 })
		b.waitHistory(t, pending, "run.queued run.requeued")
		b.waitHistory(t, running, "run.queued run.started")
		b.waitHistory(t, kept, "run.queued")
		b.waitHistory(t, ended, "run.queued run.started run.failed")
		e := b.waitHistory(t, backoff, "run.queued run.started run.retrying run.requeued")
		if last := e[3]; !last.NotBefore.Equal(retryAt) || last.Attempt != 1 {
			t.Errorf("the run in backoff is at %+v", last.Position)
		}
		if m := b.work(t, pending); m == nil || string(m.Data) != want {
			t.Errorf("the work message is %+v, want %s", m, want)
		}
		if b.work(t, running) == nil || b.work(t, backoff) == nil || b.work(t, ended) != nil {
			t.Error("work messages of the others are wrong")
		}
		b.remove(t, b.work(t, pending).Sequence) // lost again: the log does not grow
	}
}

// Something takes the work of a run away each time it is made: it is made again
// ever more slowly, not as often as somebody misses it.
func TestWorkLostAgainAndAgain(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id := contracts.NewRunID()
	b.append(t, id, queuedDraft(full(id)))
	d := b.dispatcher()
	missed := &jsutil.Delivery{Data: []byte(contracts.RequeueWorkLost), Delivered: 1}
	if err := d.due(t.Context(), missed, id); err != nil || b.work(t, id) == nil {
		t.Fatalf("lost once: %v, work %v", err, b.work(t, id))
	}
	b.remove(t, b.work(t, id).Sequence)
	var later notYet
	if err := d.due(t.Context(), missed, id); !errors.As(err, &later) || later.delay < time.Second || later.delay > maxRestore || b.work(t, id) != nil {
		t.Errorf("lost twice: %v, work %v", err, b.work(t, id))
	}
	missed.Delivered = 2 // that has been waited for
	if err := d.due(t.Context(), missed, id); err != nil || b.work(t, id) == nil {
		t.Errorf("after the wait: %v, work %v", err, b.work(t, id))
	}
	if have := types(b.history(t, id)); have != "run.queued run.requeued" {
		t.Errorf("the log is %s", have)
	}
}

// A delayed run whose schedule was deleted by hand, as statekeeper says: it
// gets another one, or is kept in hand if that is not for long, and begins in time.
func TestScheduleLost(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	soon, later := full(contracts.NewRunID()), full(contracts.NewRunID())
	soon.NotBefore, later.NotBefore = time.Now().Add(1500*time.Millisecond), time.Now().Add(48*time.Hour)
	b.append(t, soon.RunID, scheduledDraft(soon))
	b.append(t, later.RunID, scheduledDraft(later))
	b.start(t, Config{})
	for _, s := range []contracts.Submission{soon, later} {
		b.publish(t, contracts.ScheduleDueSubject(s.RunID), contracts.RequeueWorkLost)
	}
	waitFor(t, "a new schedule", func() bool {
		_, err := b.last(t, contracts.StreamSchedule, contracts.ScheduleAtSubject(later.RunID))
		return err == nil
	})
	e := b.waitHistory(t, soon.RunID, "run.scheduled run.queued")
	if at := e[1].Time; at.Before(soon.NotBefore) || at.Sub(soon.NotBefore) > 500*time.Millisecond {
		t.Errorf("it was queued %s after its time", at.Sub(soon.NotBefore))
	}
	waitFor(t, "the work message", func() bool { return b.work(t, soon.RunID) != nil })
	b.waitHistory(t, later.RunID, "run.scheduled")
}
