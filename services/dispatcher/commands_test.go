package dispatcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil/jstest"
)

// newRun makes a run that waits for a worker, and returns its id.
func (b *bench) newRun(t testing.TB) string {
	t.Helper()
	id := contracts.NewRunID()
	b.append(t, id, queuedDraft(full(id)))
	b.putWork(t, id)
	return id
}

func (b *bench) cancel(t testing.TB, runID, body string) {
	t.Helper()
	b.publish(t, contracts.CancelSubject(runID), body)
}

func TestCancelPending(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id, other := b.newRun(t), b.newRun(t)
	b.start(t, Config{})
	b.cancel(t, id, `{"reason":"no longer needed","by":"ann"}`)
	e := b.waitHistory(t, id, "run.queued run.cancelled")
	var p contracts.Cancelled
	mustDecode(t, e[1].Payload, &p)
	if p.Reason != "no longer needed" || p.By != "ann" {
		t.Errorf("payload is %+v", p)
	}
	waitFor(t, "the work message to be removed", func() bool { return b.work(t, id) == nil })
	if b.work(t, other) == nil {
		t.Error("the work message of another run is removed")
	}
	b.cancel(t, id, "") // again: no harm
	b.waitEmpty(t)
	b.waitHistory(t, id, "run.queued run.cancelled")
}

func TestCancelInBackoff(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id := b.newRun(t)
	b.append(t, id, startedDraft("w-1"), contracts.Draft{Type: contracts.TypeRetrying, NotBefore: time.Now().Add(time.Hour), Payload: contracts.Retrying{}})
	b.start(t, Config{})
	b.cancel(t, id, "")
	b.waitHistory(t, id, "run.queued run.started run.retrying run.cancelled")
	waitFor(t, "the work message to be removed", func() bool { return b.work(t, id) == nil })
}

// A dispatcher that was killed after it appended run.cancelled left the work message there.
func TestCancelAfterCrash(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id := b.newRun(t)
	b.append(t, id, contracts.Draft{Type: contracts.TypeCancelled})
	b.cancel(t, id, "")
	b.start(t, Config{})
	b.waitEmpty(t)
	if b.work(t, id) != nil {
		t.Error("the work message is still there")
	}
	b.waitHistory(t, id, "run.queued run.cancelled")
}

func TestCancelScheduled(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	id := contracts.NewRunID()
	b.submit(t, contracts.Submission{RunID: id, AgentKey: "echo", NotBefore: time.Now().Add(time.Hour)})
	b.waitHistory(t, id, "run.scheduled")
	waitFor(t, "the schedule", func() bool { return b.count(t, contracts.StreamSchedule) == 1 })
	b.cancel(t, id, "")
	b.waitHistory(t, id, "run.scheduled run.cancelled")
	waitFor(t, "the schedule to be removed", func() bool { return b.count(t, contracts.StreamSchedule) == 0 })
	// It has no run.queued; a redrive makes its work of run.scheduled.
	b.publish(t, contracts.RedriveSubject(id), "")
	b.waitHistory(t, id, "run.scheduled run.cancelled run.requeued")
	waitFor(t, "the work message", func() bool { return b.work(t, id) != nil })
	e, err := contracts.DecodeEvent(b.work(t, id).Data)
	if err != nil || e.Type != contracts.TypeQueued || e.RunID != id {
		t.Errorf("work message is %+v, %v", e, err)
	}
}

