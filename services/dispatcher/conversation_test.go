package dispatcher

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

// say submits a run of a conversation, and returns its id.
func (b *bench) say(t testing.TB, conversation string, onConflict contracts.OnConflict) string {
	t.Helper()
	s := contracts.Submission{RunID: contracts.NewRunID(), AgentKey: "echo", ConversationID: conversation, OnConflict: onConflict}
	b.submit(t, s)
	return s.RunID
}

// follows waits for a run to be queued, and returns whom it follows.
func (b *bench) follows(t testing.TB, runID string) string {
	t.Helper()
	waitFor(t, "run "+runID+" to be queued", func() bool { return b.head(t, runID).Status != "" })
	for _, e := range b.history(t, runID) {
		if e.Type == contracts.TypeQueued {
			var p contracts.Queued
			mustDecode(t, e.Payload, &p)
			return p.Follows
		}
	}
	t.Fatalf("run %s has no run.queued", runID)
	return ""
}

// chain checks that each run follows the one before it.
func (b *bench) chain(t testing.TB, runs ...string) {
	t.Helper()
	before := ""
	for i, id := range runs {
		if got := b.follows(t, id); got != before {
			t.Errorf("run %d, %s, follows %q, want %q", i+1, id, got, before)
		}
		before = id
	}
}

// Runs of a conversation have their turns in the order of the inbox, whatever is
// submitted beside them.
func TestConversationKeepsItsOrder(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	var runs, others []string
	for range 40 {
		runs = append(runs, b.say(t, "c1", ""))
		others = append(others, b.say(t, "c2", contracts.OnConflictEnqueue))
		b.submit(t, contracts.Submission{AgentKey: "echo"})
	}
	b.start(t, Config{})
	b.waitEmpty(t)
	b.chain(t, runs...)
	b.chain(t, others...)
}

// However many dispatchers take submissions in: there is one order, in which
// each run has one place.
func TestConversationWithSeveralDispatchers(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	for range 3 {
		b.start(t, Config{})
	}
	var runs []string
	for range 60 {
		runs = append(runs, b.say(t, "c1", ""))
	}
	b.waitEmpty(t)
	after := map[string]string{}
	for _, id := range runs {
		before := b.follows(t, id)
		if other, taken := after[before]; taken {
			t.Errorf("both %s and %s follow %q", id, other, before)
		}
		after[before] = id
	}
	n := 0
	for id := after[""]; id != ""; id = after[id] {
		n++
	}
	if n != len(runs) {
		t.Errorf("%d of %d runs are in the chain", n, len(runs))
	}
}

// joined gives a run of conversation c1 its turn, as a dispatcher does that dies then.
func (b *bench) joined(t testing.TB) contracts.Submission {
	t.Helper()
	s := contracts.Submission{RunID: contracts.NewRunID(), AgentKey: "echo", ConversationID: "c1"}
	if _, faults, err := b.dispatcher().join(t.Context(), s); err != nil || faults != nil {
		t.Fatal(faults, err)
	}
	return s
}

// turns are the runs of conversation c1, as they are written down.
func (b *bench) turns(t testing.TB) string {
	t.Helper()
	m, err := b.last(t, contracts.StreamRuns, contracts.KVSubject(contracts.BucketRuns, contracts.ConversationKey("c1")))
	if err != nil {
		t.Fatal(err)
	}
	return string(m.Data)
}

// A dispatcher may die after it gave the run its turn and before it wrote that
// down in its log: the run keeps its turn, and who comes behind it waits for its log.
func TestConversationAfterCrash(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	first := b.joined(t)
	b.start(t, Config{})
	second, third := b.say(t, "c1", ""), b.say(t, "c1", contracts.OnConflictInterrupt)
	refused := b.say(t, "c1", contracts.OnConflictReject)
	b.checkRejected(t, refused)
	for _, id := range []string{second, third} {
		if h := b.head(t, id); h.Seq > 0 {
			t.Errorf("run %s is %s before the one before it has a log", id, h.Status)
		}
	}
	b.submit(t, first)
	b.waitEmpty(t)
	b.submit(t, first) // again, long after: it has a log
	b.waitEmpty(t)
	b.waitHistory(t, first.RunID, "run.queued run.cancelled") // by the third
	runs := strings.Fields(b.turns(t))
	if len(runs) != 3 || runs[0] != first.RunID {
		t.Fatalf("the turns are %v", runs)
	}
	if b.follows(t, first.RunID) != "" {
		t.Error("the first one follows another one")
	}
}

