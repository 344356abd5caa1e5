package dispatcher

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

// waitingDraft is the end of an attempt that waits for a signal.
func waitingDraft(name string) contracts.Draft {
	deadline := time.Now().Add(time.Hour).UTC()
	return contracts.Draft{Type: contracts.TypeSleeping, NotBefore: deadline, WaitsFor: name,
		Payload: contracts.Sleeping{Name: name, WakeAt: deadline, Signal: name}}
}

// waitingRun makes a run that waits for a signal, and returns its id.
func (b *bench) waitingRun(t testing.TB, name string) string {
	t.Helper()
	id := b.newRun(t)
	b.append(t, id, startedDraft("w-1"), waitingDraft(name))
	return id
}

func (b *bench) signal(t testing.TB, runID, name string, payload any) (commandID string) {
	t.Helper()
	cmd := contracts.SignalCommand{Name: name, Payload: must(contracts.Encode(payload)), By: "ann"}
	return b.derivedID(t, b.publish(t, contracts.SignalSubject(runID), string(must(contracts.Encode(cmd)))))
}

const waited = "run.queued run.started run.sleeping"

func TestSignalOfAWaitingRun(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id := b.waitingRun(t, "go")
	old := b.work(t, id)
	command := b.signal(t, id, "go", map[string]int{"n": 1})
	b.start(t, Config{})
	e := b.waitHistory(t, id, waited+" run.signalled")[3]
	var p contracts.Signalled
	mustDecode(t, e.Payload, &p)
	if p.Name != "go" || string(p.Payload) != `{"n":1}` || p.By != "ann" || p.CommandID != command || !e.NotBefore.IsZero() || e.WaitsFor != "" {
		t.Errorf("the event is %+v with %+v", e.Event, p)
	}
	b.waitEmpty(t)
	m := b.work(t, id)
	if m == nil || m.Sequence == old.Sequence || string(m.Data) != string(old.Data) {
		t.Errorf("the work message is %+v; the old one, which lies there for an hour, was %+v", m, old)
	}
}

// What the run does not wait for is written down, and wakes nobody.
func TestSignalOfAnotherWait(t *testing.T) {
	for name, end := range map[string]contracts.Draft{
		"waits for another":  waitingDraft("stop"),
		"sleeps":             {Type: contracts.TypeSleeping, NotBefore: time.Now().Add(time.Hour)},
		"is in backoff":      {Type: contracts.TypeRetrying, NotBefore: time.Now().Add(time.Hour)},
		"waits for a worker": {Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueShutdown}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, jstest.Start(t))
			id := b.newRun(t)
			at := b.append(t, id, startedDraft("w-1"), end)
			old := b.work(t, id)
			b.signal(t, id, "go", nil)
			b.start(t, Config{})
			b.waitEmpty(t)
			last := must(b.log.LastFromLeader(t.Context(), id))
			if last.Type != contracts.TypeSignalled || !last.NotBefore.Equal(at.NotBefore) || last.WaitsFor != at.WaitsFor {
				t.Errorf("the last event is %+v", last.Event)
			}
			if m := b.work(t, id); m == nil || m.Sequence != old.Sequence {
				t.Errorf("the work message is %+v", m)
			}
		})
	}
}

// A signal may come before its run, before the run begins, and while it is at
// work: it is written when nobody holds the run, in the order of the sending.
func TestSignalComesEarly(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	id := contracts.NewRunID()
	first := b.signal(t, id, "go", 1)
	b.waitLooked(t)
	b.submit(t, contracts.Submission{RunID: id, AgentKey: "echo"})
	b.waitHistory(t, id, "run.queued")
	second := b.signal(t, id, "go", 2)
	waitFor(t, "the work message", func() bool { return b.work(t, id) != nil })
	b.append(t, id, startedDraft("w-1"))
	third := b.signal(t, id, "go", 3)
	b.waitLooked(t)
	b.waitHistory(t, id, "run.queued run.started")
	b.append(t, id, waitingDraft("go"))
	for i, e := range b.waitHistory(t, id, waited+" run.signalled run.signalled run.signalled")[3:] {
		if want := []string{first, second, third}[i]; commandOf(e) != want {
			t.Errorf("signal %d is %s", i+1, e.Payload)
		}
	}
	b.waitEmpty(t)
}

