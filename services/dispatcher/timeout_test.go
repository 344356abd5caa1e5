package dispatcher

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil/jstest"
)

func TestMaxTimeout(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	slow := contracts.AgentRecord{AgentKey: "slow", TimeoutSeconds: 7200}
	b.register(t, echo, slow)
	b.start(t, Config{MaxTimeout: time.Hour})
	at, above, unknown, left := contracts.NewRunID(), contracts.NewRunID(), contracts.NewRunID(), contracts.NewRunID()
	b.submit(t, contracts.Submission{RunID: at, AgentKey: "echo", TimeoutSeconds: 3600})
	b.submit(t, contracts.Submission{RunID: above, AgentKey: "echo", TimeoutSeconds: 3600.5})
	b.submit(t, fmt.Sprintf(`{"run_id":%q,"agent_key":"nobody","timeout_seconds":3601,"max_attempts":0}`, unknown))
	b.submit(t, contracts.Submission{RunID: left, AgentKey: "slow"})
	if s := b.checkQueued(t, at); s.TimeoutSeconds != 3600 {
		t.Errorf("at the limit it became %g", s.TimeoutSeconds)
	}
	if m := faultOf(b.checkRejected(t, above), "timeout_seconds"); m != "must be at most 3600, the limit of the dispatcher, not 3600.5" {
		t.Errorf("fault is %q", m)
	}
	faults := b.checkRejected(t, unknown) // all of them together
	for _, field := range []string{"timeout_seconds", "max_attempts", "agent_key"} {
		if faultOf(faults, field) == "" {
			t.Errorf("no fault of %s in %v", field, faults)
		}
	}
	if s := b.checkQueued(t, left); s.TimeoutSeconds != 3600 {
		t.Errorf("what its agent states became %g", s.TimeoutSeconds)
	}
}

// late checks the end of a run that nobody has begun by its time.
func (b *bench) checkLate(t *testing.T, id, before string, by time.Time) {
	t.Helper()
	e := b.waitHistory(t, id, before+" run.timed_out")
	end := e[len(e)-1]
	if end.Time.Before(by) || end.Time.Sub(by) > 500*time.Millisecond { // a few ms on an idle machine
		t.Errorf("run %s was given up %s after its time", id, end.Time.Sub(by))
	}
	var p contracts.TimedOut
	mustDecode(t, end.Payload, &p)
	if p.TimeoutSeconds != 42 || p.StartTimeoutSeconds == 0 {
		t.Errorf("payload is %+v", p)
	}
	waitFor(t, "the work message to be removed", func() bool { return b.work(t, id) == nil })
}

// Nobody begins these runs: one that may hardly wait, one that may wait as long
// as a schedule takes, and one that was delayed.
func TestStartTimeout(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	begun := time.Now()
	short, long, delayed, never := contracts.NewRunID(), contracts.NewRunID(), contracts.NewRunID(), contracts.NewRunID()
	started := contracts.NewRunID()
	b.submit(t, contracts.Submission{RunID: short, AgentKey: "echo", StartTimeoutSeconds: 0.2})
	b.submit(t, contracts.Submission{RunID: long, AgentKey: "echo", StartTimeoutSeconds: 1.5})
	b.submit(t, contracts.Submission{RunID: delayed, AgentKey: "echo", StartTimeoutSeconds: 0.8, NotBefore: begun.Add(time.Second)})
	b.submit(t, contracts.Submission{RunID: started, AgentKey: "echo", StartTimeoutSeconds: 1.2})
	b.submit(t, contracts.Submission{RunID: never, AgentKey: "echo"})
	b.checkQueued(t, started)
	b.append(t, started, startedDraft("w-1"), contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueShutdown}})
	queued := func(id string) time.Time {
		b.checkQueued(t, id)
		return b.history(t, id)[0].Time
	}
	b.checkLate(t, long, "run.queued", queued(long).Add(1500*time.Millisecond))
	b.checkLate(t, short, "run.queued", b.history(t, short)[0].Time.Add(200*time.Millisecond))
	b.checkLate(t, delayed, "run.scheduled run.queued", begun.Add(1800*time.Millisecond))
	waitFor(t, "the schedule to be empty", func() bool { return b.count(t, contracts.StreamSchedule) == 0 })
	b.waitEmpty(t)
	b.checkQueued(t, never)
	if e := b.history(t, started); strings.Contains(types(e), "timed_out") { // it was begun once
		t.Errorf("a run that was begun has the log %s", types(e))
	}
	// A redrive is not bound by it.
	b.publish(t, contracts.RedriveSubject(short), "")
	b.waitHistory(t, short, "run.queued run.timed_out run.requeued")
	waitFor(t, "the work message", func() bool { return b.work(t, short) != nil })
	b.publish(t, contracts.ScheduleDueSubject(short), "")
	waitFor(t, "the schedule to be empty", func() bool { return b.count(t, contracts.StreamSchedule) == 0 })
	b.waitHistory(t, short, "run.queued run.timed_out run.requeued")
}