// holder stands in for a worker: it answers on the worker's subject.
func (b *bench) holder(t testing.TB, workerID string, answer func(contracts.HolderRequest) *contracts.HolderReply) {
	t.Helper()
	sub, err := b.Connect(t).Subscribe(contracts.WorkerSubject(workerID), func(m *nats.Msg) {
		var r contracts.HolderRequest
		if err := json.Unmarshal(m.Data, &r); err != nil {
			t.Error(err)
		}
		if reply := answer(r); reply != nil {
			if err := m.Respond(must(contracts.Encode(reply))); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			t.Error(err)
		}
	})
	if err := b.NC.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestCancelRunning(t *testing.T) {
	requested := func(r contracts.HolderRequest) contracts.Draft {
		return contracts.Draft{Type: contracts.TypeCancelRequested, Payload: contracts.CancelRequested{Reason: r.Reason, By: r.By}}
	}
	cases := map[string]func(t *testing.T, b *bench, r contracts.HolderRequest) *contracts.HolderReply{
		"holder takes it": func(t *testing.T, b *bench, r contracts.HolderRequest) *contracts.HolderReply {
			if r.Op != contracts.HolderCancel || r.Epoch != 1 || r.Reason != "why" || r.By != "ann" {
				t.Errorf("request is %+v", r)
			}
			b.append(t, r.RunID, requested(r))
			return &contracts.HolderReply{WorkerID: "w-1", Holds: true, Requested: true}
		},
		"holder takes it and its answer is lost": func(t *testing.T, b *bench, r contracts.HolderRequest) *contracts.HolderReply {
			b.append(t, r.RunID, requested(r))
			return nil
		},
		"holder does not hold it": func(*testing.T, *bench, contracts.HolderRequest) *contracts.HolderReply {
			return &contracts.HolderReply{WorkerID: "w-1"}
		},
		"holder is silent":  func(*testing.T, *bench, contracts.HolderRequest) *contracts.HolderReply { return nil },
		"holder is no more": nil,
	}
	for name, answer := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, jstest.Start(t))
			id := b.newRun(t)
			b.append(t, id, startedDraft("w-1"))
			if answer != nil {
				b.holder(t, "w-1", func(r contracts.HolderRequest) *contracts.HolderReply { return answer(t, b, r) })
			}
			b.start(t, Config{})
			b.cancel(t, id, `{"reason":"why","by":"ann"}`)
			e := b.waitHistory(t, id, "run.queued run.started run.cancel_requested")
			var p contracts.CancelRequested
			mustDecode(t, e[2].Payload, &p)
			if p.Reason != "why" || p.By != "ann" {
				t.Errorf("payload is %+v", p)
			}
			b.waitEmpty(t)
			b.cancel(t, id, "") // of a run that is cancelling already
			b.waitEmpty(t)
			b.waitHistory(t, id, "run.queued run.started run.cancel_requested")
			if b.work(t, id) == nil {
				t.Error("the lease of a held run is removed")
			}
		})
	}
}

// A holder that streams wins races; the cancel must come through all the same.
func TestCancelAgainstAStreamingHolder(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id := b.newRun(t)
	head := b.append(t, id, startedDraft("w-1"))
	b.start(t, Config{})
	b.cancel(t, id, "")
	var err error
	for deadline := time.Now().Add(patience); err == nil; {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s for the cancel to stop the stream", patience)
		}
		e := must(contracts.Next(head.Head, id, contracts.Draft{Type: contracts.TypeDelta, Payload: contracts.Delta{Text: "x"}}, time.Now()))
		head, err = b.log.Append(t.Context(), head, e)
	}
	if head := b.head(t, id); head.Status != contracts.StatusCancelling {
		t.Errorf("status is %s after %v", head.Status, err)
	}
}

func TestCancelOfARunThatHasEnded(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id := b.newRun(t)
	b.append(t, id, startedDraft("w-1"), failedDraft)
	b.start(t, Config{})
	b.cancel(t, id, "")
	b.waitEmpty(t)
	b.waitHistory(t, id, "run.queued run.started run.failed")
}

func TestCancelBeforeItsSubmit(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	id := contracts.NewRunID()
	b.cancel(t, id, "")
	waitFor(t, "the cancel to have been looked at", func() bool {
		s, err := b.JS.Consumer(t.Context(), contracts.StreamInbox, contracts.ConsumerCommands)
		return err == nil && s.CachedInfo().Delivered.Consumer > 0
	})
	b.submit(t, contracts.Submission{RunID: id, AgentKey: "echo"})
	b.waitHistory(t, id, "run.queued run.cancelled")
	b.waitEmpty(t)
}

