package jsutil_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

const (
	runA = "0198c0de-0000-7000-8000-00000000000a"
	runB = "0198c0de-0000-7000-8000-00000000000b"
)

// patience bounds each wait of these tests.
const patience = 10 * time.Second

func message(subject, body string, headers ...string) *nats.Msg {
	m := &nats.Msg{Subject: subject, Data: []byte(body), Header: nats.Header{}}
	for i := 0; i+1 < len(headers); i += 2 {
		m.Header.Set(headers[i], headers[i+1])
	}
	return m
}

func mustPublish(t *testing.T, js jetstream.JetStream, m *nats.Msg, opts ...jetstream.PublishOpt) uint64 {
	t.Helper()
	ack, err := js.PublishMsg(t.Context(), m, opts...)
	if err != nil {
		t.Fatalf("publish to %s: %v", m.Subject, err)
	}
	return ack.Sequence
}

func mustState(t *testing.T, js jetstream.JetStream, stream string) jetstream.StreamState {
	t.Helper()
	s, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State
}

// waitFor polls until ok says so.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		if ok() {
			return
		}
	}
	t.Fatalf("waited %s for %s", patience, what)
}

// No header of a stranger's may do anything: one Nats-Rollup wipes a stream.
func TestHostileHeadersAreRefused(t *testing.T) {
	b := jstest.Start(t)
	key := contracts.KVSubject(contracts.BucketRuns, contracts.StatusKey(runA))
	for _, subject := range []string{
		contracts.SubjectSubmit, contracts.CancelSubject(runA), contracts.LogSubject(runA),
		contracts.WorkSubject("echo", contracts.PriorityLow, runA), key,
	} {
		mustPublish(t, b.JS, message(subject, "first"))
		for _, h := range [][]string{
			{"Nats-Rollup", "all"},
			{"Nats-Rollup", "sub"},
			{"Nats-TTL", "1s"},
			{"Nats-Schedule", "@at " + time.Now().Add(time.Hour).Format(time.RFC3339), "Nats-Schedule-Target", contracts.SubjectSubmit},
			{"Nats-Incr", "+1"},
			{"Nats-Batch-Id", "x", "Nats-Batch-Sequence", "1", "Nats-Batch-Commit", "1"},
		} {
			t.Run(subject+" "+h[0]+" "+h[1], func(t *testing.T) {
				_, err := b.JS.PublishMsg(t.Context(), message(subject, "second", h...))
				if err = jsutil.Translate(err); !errors.Is(err, jsutil.ErrRefused) {
					t.Errorf("got %v, want ErrRefused", err)
				}
			})
		}
	}
	for _, stream := range []string{contracts.StreamInbox, contracts.StreamLog, contracts.StreamWork, contracts.StreamRuns} {
		if state := mustState(t, b.JS, stream); state.FirstSeq != 1 || state.Msgs == 0 {
			t.Errorf("stream %s: %+v; a first message is gone", stream, state)
		}
	}
}

func TestWorkQueuesARunOnce(t *testing.T) {
	b := jstest.Start(t)
	m := message(contracts.WorkSubject("echo", contracts.PriorityNormal, runA), "work")
	mustPublish(t, b.JS, m)
	_, err := b.JS.PublishMsg(t.Context(), m)
	if err = jsutil.Translate(err); !errors.Is(err, jsutil.ErrPresent) {
		t.Fatalf("second message on a work subject: got %v, want ErrPresent", err)
	}
	mustPublish(t, b.JS, message(contracts.WorkSubject("echo", contracts.PriorityNormal, runB), "work"))
}