// A dispatcher may be killed between any two steps of this, too.
func TestStartTimeoutAfterCrash(t *testing.T) {
	for name, done := range map[string]func(t *testing.T, b *bench, s contracts.Submission){
		"queued":         func(*testing.T, *bench, contracts.Submission) {},
		"work published": func(t *testing.T, b *bench, s contracts.Submission) { b.putWork(t, s.RunID) },
		"timed out": func(t *testing.T, b *bench, s contracts.Submission) {
			b.putWork(t, s.RunID)
			b.append(t, s.RunID, contracts.Draft{Type: contracts.TypeTimedOut,
				Payload: contracts.TimedOut{TimeoutSeconds: s.TimeoutSeconds, StartTimeoutSeconds: s.StartTimeoutSeconds}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, jstest.Start(t))
			b.register(t, echo)
			s := full(contracts.NewRunID())
			s.StartTimeoutSeconds = 0.3
			b.submit(t, s)
			b.append(t, s.RunID, queuedDraft(s))
			done(t, b, s)
			stop := b.start(t, Config{})
			b.waitHistory(t, s.RunID, "run.queued run.timed_out")
			b.waitEmpty(t)
			waitFor(t, "the work message to be removed", func() bool { return b.work(t, s.RunID) == nil })
			stop()
		})
	}
}

// A run that has lost its work message and its schedule gets both again, and
// its deadline is what it was; one whose time is up already is given up.
func TestStartTimeoutOfLostWork(t *testing.T) {
	for name, seconds := range map[string]float64{"soon": 0.9, "in a while": 2, "over": 0.05} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, jstest.Start(t))
			b.register(t, echo)
			s := full(contracts.NewRunID())
			s.StartTimeoutSeconds = seconds
			b.append(t, s.RunID, queuedDraft(s))
			queued := b.history(t, s.RunID)[0].Time
			b.publish(t, contracts.ScheduleDueSubject(s.RunID), contracts.RequeueWorkLost)
			b.start(t, Config{})
			if seconds > 0.5 {
				waitFor(t, "the work message", func() bool { return b.work(t, s.RunID) != nil })
			}
			b.checkLate(t, s.RunID, "run.queued", queued.Add(time.Duration(seconds*float64(time.Second))))
		})
	}
}

// The deadline passes while no dispatcher runs.
func TestStartTimeoutWhileNoDispatcherRuns(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	stop := b.start(t, Config{})
	id := contracts.NewRunID()
	b.submit(t, contracts.Submission{RunID: id, AgentKey: "echo", StartTimeoutSeconds: 1})
	b.checkQueued(t, id)
	b.waitEmpty(t)
	stop()
	waitFor(t, "the broker to say that it is due", func() bool {
		_, err := b.last(t, contracts.StreamSchedule, contracts.ScheduleDueSubject(id))
		return err == nil
	})
	b.start(t, Config{})
	b.waitHistory(t, id, "run.queued run.timed_out")
}
