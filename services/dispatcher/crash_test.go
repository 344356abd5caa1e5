package dispatcher

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

// A dispatcher may be killed between any two steps of a submission. Each case
// does the first of them by hand and leaves the message in the inbox, as the
// dead one did; another dispatcher must end with one run and one work message.
func TestSubmitAfterCrash(t *testing.T) {
	cases := map[string]struct {
		key  string        // the idempotency key
		wait time.Duration // until not_before, if not 0
		done func(t *testing.T, b *bench, s contracts.Submission)
		want string // the log, in the end
		work bool   // there is a work message, in the end
	}{
		"nothing done": {done: func(*testing.T, *bench, contracts.Submission) {}, want: "run.queued", work: true},
		"queued": {
			done: func(t *testing.T, b *bench, s contracts.Submission) { b.append(t, s.RunID, queuedDraft(s)) },
			want: "run.queued", work: true,
		},
		"work published": {
			done: func(t *testing.T, b *bench, s contracts.Submission) {
				b.append(t, s.RunID, queuedDraft(s))
				b.putWork(t, s.RunID)
			},
			want: "run.queued", work: true,
		},
		"work taken": {
			done: func(t *testing.T, b *bench, s contracts.Submission) {
				b.append(t, s.RunID, queuedDraft(s), startedDraft("w-1"))
			},
			want: "run.queued run.started",
		},
		"in backoff, work lost": {
			done: func(t *testing.T, b *bench, s contracts.Submission) {
				b.append(t, s.RunID, queuedDraft(s), startedDraft("w-1"),
					contracts.Draft{Type: contracts.TypeRetrying, NotBefore: time.Now().Add(time.Hour), Payload: contracts.Retrying{}})
			},
			want: "run.queued run.started run.retrying", work: true,
		},
		"run ended": {
			done: func(t *testing.T, b *bench, s contracts.Submission) {
				b.append(t, s.RunID, queuedDraft(s), startedDraft("w-1"), failedDraft)
			},
			want: "run.queued run.started run.failed",
		},
		"key claimed": {
			key: "k",
			done: func(t *testing.T, b *bench, s contracts.Submission) {
				must(b.dispatcher().claim(t.Context(), "k", s.RunID))
			},
			want: "run.queued", work: true,
		},
		"key claimed and queued": {
			key: "k",
			done: func(t *testing.T, b *bench, s contracts.Submission) {
				must(b.dispatcher().claim(t.Context(), "k", s.RunID))
				b.append(t, s.RunID, queuedDraft(s))
			},
			want: "run.queued", work: true,
		},
		"scheduled": {
			wait: time.Second,
			done: func(t *testing.T, b *bench, s contracts.Submission) { b.append(t, s.RunID, scheduledDraft(s)) },
			want: "run.scheduled run.queued", work: true,
		},
		"schedule put": {
			wait: time.Second,
			done: func(t *testing.T, b *bench, s contracts.Submission) {
				b.append(t, s.RunID, scheduledDraft(s))
				if err := b.dispatcher().putSchedule(t.Context(), s.RunID, s.NotBefore); err != nil {
					t.Fatal(err)
				}
			},
			want: "run.scheduled run.queued", work: true,
		},
		"scheduled, then queued": {
			wait: -time.Second,
			done: func(t *testing.T, b *bench, s contracts.Submission) {
				b.append(t, s.RunID, scheduledDraft(s), queuedDraft(s))
			},
			want: "run.scheduled run.queued", work: true,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, jstest.Start(t))
			b.register(t, echo)
			s := contracts.Submission{RunID: contracts.NewRunID(), AgentKey: "echo", IdempotencyKey: c.key}
			if c.wait != 0 {
				s.NotBefore = time.Now().Add(c.wait).UTC()
			}
			b.submit(t, s)
			complete(&s, echo, time.Hour)
			c.done(t, b, s)
			b.start(t, Config{})
			b.waitEmpty(t)
			b.waitHistory(t, s.RunID, c.want)
			if c.work {
				waitFor(t, "the work message", func() bool { return b.work(t, s.RunID) != nil })
			} else if b.work(t, s.RunID) != nil {
				t.Error("there is a work message")
			}
			waitFor(t, "no schedule to be left", func() bool { return b.count(t, contracts.StreamSchedule) == 0 })
			b.waitHistory(t, s.RunID, c.want)
			if n := b.count(t, contracts.StreamWork); n > 1 {
				t.Errorf("%d work messages", n)
			}
			if c.want == "run.queued" {
				b.checkQueued(t, s.RunID)
			}
		})
	}
}