func TestLogIsAppendedByCompareAndSet(t *testing.T) {
	b := jstest.Start(t)
	sub, err := b.NC.SubscribeSync(contracts.EventsSubject(runA))
	if err != nil {
		t.Fatal(err)
	}
	first := mustPublish(t, b.JS, message(contracts.LogSubject(runA), "1"), jetstream.WithExpectLastSequencePerSubject(0))
	mustPublish(t, b.JS, message(contracts.LogSubject(runB), "other"), jetstream.WithExpectLastSequencePerSubject(0))
	for _, wrong := range []uint64{0, first + 1} {
		_, err := b.JS.PublishMsg(t.Context(), message(contracts.LogSubject(runA), "forged"), jetstream.WithExpectLastSequencePerSubject(wrong))
		if err = jsutil.Translate(err); !errors.Is(err, jsutil.ErrConflict) {
			t.Fatalf("append after %d: got %v, want ErrConflict", wrong, err)
		}
	}
	second := mustPublish(t, b.JS, message(contracts.LogSubject(runA), "2"), jetstream.WithExpectLastSequencePerSubject(first))

	// Live: the two that were stored, each with its place.
	for _, want := range []struct {
		body       string
		seq, after uint64
	}{{"1", first, 0}, {"2", second, first}} {
		m, err := sub.NextMsg(patience)
		if err != nil {
			t.Fatalf("wait for the republished event %s: %v", want.body, err)
		}
		if got, h := string(m.Data), m.Header; got != want.body || h.Get("Nats-Sequence") != fmt.Sprint(want.seq) ||
			h.Get("Nats-Last-Sequence") != fmt.Sprint(want.after) || h.Get("Nats-Stream") != contracts.StreamLog {
			t.Errorf("republished %q with %v, want %+v", got, h, want)
		}
	}
	if n, _, err := sub.Pending(); err != nil || n != 0 {
		t.Errorf("%d more republished messages (%v); a refused append was seen", n, err)
	}

	// Stored: by direct get and by the leader.
	s, err := b.JS.Stream(t.Context(), contracts.StreamLog)
	if err != nil {
		t.Fatal(err)
	}
	last, err := s.GetLastMsgForSubject(t.Context(), contracts.EventsSubject(runA))
	if err != nil {
		t.Fatal(err)
	}
	if last.Sequence != second || string(last.Data) != "2" {
		t.Errorf("last event is %d %q, want %d", last.Sequence, last.Data, second)
	}
	direct, err := b.NC.Request("$JS.API.DIRECT.GET."+contracts.StreamLog+"."+contracts.EventsSubject(runA), nil, patience)
	if err != nil {
		t.Fatal(err)
	}
	if string(direct.Data) != "2" || direct.Header.Get("Nats-Sequence") != fmt.Sprint(second) {
		t.Errorf("direct get answers %q %v", direct.Data, direct.Header)
	}
	_, err = s.GetLastMsgForSubject(t.Context(), contracts.LogSubject(runA))
	if err = jsutil.Translate(err); !errors.Is(err, jsutil.ErrNotFound) {
		t.Errorf("the write side holds something: %v", err)
	}
}

// Nothing but the stream's own republish puts messages on runs.*.events; what
// somebody publishes there is not stored.
func TestEventsSubjectIsNotWritten(t *testing.T) {
	b := jstest.Start(t)
	_, err := b.JS.Publish(t.Context(), contracts.EventsSubject(runA), []byte("forged"), jetstream.WithRetryAttempts(0))
	if err = jsutil.Translate(err); !errors.Is(err, jsutil.ErrUnavailable) {
		t.Errorf("publish to the read side: got %v, want no stream to answer", err)
	}
	if n := mustState(t, b.JS, contracts.StreamLog).Msgs; n != 0 {
		t.Errorf("%d messages in the log", n)
	}
}