// However many come after one whose dispatcher died: he keeps his turn, and no
// run follows one that follows it.
func TestConversationAfterCrashAndMany(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	before := b.joined(t)
	b.append(t, before.RunID, queuedDraft(full(before.RunID)))
	first := b.joined(t)
	b.start(t, Config{})
	for range maxTurns + 3 {
		b.say(t, "c1", "")
	}
	b.submit(t, first)
	b.waitEmpty(t)
	if got := b.follows(t, first.RunID); got != before.RunID {
		t.Errorf("it follows %q, want %q", got, before.RunID)
	}
	turns := b.turns(t)
	if runs := strings.Fields(turns); len(runs) != maxTurns {
		t.Errorf("%d turns are written down, want %d", len(runs), maxTurns)
	}
	b.submit(t, before) // again, when its turn is forgotten: it has a log
	b.waitEmpty(t)
	if b.turns(t) != turns {
		t.Error("who was submitted again has another turn")
	}
}

// A run that was given its turn, and then neither began nor will, is followed by
// nobody: what it followed would be forgotten with it.
func TestConversationLeavesOutWhoNeverBegins(t *testing.T) {
	scheduled := func(s contracts.Submission) contracts.Draft {
		s.NotBefore = time.Now().Add(-time.Second)
		draft := scheduledDraft(s)
		draft.Priority, draft.MaxAttempts = contracts.PriorityNormal, 1
		return draft
	}
	for name, drafts := range map[string]func(contracts.Submission) []contracts.Draft{
		"rejected at its second coming": func(contracts.Submission) []contracts.Draft {
			return []contracts.Draft{{Type: contracts.TypeRejected, Payload: contracts.Rejected{}}}
		},
		"cancelled when its time had come": func(s contracts.Submission) []contracts.Draft {
			return []contracts.Draft{scheduled(s), {Type: contracts.TypeCancelled}}
		},
		"cancelled while it waited": func(s contracts.Submission) []contracts.Draft {
			return []contracts.Draft{queuedDraft(full(s.RunID)), {Type: contracts.TypeCancelled}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, jstest.Start(t))
			b.register(t, echo)
			first := b.joined(t)
			b.append(t, first.RunID, queuedDraft(full(first.RunID)), startedDraft("w-1"))
			s := b.joined(t)
			b.append(t, s.RunID, drafts(s)...)
			b.start(t, Config{})
			last := b.say(t, "c1", "")
			if got := b.follows(t, last); got != first.RunID {
				t.Errorf("the next one follows %q, want %q, before the one that was %s", got, first.RunID, name)
			}
			if want := first.RunID + " " + last; b.turns(t) != want { // should he come after all, he has a new turn
				t.Errorf("the turns are %q, want %q", b.turns(t), want)
			}
		})
	}
}

// Who has his turn is not rejected when he is taken in again, though a run before
// him lives again by then.
func TestConversationDoesNotRejectWhoHasHisTurn(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	first := b.joined(t)
	b.append(t, first.RunID, queuedDraft(full(first.RunID)), startedDraft("w-1"), failedDraft)
	second := b.joined(t)
	b.append(t, first.RunID, contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueRedrive}})
	b.start(t, Config{})
	second.OnConflict = contracts.OnConflictReject
	b.submit(t, second)
	b.chain(t, first.RunID, second.RunID)
}

// A run that has its turn is behind one that was queued: a leader that does not
// know of that is behind, and must not have it passed over.
func TestConversationOfALeaderThatIsBehind(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	first, second := contracts.NewRunID(), contracts.NewRunID()
	b.publish(t, contracts.KVSubject(contracts.BucketRuns, contracts.ConversationKey("c1")), first+" "+second)
	sub := contracts.Submission{RunID: second, AgentKey: "echo", ConversationID: "c1"}
	if follows, _, err := b.dispatcher().join(t.Context(), sub); !errors.Is(err, jsutil.ErrUnavailable) {
		t.Errorf("it follows %q, %v", follows, err)
	}
	b.append(t, first, queuedDraft(full(first)))
	if follows, _, err := b.dispatcher().join(t.Context(), sub); err != nil || follows != first {
		t.Errorf("it follows %q, %v, want %q", follows, err, first)
	}
}

// A run that was removed, and not taken off, holds up nobody.
func TestConversationPassesWhoWasRemoved(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	gone, cancelled := contracts.NewRunID(), contracts.NewRunID()
	b.publish(t, contracts.KVSubject(contracts.BucketRuns, contracts.ConversationKey("c1")), gone+" "+cancelled)
	b.append(t, cancelled, queuedDraft(full(cancelled)), contracts.Draft{Type: contracts.TypeCancelled})
	b.start(t, Config{})
	b.chain(t, b.say(t, "c1", ""))
}