// A cancel of a run that nobody ever submits is given up in the end, leaves no
// log, and holds up no other.
func TestCancelOfAnUnknownRun(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	known, unknown := b.newRun(t), contracts.NewRunID()
	b.start(t, Config{})
	b.cancel(t, unknown, "")
	b.cancel(t, known, "")
	b.waitHistory(t, known, "run.queued run.cancelled")
	waitFor(t, "the other's cancel to be acked", func() bool { return b.count(t, contracts.StreamInbox) <= 1 })
	b.waitEmpty(t)
	b.waitHistory(t, unknown, "")
}

// A cancel that was sent after a redrive ends the round that the redrive starts,
// and the other way about, also if the first was in the hands of a dispatcher
// that died and so comes back after the second.
func TestCommandsAboutOneRunKeepTheirOrder(t *testing.T) {
	for _, c := range []struct {
		first, second string
		before        []contracts.Draft
		want          string
	}{
		{"redrive", "cancel", []contracts.Draft{startedDraft("w-1"), failedDraft},
			"run.queued run.started run.failed run.requeued run.cancelled"},
		{"cancel", "redrive", nil, "run.queued run.cancelled run.requeued"},
	} {
		for _, dead := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, %s, dead %t", c.first, c.second, dead), func(t *testing.T) {
				b := newBench(t, jstest.Start(t))
				id, other := b.newRun(t), b.newRun(t)
				b.append(t, id, c.before...)
				b.publish(t, "runs."+id+"."+c.first, "")
				if dead {
					b.takeCommand(t)
				}
				b.publish(t, "runs."+id+"."+c.second, "")
				b.cancel(t, other, "")
				b.start(t, Config{})
				b.waitHistory(t, other, "run.queued run.cancelled")
				if dead && b.count(t, contracts.StreamInbox) < 2 {
					t.Error("a command of another run waited")
				}
				b.waitEmpty(t)
				b.waitHistory(t, id, c.want)
			})
		}
	}
}

// A redrive of a run that is being cancelled waits for the end that it asks to go on from.
func TestRedriveWhileCancelling(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id := b.newRun(t)
	b.append(t, id, startedDraft("w-1"))
	b.cancel(t, id, "")
	b.publish(t, contracts.RedriveSubject(id), "")
	b.start(t, Config{})
	b.waitHistory(t, id, "run.queued run.started run.cancel_requested")
	waitFor(t, "the redrive to have been looked at", func() bool {
		s, err := b.JS.Consumer(t.Context(), contracts.StreamInbox, contracts.ConsumerCommands)
		return err == nil && s.CachedInfo().NumRedelivered > 0 || b.count(t, contracts.StreamInbox) == 0
	})
	b.append(t, id, contracts.Draft{Type: contracts.TypeCancelled})
	b.waitHistory(t, id, "run.queued run.started run.cancel_requested run.cancelled run.requeued")
	b.waitEmpty(t)
}

// Hundreds of commands about one run are all carried out, and hold up no other.
func TestManyCommandsAboutOneRun(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id, other := b.newRun(t), b.newRun(t)
	for range 150 {
		b.cancel(t, id, "")
	}
	for range 150 {
		b.publish(t, contracts.RedriveSubject(id), "")
	}
	b.cancel(t, other, "")
	b.start(t, Config{})
	b.waitHistory(t, other, "run.queued run.cancelled")
	b.waitEmpty(t)
	b.waitHistory(t, id, "run.queued run.cancelled run.requeued")
}