// putWork publishes the work message of a run that has just been queued.
func (b *bench) putWork(t testing.TB, runID string) {
	t.Helper()
	last, err := b.log.LastFromLeader(t.Context(), runID)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.dispatcher().putWork(t.Context(), last); err != nil {
		t.Fatal(err)
	}
}

// What a killed dispatcher had in hand is another one's soon: those who
// submitted it were told that it is stored.
func TestInHandOfADeadDispatcher(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	id := contracts.NewRunID()
	b.submit(t, contracts.Submission{RunID: id, AgentKey: "echo"})
	cons, err := b.JS.Consumer(t.Context(), contracts.StreamInbox, contracts.ConsumerSubmit)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cons.Next(); err != nil {
		t.Fatal(err)
	}
	taken := time.Now()
	b.start(t, Config{})
	b.checkQueued(t, id)
	if took := time.Since(taken); took > 3500*time.Millisecond {
		t.Errorf("it was queued after %s", took)
	}
}

// What a living dispatcher has in hand stays there, however long it takes.
func TestInHandOfASlowDispatcher(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.submit(t, contracts.Submission{AgentKey: "echo"})
	cons, err := b.JS.Consumer(t.Context(), contracts.StreamInbox, contracts.ConsumerSubmit)
	if err != nil {
		t.Fatal(err)
	}
	d := b.dispatcher()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { d.held.keep(ctx) })
	wg.Go(func() {
		d.take(ctx, contracts.StreamInbox, contracts.ConsumerSubmit, func(m *jsutil.Delivery) {
			// Another one waits for it for longer than the AckWait.
			_, err := cons.Next(jetstream.FetchMaxWait(4 * time.Second))
			if info, infoErr := cons.Info(ctx); err == nil || infoErr != nil || info.NumRedelivered > 0 {
				t.Errorf("delivered again: %v, %v, %+v", err, infoErr, info)
			}
			d.finish(m, "", nil)
			cancel()
		})
	})
	wg.Wait()
	b.waitEmpty(t)
}

// Redelivered in earnest: a dispatcher ends with its messages unanswered.
func TestTwoDispatchersAndOneThatStops(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	stop := b.start(t, Config{})
	b.start(t, Config{})
	const n = 2000
	ids := make([]string, n)
	for i := range ids {
		ids[i] = contracts.NewRunID()
		s := contracts.Submission{RunID: ids[i], AgentKey: "echo"}
		if i%10 == 0 {
			s.IdempotencyKey = ids[i] // some off the fast lane
		}
		body := must(contracts.Encode(s))
		for range 1 + i%2 { // and every other one twice
			if _, err := b.JS.PublishAsync(contracts.SubjectSubmit, body); err != nil {
				t.Fatal(err)
			}
		}
		if i == n/2 {
			go stop()
		}
	}
	b.waitEmpty(t)
	stop()
	if have := b.count(t, contracts.StreamLog); have != n {
		t.Errorf("%d events, want %d", have, n)
	}
	if have := b.count(t, contracts.StreamWork); have != n {
		t.Errorf("%d work messages, want %d", have, n)
	}
	for _, id := range ids[:50] {
		b.checkQueued(t, id)
	}
}

// One that ends leaves no submission to be delivered again that it has dealt with.
func TestEndsWithItsAcksSent(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	for range 20 {
		stop := b.start(t, Config{})
		id := contracts.NewRunID()
		b.submit(t, contracts.Submission{RunID: id, AgentKey: "echo"})
		waitFor(t, "the work message", func() bool {
			_, err := b.last(t, contracts.StreamWork, contracts.WorkSubject("echo", contracts.PriorityNormal, id))
			return err == nil
		})
		stop()
		// The broker has it by then, and may yet have to see to it.
		waitFor(t, "the acknowledgement of the submission", func() bool {
			return must(b.JS.Consumer(t.Context(), contracts.StreamInbox, contracts.ConsumerSubmit)).CachedInfo().NumAckPending == 0
		})
	}
}
