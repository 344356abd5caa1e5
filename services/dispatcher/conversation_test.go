package dispatcher

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"longhaul/pkg/contracts"
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

// A dispatcher may die after it gave the run its turn and before it wrote that
// down in its log: the run keeps its turn, also if others came behind it.
func TestConversationAfterCrash(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	d := b.dispatcher()
	turn := func() contracts.Submission {
		s := contracts.Submission{RunID: contracts.NewRunID(), AgentKey: "echo", ConversationID: "c1"}
		if _, faults, err := d.join(t.Context(), s); err != nil || faults != nil {
			t.Fatal(faults, err)
		}
		return s
	}
	first, second := turn(), turn()
	b.start(t, Config{})
	third := b.say(t, "c1", "")
	b.follows(t, third)
	b.submit(t, second)
	b.submit(t, first)
	b.waitEmpty(t)
	b.chain(t, first.RunID, second.RunID, third)
	b.submit(t, first) // again, long after: it has a log
	b.waitEmpty(t)
	fourth := b.say(t, "c1", "")
	b.follows(t, fourth)
	b.chain(t, first.RunID, second.RunID, third, fourth)
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
	s := contracts.Submission{RunID: contracts.NewRunID(), AgentKey: "echo", ConversationID: "c3", OnConflict: contracts.OnConflictReject, NotBefore: time.Now().Add(time.Hour)}
	b.submit(t, s)
	if m := faultOf(b.checkRejected(t, s.RunID), "on_conflict"); !strings.Contains(m, "not_before") {
		t.Errorf("the fault is %q", m)
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