// The log of a run may be long: whether a redrive was carried out already is
// seen from what came since it was sent.
func TestRedriveReadsOnlyWhatCameSince(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id := b.newRun(t)
	b.append(t, id, startedDraft("w-1"), failedDraft)
	last := must(b.log.LastFromLeader(t.Context(), id))
	reads := 0
	sub, err := b.Connect(t).Subscribe("$JS.API.DIRECT.GET."+contracts.StreamLog, func(*nats.Msg) { reads++ })
	if err != nil {
		t.Fatal(err)
	}
	done, err := b.dispatcher().carriedOut(t.Context(), last, time.Now().Add(2*clockSkew), "x")
	if done || err != nil {
		t.Errorf("redriven %t, %v", done, err)
	}
	if err := sub.Drain(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the subscription to have drained", func() bool { return !sub.IsValid() })
	if reads != 0 {
		t.Errorf("the log was read %d times", reads)
	}
}

func TestBadCommands(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id := b.newRun(t)
	b.start(t, Config{})
	for _, subject := range []string{"runs.nonsense.cancel", "runs.nonsense.redrive", "runs." + strings.ToUpper(id) + ".cancel"} {
		b.publish(t, subject, "")
	}
	for _, body := range []string{"{", "7", `{"reson":"x"}`, "\x00\xff", strings.Repeat(" ", contracts.MaxCommand+1), `{"reason":"` + strings.Repeat("x", 900<<10) + `"}`} {
		b.cancel(t, id, body)
		b.publish(t, contracts.RedriveSubject(id), body)
	}
	b.waitEmpty(t)
	b.waitHistory(t, id, "run.queued")
	b.cancel(t, id, "")
	b.waitHistory(t, id, "run.queued run.cancelled")
}

func TestRedrive(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id := b.newRun(t)
	queued := string(b.work(t, id).Data)
	b.append(t, id, startedDraft("w-1"), failedDraft)
	b.remove(t, b.work(t, id).Sequence)
	command := b.derivedID(t, b.publish(t, contracts.RedriveSubject(id), `{"by":"ann","from_start":true}`))
	b.start(t, Config{})
	e := b.waitHistory(t, id, "run.queued run.started run.failed run.requeued")
	var p contracts.Requeued
	mustDecode(t, e[3].Payload, &p)
	if want := (contracts.Requeued{Reason: contracts.RequeueRedrive, By: "ann", FromStart: true, CommandID: command}); p != want {
		t.Errorf("payload is %+v, want %+v", p, want)
	}
	waitFor(t, "the work message", func() bool { return b.work(t, id) != nil })
	if m := b.work(t, id); string(m.Data) != queued || m.Header.Get(contracts.HeaderLogSequence) != "" {
		t.Errorf("work message is %s with %v", m.Data, m.Header)
	}
	b.waitEmpty(t)
	b.publish(t, contracts.RedriveSubject(id), "") // nobody has started it yet
	b.waitEmpty(t)
	b.append(t, id, startedDraft("w-1"))
	b.publish(t, contracts.RedriveSubject(id), "") // it runs
	b.waitEmpty(t)
	b.waitHistory(t, id, "run.queued run.started run.failed run.requeued run.started")
}

func TestRedriveAfterCrash(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id := contracts.NewRunID()
	b.append(t, id, queuedDraft(full(id)), startedDraft("w-1"), failedDraft,
		contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueRedrive}})
	b.publish(t, contracts.RedriveSubject(id), "")
	b.start(t, Config{})
	waitFor(t, "the work message", func() bool { return b.work(t, id) != nil })
	b.waitEmpty(t)
	b.waitHistory(t, id, "run.queued run.started run.failed run.requeued")
}

// A redrive that is delivered again when its round has failed as well starts no
// third one, even if a broker that was killed says that it is the first delivery.
func TestRedriveDeliveredAgain(t *testing.T) {
	for _, counted := range []bool{true, false} {
		b := newBench(t, jstest.Start(t))
		id := contracts.NewRunID()
		round := []contracts.Draft{startedDraft("w-1"), failedDraft}
		b.append(t, id, append([]contracts.Draft{queuedDraft(full(id))}, round...)...)
		command := b.derivedID(t, b.publish(t, contracts.RedriveSubject(id), ""))
		if counted {
			b.takeCommandAndNak(t)
		}
		// A dispatcher that appends, and loses its ack.
		b.append(t, id, append([]contracts.Draft{{Type: contracts.TypeRequeued,
			Payload: contracts.Requeued{Reason: contracts.RequeueRedrive, CommandID: command}}}, round...)...)
		stop := b.start(t, Config{})
		b.waitEmpty(t)
		want := "run.queued run.started run.failed run.requeued run.started run.failed"
		b.waitHistory(t, id, want)
		stop()
		// One that was sent after that round does start the third.
		b.publish(t, contracts.RedriveSubject(id), "")
		b.takeCommandAndNak(t)
		b.start(t, Config{})
		b.waitHistory(t, id, want+" run.requeued")
	}
}