// One that has waited for long, and is seldom looked at by now, is not overtaken by the next one.
func TestSignalsKeepTheirOrder(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id := b.newRun(t)
	b.append(t, id, startedDraft("w-1"))
	b.start(t, Config{})
	looks := func(n uint64) {
		t.Helper()
		waitFor(t, "the signals to be looked at", func() bool {
			c, err := b.JS.Consumer(t.Context(), contracts.StreamInbox, contracts.ConsumerSignals)
			return err == nil && c.CachedInfo().Delivered.Consumer >= n
		})
	}
	first := b.signal(t, id, "go", 1)
	looks(5) // the next look is 1.6 s away
	second := b.signal(t, id, "go", 2)
	looks(6)
	b.append(t, id, waitingDraft("go"))
	for i, e := range b.waitHistory(t, id, waited+" run.signalled run.signalled")[3:] {
		if want := []string{first, second}[i]; commandOf(e) != want {
			t.Errorf("signal %d is %s", i+1, e.Payload)
		}
	}
}

// waitLooked waits until each signal in the inbox has come again, so that it
// was looked at.
func (b *bench) waitLooked(t testing.TB) {
	t.Helper()
	waitFor(t, "the signals to be looked at", func() bool {
		c, err := b.JS.Consumer(t.Context(), contracts.StreamInbox, contracts.ConsumerSignals)
		return err == nil && c.CachedInfo().NumRedelivered == b.count(t, contracts.StreamInbox)
	})
}

// A run that has ended, or will in a moment, gets no signal; nor does one that there is not.
func TestSignalOfARunThatHasEnded(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	want := map[string]string{contracts.NewRunID(): ""}
	for types, end := range map[string][]contracts.Draft{
		"run.queued run.started run.succeeded":        {startedDraft("w-1"), {Type: contracts.TypeSucceeded}},
		"run.queued run.started run.cancel_requested": {startedDraft("w-1"), {Type: contracts.TypeCancelRequested}},
		"run.queued run.cancelled":                    {{Type: contracts.TypeCancelled}},
		waited + " run.cancelled":                     {startedDraft("w-1"), waitingDraft("go"), {Type: contracts.TypeCancelled}},
	} {
		id := b.newRun(t)
		b.append(t, id, end...)
		want[id] = types
	}
	for id := range want {
		b.signal(t, id, "go", nil)
	}
	b.start(t, Config{})
	b.waitEmpty(t)
	for id, types := range want {
		b.waitHistory(t, id, types)
	}
}

// A signal that was sent after a redrive is for the round that the redrive
// begins, also if that was in the hands of a dispatcher that died.
func TestSignalAfterARedrive(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id := b.newRun(t)
	b.append(t, id, startedDraft("w-1"), failedDraft)
	b.publish(t, contracts.RedriveSubject(id), `{"from_start":true}`)
	b.takeCommand(t)
	b.signal(t, id, "go", nil)
	b.start(t, Config{})
	b.waitHistory(t, id, "run.queued run.started run.failed run.requeued run.signalled")
	b.waitEmpty(t)
}