// A delayed run that was given its turn, and is about to be queued, is waited for.
func TestConversationWaitsForWhoIsDue(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	due := b.joined(t)
	due.NotBefore, due.MaxAttempts, due.Priority = time.Now().Add(-time.Second), 1, contracts.PriorityNormal
	b.append(t, due.RunID, scheduledDraft(due))
	b.start(t, Config{})
	next := b.say(t, "c1", "")
	jsutil.Sleep(t.Context(), 5*turnPause) // time to be taken in too early
	if h := b.head(t, next); h.Seq > 0 {
		t.Errorf("run %s is %s", next, h.Status)
	}
	b.append(t, due.RunID, queuedDraft(full(due.RunID)))
	b.chain(t, due.RunID, next)
}

// Whoever was given a turn and has no log for a minute is followed no more.
func TestConversationGivesUpWhoDoesNotCome(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	first := b.joined(t)
	b.append(t, first.RunID, queuedDraft(full(first.RunID)))
	b.joined(t) // and does not come
	d := b.dispatcher()
	runs := strings.Fields(b.turns(t))
	if _, live, err := d.settled(t.Context(), runs, true); !errors.Is(err, jsutil.ErrUnavailable) || !live {
		t.Errorf("within the minute: %v, %v", live, err)
	}
	before, live, err := d.settled(t.Context(), runs, false)
	if err != nil || !live || len(before) != 1 || before[0] != first.RunID {
		t.Errorf("behind it: %v, %v, %v", before, live, err)
	}
}

// A run whose time comes while it is taken in is delayed, or is not: not half of it.
func TestConversationOfARunThatIsDueAtOnce(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	s := newSubmitter(b.dispatcher())
	sub := contracts.Submission{RunID: contracts.NewRunID(), AgentKey: "echo", ConversationID: "c1", NotBefore: time.Now().Add(300 * time.Millisecond)}
	it := &item{Delivery: &jsutil.Delivery{Data: must(contracts.Encode(sub)), Stored: time.Now()}}
	if faults := it.read(Config{MaxTimeout: time.Hour}); faults != nil {
		t.Fatal(faults)
	}
	if faults, err := s.examine(t.Context(), it, nil); err != nil || faults != nil {
		t.Fatal(faults, err)
	}
	waitFor(t, "its time", func() bool { return sub.NotBefore.Before(time.Now()) })
	if d := firstDraft(it, nil); d.Type != contracts.TypeScheduled {
		t.Errorf("its first event is %s, with %+v", d.Type, d.Payload)
	}
}

func TestConversationReject(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	first := b.say(t, "c1", contracts.OnConflictReject)
	b.chain(t, first)
	b.chain(t, b.say(t, "c2", contracts.OnConflictReject)) // another conversation
	refused := b.say(t, "c1", contracts.OnConflictReject)
	if m := faultOf(b.checkRejected(t, refused), "on_conflict"); m != "run "+first+" of the conversation has not ended" {
		t.Errorf("the fault is %q", m)
	}
	b.waitEmpty(t)
	b.append(t, first, startedDraft("w-1"), failedDraft)
	second := b.say(t, "c1", contracts.OnConflictReject)
	b.follows(t, second)
	b.chain(t, first, second) // the one that was refused has no turn
	// One that waited and was cancelled does not hide that the one before it goes on.
	waited := b.say(t, "c1", "")
	b.follows(t, waited)
	b.publish(t, contracts.CancelSubject(waited), "{}")
	b.waitHistory(t, waited, "run.queued run.cancelled")
	b.append(t, second, startedDraft("w-1"))
	if m := faultOf(b.checkRejected(t, b.say(t, "c1", contracts.OnConflictReject)), "on_conflict"); m != "run "+second+" of the conversation has not ended" {
		t.Errorf("the fault is %q", m)
	}
	s := contracts.Submission{RunID: contracts.NewRunID(), AgentKey: "echo", ConversationID: "c3", OnConflict: contracts.OnConflictReject, NotBefore: time.Now().Add(time.Hour)}
	b.submit(t, s)
	if m := faultOf(b.checkRejected(t, s.RunID), "on_conflict"); !strings.Contains(m, "not_before") {
		t.Errorf("the fault is %q", m)
	}
	// Who forgets the conversation does not believe in vain that others were looked at.
	for _, what := range []contracts.OnConflict{contracts.OnConflictReject, contracts.OnConflictInterrupt} {
		s := contracts.Submission{RunID: contracts.NewRunID(), AgentKey: "echo", OnConflict: what}
		b.submit(t, s)
		if m := faultOf(b.checkRejected(t, s.RunID), "on_conflict"); !strings.Contains(m, "without a conversation_id") {
			t.Errorf("of %s without a conversation the fault is %q", what, m)
		}
	}
}