// A schedule fires once, at its time, replaces an earlier one of the run, and
// leaves nothing behind once the due message is acknowledged.
func TestScheduleFiresOnce(t *testing.T) {
	b := jstest.Start(t)
	schedule := func(at time.Time, body string) {
		mustPublish(t, b.JS, message(contracts.ScheduleAtSubject(runA), body,
			"Nats-Schedule", "@at "+at.UTC().Format(time.RFC3339Nano), "Nats-Schedule-Target", contracts.ScheduleDueSubject(runA)))
	}
	at := time.Now().Add(700 * time.Millisecond)
	schedule(time.Now().Add(time.Hour), "overridden")
	schedule(at, "due")
	if n := mustState(t, b.JS, contracts.StreamSchedule).Msgs; n != 1 {
		t.Errorf("%d messages wait, want the newest schedule alone", n)
	}

	c, err := b.JS.Consumer(t.Context(), contracts.StreamSchedule, contracts.ConsumerSchedule)
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Next(jetstream.FetchMaxWait(patience))
	if err != nil {
		t.Fatalf("wait for the due message: %v", err)
	}
	if early := time.Until(at); early > 0 {
		t.Errorf("fired %s early", early)
	}
	if m.Subject() != contracts.ScheduleDueSubject(runA) || string(m.Data()) != "due" {
		t.Errorf("due message is %s %q", m.Subject(), m.Data())
	}
	if n := mustState(t, b.JS, contracts.StreamSchedule).Msgs; n != 1 {
		t.Errorf("%d messages after firing, want the due one alone", n)
	}
	if err := m.DoubleAck(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := mustState(t, b.JS, contracts.StreamSchedule).Msgs; n != 0 {
		t.Errorf("%d messages after the ack, want none", n)
	}
}

// A schedule outlives the broker, and one that fell due meanwhile fires late.
func TestScheduleOutlivesTheBroker(t *testing.T) {
	b := jstest.StartFile(t)
	at := time.Now().Add(300 * time.Millisecond)
	mustPublish(t, b.JS, message(contracts.ScheduleAtSubject(runA), "due",
		"Nats-Schedule", "@at "+at.UTC().Format(time.RFC3339Nano), "Nats-Schedule-Target", contracts.ScheduleDueSubject(runA)))
	b.Stop(t)
	waitFor(t, "the schedule's time", func() bool { return time.Now().After(at) })
	b.Restart(t)
	c, err := b.JS.Consumer(t.Context(), contracts.StreamSchedule, contracts.ConsumerSchedule)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Next(jetstream.FetchMaxWait(patience)); err != nil {
		t.Fatalf("wait for the due message: %v", err)
	}
}

// The buckets are what every NATS client takes for key-value buckets.
func TestBuckets(t *testing.T) {
	b := jstest.Start(t)
	for _, name := range []string{contracts.BucketRuns, contracts.BucketAgents} {
		kv, err := b.JS.KeyValue(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Create(t.Context(), "a", []byte("1")); err != nil {
			t.Fatal(err)
		}
		_, err = kv.Create(t.Context(), "a", []byte("2"))
		if err = jsutil.Translate(err); !errors.Is(err, jsutil.ErrConflict) {
			t.Errorf("create a key that exists: got %v, want ErrConflict", err)
		}
		ack := mustPublish(t, b.JS, message(contracts.KVSubject(name, "a"), "3")) // as services write
		if n := mustState(t, b.JS, "KV_"+name).Msgs; n != 1 {
			t.Errorf("%d values of one key are kept, want the newest", n)
		}
		entry, err := kv.Get(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if string(entry.Value()) != "3" || entry.Revision() != ack {
			t.Errorf("entry is %q at %d, want 3 at %d", entry.Value(), entry.Revision(), ack)
		}
		keys, err := kv.Keys(t.Context())
		if err != nil || len(keys) != 1 || keys[0] != "a" {
			t.Errorf("keys are %v (%v), want a", keys, err)
		}
		_, err = kv.Get(t.Context(), "none")
		if err = jsutil.Translate(err); !errors.Is(err, jsutil.ErrNotFound) {
			t.Errorf("get a key that is none: got %v, want ErrNotFound", err)
		}
		// Deleting for good goes by a purge of the stream.
		s, err := b.JS.Stream(t.Context(), "KV_"+name)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Purge(t.Context(), jetstream.WithPurgeSubject(contracts.KVSubject(name, "a"))); err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Create(t.Context(), "a", []byte("4")); err != nil {
			t.Errorf("create a key that was purged: %v", err)
		}
	}
}

// Two statekeepers pull, one gets everything; when it stops pulling the other
// takes over, and what was not acknowledged comes again.
func TestProjectorIsPinned(t *testing.T) {
	b := jstest.Start(t)
	consume := func(got chan<- jetstream.Msg) jetstream.ConsumeContext {
		js, err := jsutil.JetStream(b.Connect(t))
		if err != nil {
			t.Fatal(err)
		}
		c, err := js.Consumer(t.Context(), contracts.StreamLog, contracts.ConsumerProjector)
		if err != nil {
			t.Fatal(err)
		}
		cc, err := c.Consume(func(m jetstream.Msg) { got <- m }, jetstream.PullPriorityGroup(jsutil.ProjectorGroup),
			jetstream.PullExpiry(time.Second), jetstream.PullMaxMessages(10))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cc.Stop(); <-cc.Closed() })
		return cc
	}
	next := func(what string, got <-chan jetstream.Msg) jetstream.Msg {
		t.Helper()
		select {
		case m := <-got:
			return m
		case <-time.After(2 * patience):
			t.Fatalf("waited %s for %s", 2*patience, what)
			return nil
		}
	}
	active, standby := make(chan jetstream.Msg, 100), make(chan jetstream.Msg, 100)
	first := consume(active)
	mustPublish(t, b.JS, message(contracts.LogSubject(runA), "0"))
	next("the first event", active)
	consume(standby)
	const n = 20
	var last jetstream.Msg
	for i := 1; i <= n; i++ {
		mustPublish(t, b.JS, message(contracts.LogSubject(runA), fmt.Sprint(i)))
	}
	for i := 1; i <= n; i++ {
		if last = next("an event", active); string(last.Data()) != fmt.Sprint(i) {
			t.Fatalf("event %s at place %d", last.Data(), i)
		}
	}
	if err := last.DoubleAck(t.Context()); err != nil {
		t.Fatal(err)
	}
	info, err := b.JS.Consumer(t.Context(), contracts.StreamLog, contracts.ConsumerProjector)
	if err != nil {
		t.Fatal(err)
	}
	if pending := info.CachedInfo().NumAckPending; pending != 0 {
		t.Errorf("%d unacknowledged after the ack of the last event", pending)
	}
	mustPublish(t, b.JS, message(contracts.LogSubject(runA), "unacked"))
	next("an event", active)
	first.Stop()
	<-first.Closed()
	if got := next("the standby's takeover", standby); string(got.Data()) != "unacked" {
		t.Errorf("the standby begins with %s", got.Data())
	}
}