// A dispatcher may be killed between any two steps of a signal, or lose its ack
// after all of them: the signal is written once, and the run goes on.
func TestSignalAfterCrash(t *testing.T) {
	type crash func(t *testing.T, b *bench, id, command string)
	write := func(t *testing.T, b *bench, id, command string) {
		b.append(t, id, contracts.Signalled{Name: "go", CommandID: command}.Draft(b.head(t, id).Head))
	}
	for name, c := range map[string]struct {
		done crash
		more string
	}{
		"nothing done": {func(*testing.T, *bench, string, string) {}, ""},
		"written":      {write, ""},
		"old work removed": {func(t *testing.T, b *bench, id, command string) {
			write(t, b, id, command)
			b.remove(t, b.work(t, id).Sequence)
		}, ""},
		"all done, and the run begun": {func(t *testing.T, b *bench, id, command string) {
			write(t, b, id, command)
			b.append(t, id, startedDraft("w-2"))
		}, " run.started"},
		"all done, and the run waits again": {func(t *testing.T, b *bench, id, command string) {
			write(t, b, id, command)
			b.append(t, id, startedDraft("w-2"), waitingDraft("stop"))
		}, " run.started run.sleeping"},
		"all done, and the run ended": {func(t *testing.T, b *bench, id, command string) {
			write(t, b, id, command)
			b.append(t, id, startedDraft("w-2"), failedDraft)
		}, " run.started run.failed"},
	} {
		for _, counted := range []bool{true, false} { // a broker that was killed may count deliveries anew
			t.Run(fmt.Sprintf("%s, counted %t", name, counted), func(t *testing.T) {
				b, more := newBench(t, jstest.Start(t)), c.more
				id := b.waitingRun(t, "go")
				old := b.work(t, id).Sequence
				command := b.signal(t, id, "go", nil)
				if counted {
					cons := must(b.JS.Consumer(t.Context(), contracts.StreamInbox, contracts.ConsumerSignals))
					if err := must(cons.Next()).Nak(); err != nil {
						t.Fatal(err)
					}
				}
				c.done(t, b, id, command)
				b.start(t, Config{})
				if name == "all done, and the run begun" {
					waitFor(t, "the signal to be looked at", func() bool {
						c := must(b.JS.Consumer(t.Context(), contracts.StreamInbox, contracts.ConsumerSignals))
						return c.CachedInfo().NumRedelivered > 0
					})
					b.append(t, id, waitingDraft("stop"))
					more += " run.sleeping"
				}
				b.waitEmpty(t)
				b.waitHistory(t, id, waited+" run.signalled"+more)
				if m := b.work(t, id); c.more == "" && (m == nil || m.Sequence == old) {
					t.Errorf("the work message is %+v, the old one was %d", m, old)
				}
			})
		}
	}
}

// The run's deadline is over just then, or its message is delivered for another
// reason: a worker that has begun keeps its message, and its run is not begun twice.
func TestSignalBesideAStart(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id := b.waitingRun(t, "go")
	d := b.dispatcher()
	at := b.append(t, id, contracts.Signalled{Name: "go"}.Draft(b.head(t, id).Head))
	work, _, err := d.workOf(t.Context(), must(b.log.LastFromLeader(t.Context(), id)))
	if err != nil {
		t.Fatal(err)
	}
	old := b.work(t, id).Sequence
	b.append(t, id, startedDraft("w-2")) // between the dispatcher's two writes
	if err := d.queueAgain(t.Context(), at, work); err != nil {
		t.Fatal(err)
	}
	if m := b.work(t, id); m == nil || m.Sequence != old {
		t.Errorf("the lease of a run that has begun was replaced: %+v", m)
	}
}

// A worker that was frozen between its last event and its answer answers when
// the run goes on already: that answer is for a message that is no more.
func TestSignalAndALateAnswer(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	if err := jsutil.EnsureWorkConsumers(t.Context(), b.JS, "echo", time.Minute); err != nil {
		t.Fatal(err)
	}
	id := b.newRun(t)
	queue := must(b.JS.Consumer(t.Context(), contracts.StreamWork, contracts.WorkConsumer("echo", contracts.PriorityNormal)))
	frozen := must(queue.Next())
	b.append(t, id, startedDraft("w-1"), waitingDraft("go"))
	b.signal(t, id, "go", nil)
	b.start(t, Config{})
	b.waitEmpty(t)
	next := must(queue.Next(jetstream.FetchMaxWait(patience)))
	if err := frozen.NakWithDelay(time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := next.Nak(); err != nil {
		t.Fatal(err)
	}
	must(queue.Next(jetstream.FetchMaxWait(patience)))
}

func TestBadSignals(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	id := b.waitingRun(t, "go")
	b.start(t, Config{})
	for _, body := range []string{"", "{", `{"name":"*"}`, `{"name":""}`, `{"nam":"go"}`, `{"name":"go","payload":{"a":1,"a":2}}`} {
		b.publish(t, contracts.SignalSubject(id), body)
	}
	b.publish(t, "runs.nonsense.signal", `{"name":"go"}`)
	b.waitEmpty(t)
	b.waitHistory(t, id, waited)
	b.publish(t, contracts.SignalSubject(id), `{"name":"go","payload":null}`)
	if e := b.waitHistory(t, id, waited+" run.signalled")[3]; json.Unmarshal(e.Payload, new(contracts.Signalled)) != nil {
		t.Errorf("payload %s", e.Payload)
	}
}