// takeCommand takes a command as a dispatcher does that is killed with it in hand.
func (b *bench) takeCommand(t testing.TB) jetstream.Msg {
	t.Helper()
	cons, err := b.JS.Consumer(t.Context(), contracts.StreamInbox, contracts.ConsumerCommands)
	if err != nil {
		t.Fatal(err)
	}
	m, err := cons.Next()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// takeCommandAndNak makes the next delivery of a command a later one.
func (b *bench) takeCommandAndNak(t testing.TB) {
	t.Helper()
	if err := b.takeCommand(t).Nak(); err != nil {
		t.Fatal(err)
	}
}

// The worker that ended the round before has not acked yet, and does so when
// the new round has been queued: that must not take its work message away.
func TestRedriveOverOldWork(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id := b.newRun(t)
	old := b.work(t, id)
	b.append(t, id, startedDraft("w-1"), failedDraft)
	b.start(t, Config{})
	b.publish(t, contracts.RedriveSubject(id), "")
	b.waitHistory(t, id, "run.queued run.started run.failed run.requeued")
	b.waitEmpty(t)
	m := b.work(t, id)
	if m == nil {
		t.Fatal("the new round has no work message")
	}
	if m.Sequence == old.Sequence {
		t.Errorf("the work message is still the one of the round before, at %d: a late ack would remove it", m.Sequence)
	}
}

func TestNotRedrivable(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	succeeded, pending := b.newRun(t), b.newRun(t)
	b.append(t, succeeded, startedDraft("w-1"), contracts.Draft{Type: contracts.TypeSucceeded})
	b.start(t, Config{})
	for _, id := range []string{succeeded, pending, contracts.NewRunID()} {
		b.publish(t, contracts.RedriveSubject(id), "")
	}
	b.waitEmpty(t)
	b.waitHistory(t, succeeded, "run.queued run.started run.succeeded")
	b.waitHistory(t, pending, "run.queued")
}

// A foreign worker may append what Apply would refuse, such as an event without
// what subjects are made of. That is the end of its run, not of the dispatcher.
func TestHeadOfAForeignWorker(t *testing.T) {
	for status, kind := range map[contracts.Status]contracts.EventType{
		contracts.StatusCancelled: contracts.TypeCancelled, contracts.StatusRunning: contracts.TypeStarted,
		contracts.StatusPending: contracts.TypeRequeued, contracts.StatusFailed: contracts.TypeFailed,
	} {
		t.Run(string(status), func(t *testing.T) {
			b := newBench(t, jstest.Start(t))
			id, other := b.newRun(t), b.newRun(t)
			bare := contracts.Event{RunID: id, Seq: 2, Type: kind, Time: time.Now().UTC(), Visibility: contracts.VisibilityUser,
				Payload: json.RawMessage(`{"reason":"redrive"}`), Position: contracts.Position{Status: status}}
			b.publish(t, contracts.LogSubject(id), string(must(contracts.Encode(bare))))
			b.cancel(t, id, "")
			if status != contracts.StatusRunning { // else it would wait for the end that the cancel asks for
				b.publish(t, contracts.RedriveSubject(id), "")
			}
			b.cancel(t, other, "")
			b.start(t, Config{})
			b.waitEmpty(t)
			b.waitHistory(t, other, "run.queued run.cancelled")
		})
	}
}