// A run that is rejected for its conversation leaves its idempotency key to the next one.
func TestConversationRejectLeavesTheKey(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	first := b.say(t, "c1", "")
	b.chain(t, first)
	s := contracts.Submission{AgentKey: "echo", ConversationID: "c1", OnConflict: contracts.OnConflictReject, IdempotencyKey: "k"}
	b.submit(t, s)
	refused := contracts.RunIDFromKey("k")
	b.checkRejected(t, refused)
	b.append(t, first, startedDraft("w-1"), failedDraft)
	b.submit(t, s)
	b.waitEmpty(t)
	b.chain(t, first, contracts.RunIDAfter(refused, "k"))
}

// What runs is asked to end, what waits is cancelled, and what has ended is left alone.
func TestConversationInterrupt(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	ended := b.say(t, "c1", "")
	b.follows(t, ended)
	b.append(t, ended, startedDraft("w-1"), failedDraft)
	running, waiting := b.say(t, "c1", ""), b.say(t, "c1", "")
	b.follows(t, running)
	b.append(t, running, startedDraft("w-1"))
	b.follows(t, waiting)
	last := b.say(t, "c1", contracts.OnConflictInterrupt)
	b.waitHistory(t, running, "run.queued run.started run.cancel_requested")
	e := b.waitHistory(t, waiting, "run.queued run.cancelled")[1]
	var p contracts.Cancelled
	if mustDecode(t, e.Payload, &p); p.Reason != fmt.Sprintf("its conversation goes on with run %s", last) {
		t.Errorf("the reason is %q", p.Reason)
	}
	b.waitEmpty(t)
	b.waitHistory(t, ended, "run.queued run.started run.failed")
	b.chain(t, ended, running, waiting, last)
}

// A delayed run comes into its conversation when its time has come, and holds up nobody before.
func TestConversationOfADelayedRun(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	delayed := contracts.Submission{RunID: contracts.NewRunID(), AgentKey: "echo", ConversationID: "c1", NotBefore: time.Now().Add(time.Second)}
	b.submit(t, delayed)
	first := b.say(t, "c1", "")
	b.waitHistory(t, delayed.RunID, "run.scheduled run.queued")
	b.chain(t, first, delayed.RunID)
}

// One that was cancelled before its time, and is redriven, comes in then.
func TestConversationOfADelayedRunThatIsRedriven(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	delayed := contracts.Submission{RunID: contracts.NewRunID(), AgentKey: "echo", ConversationID: "c1", NotBefore: time.Now().Add(time.Hour)}
	b.submit(t, delayed)
	first := b.say(t, "c1", "")
	b.chain(t, first)
	b.publish(t, contracts.CancelSubject(delayed.RunID), "{}")
	b.waitHistory(t, delayed.RunID, "run.scheduled run.cancelled")
	b.publish(t, contracts.RedriveSubject(delayed.RunID), "{}")
	waitFor(t, "its work", func() bool { return b.work(t, delayed.RunID) != nil })
	var e contracts.Event
	var p contracts.Queued
	mustDecode(t, b.work(t, delayed.RunID).Data, &e)
	if mustDecode(t, e.Payload, &p); p.Follows != first {
		t.Errorf("it follows %q, want %q", p.Follows, first)
	}
	if last := b.say(t, "c1", ""); b.follows(t, last) != delayed.RunID {
		t.Errorf("the next one follows %q, want %q", b.follows(t, last), delayed.RunID)
	}
	// It has no run.queued to say so.
	all := b.history(t, delayed.RunID)
	var r contracts.Requeued
	if mustDecode(t, all[len(all)-1].Payload, &r); r.Follows != first {
		t.Errorf("%s says that it follows %q, want %q", all[len(all)-1].Type, r.Follows, first)
	}
}

// One that is held up for a moment is not overtaken by who comes next.
func TestConversationKeepsItsOrderOverATrouble(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	first := b.joined(t)
	b.start(t, Config{})
	second := b.say(t, "c1", "")
	waitFor(t, "the second one to be taken", func() bool {
		c, err := b.JS.Consumer(t.Context(), contracts.StreamInbox, contracts.ConsumerSubmit)
		return err == nil && c.CachedInfo().Delivered.Consumer > 0
	})
	jsutil.Sleep(t.Context(), 2*turnPause) // it is tried by now, and may wait for its next try
	b.append(t, first.RunID, queuedDraft(full(first.RunID)))
	third := b.say(t, "c1", "")
	b.follows(t, third)
	b.chain(t, first.RunID, second, third)
}
