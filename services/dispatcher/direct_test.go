package dispatcher

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil/jstest"
)

// inboxed is how many messages the inbox has ever taken.
func (b *bench) inboxed(t testing.TB) uint64 {
	t.Helper()
	return must(b.JS.Stream(t.Context(), contracts.StreamInbox)).CachedInfo().State.LastSeq
}

// ask asks the dispatchers for a run, as any client might; false if it is refused.
func (b *bench) ask(t testing.TB, body string) (jetstream.PubAck, bool) {
	t.Helper()
	ack, err := b.JS.Publish(t.Context(), contracts.SubjectSubmitDirect, []byte(body))
	if refused := (*jetstream.APIError)(nil); errors.As(err, &refused) {
		return jetstream.PubAck{}, false
	}
	if err != nil {
		t.Fatalf("ask for %s: %v", body, err)
	}
	return *ack, true
}

func (b *bench) waitAsked(t testing.TB) {
	t.Helper()
	waitFor(t, "a dispatcher to take requests", func() bool {
		m, err := b.NC.Request(contracts.SubjectSubmitDirect, []byte("{"), patience)
		return err == nil && len(m.Data) > 0
	})
}

// newAsked is a bench with a dispatcher that knows echo and takes requests.
func newAsked(t testing.TB) *bench {
	t.Helper()
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	b.waitAsked(t)
	return b
}

// What was answered is queued in full, and never was in the inbox.
func TestDirect(t *testing.T) {
	b := newAsked(t)
	before := b.inboxed(t)
	c := must(client.New(b.Connect(t)))
	var ids []string
	for id, err := range c.SubmitAll(t.Context(), func(yield func(contracts.Submission) bool) {
		for range 600 {
			if !yield(contracts.Submission{AgentKey: "echo", Metadata: map[string]string{"user": "u1"}}) {
				return
			}
		}
	}) {
		if err != nil {
			t.Fatal(err)
		}
		if b.work(t, id) == nil {
			t.Fatalf("run %s was acknowledged before its work was queued", id)
		}
		ids = append(ids, id)
	}
	one, err := c.Submit(t.Context(), contracts.Submission{AgentKey: "echo", Metadata: map[string]string{"user": "u1"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range append(ids[:3], one) {
		if s := b.checkQueued(t, id); s.TimeoutSeconds != 42 || s.MaxAttempts != 7 || s.Metadata["user"] != "u1" {
			t.Errorf("submission of run %s became %+v", id, s)
		}
	}
	if n := b.inboxed(t) - before; n != 0 {
		t.Errorf("%d of %d submissions went through the inbox", n, len(ids)+1)
	}
}

// What is not plain is refused, and leaves no trace; a client library's way with
// it leads to the inbox.
func TestDirectRefused(t *testing.T) {
	b := newAsked(t)
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for _, rest := range []string{
		`"agent_key":"nobody"`, `"agent_key":"echo","max_attempts":-1`, `"agent_key":"echo","idempotency_key":"k-1"`,
		`"agent_key":"echo","conversation_id":"c-1"`, `"agent_key":"echo","not_before":"` + later + `"`, `"agent_key":"echo","start_timeout_seconds":60`,
	} {
		id := contracts.NewRunID()
		if ack, ok := b.ask(t, `{"run_id":"`+id+`",`+rest+`}`); ok || len(b.history(t, id)) != 0 {
			t.Errorf("%s: answer is %+v, want a refusal", rest, ack)
		}
	}
	for _, body := range []string{"", "{", `{"agent_key":"echo"}`} { // without a run id each time it is asked for would be another
		if ack, ok := b.ask(t, body); ok {
			t.Errorf("%q: answer is %+v, want a refusal", body, ack)
		}
	}
	if n := b.count(t, contracts.StreamLog) + b.count(t, contracts.StreamWork); n != 0 {
		t.Errorf("refusals have left %d messages", n)
	}
	id, err := must(client.New(b.Connect(t))).Submit(t.Context(), contracts.Submission{AgentKey: "nobody"})
	if err != nil {
		t.Fatal(err)
	}
	b.checkRejected(t, id)
}

// A dispatcher that was killed behind run.queued leaves no answer and no work
// message; whoever submits again gets both. What has run does not run again.
func TestDirectTwice(t *testing.T) {
	b := newAsked(t)
	c := must(client.New(b.Connect(t)))
	again := contracts.Submission{RunID: contracts.NewRunID(), AgentKey: "echo"}
	b.append(t, again.RunID, queuedDraft(full(again.RunID)))
	if b.work(t, again.RunID) != nil {
		t.Fatal("there is a work message before the test begins")
	}
	if ack, ok := b.ask(t, string(must(contracts.Encode(again)))); ok || b.work(t, again.RunID) != nil {
		t.Errorf("asked for a run that has a log, it answered %+v", ack)
	}
	if _, err := c.Submit(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the work message to be made", func() bool { return b.work(t, again.RunID) != nil })

	b.append(t, again.RunID, startedDraft("w-1"), contracts.Draft{Type: contracts.TypeSucceeded})
	b.remove(t, b.work(t, again.RunID).Sequence)
	if _, err := c.Submit(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	b.waitEmpty(t)
	b.waitHistory(t, again.RunID, "run.queued run.started run.succeeded")
	if b.work(t, again.RunID) != nil {
		t.Error("a run that has ended is queued again")
	}
}

// One that is asked for too much refuses what lies behind.
func TestDirectBusy(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	s := newSubmitter(b.dispatcher())
	asking := make(chan struct{})
	sub := must(b.NC.Subscribe(contracts.SubjectSubmitDirect, func(m *nats.Msg) {
		s.request(m, true)
		close(asking)
	}))
	defer func() { _ = sub.Unsubscribe() }()
	id := contracts.NewRunID()
	if ack, ok := b.ask(t, `{"run_id":"`+id+`","agent_key":"echo"}`); ok || len(b.history(t, id)) != 0 || len(s.queued) != 0 {
		t.Errorf("a busy dispatcher answered %+v", ack)
	}
	<-asking
}

// An answer goes to an inbox and nowhere else: elsewhere it would be an event, or
// a command, by the dispatcher's rights.
func TestDirectAnswersInboxesAlone(t *testing.T) {
	b := newAsked(t)
	victim := contracts.NewRunID()
	b.append(t, victim, queuedDraft(full(victim)))
	for _, reply := range []string{contracts.LogSubject(victim), "$JS.API.STREAM.DELETE.RUNS_INBOX", ""} {
		for _, body := range []string{"{", `{"run_id":"` + contracts.NewRunID() + `","agent_key":"echo"}`} {
			if err := b.NC.PublishMsg(&nats.Msg{Subject: contracts.SubjectSubmitDirect, Reply: reply, Data: []byte(body)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, ok := b.ask(t, `{"run_id":"`+contracts.NewRunID()+`","agent_key":"echo"}`); !ok { // and so those before it were looked at
		t.Error("a plain request was refused")
	}
	b.waitHistory(t, victim, "run.queued")
	if n := b.count(t, contracts.StreamLog); n != 2 {
		t.Errorf("%d events in the logs, want one of the victim and one of the plain request", n)
	}
}

// Dispatchers come and go while clients submit: none sees an error, and each run
// that was acknowledged is queued, once, by whichever of the two ways it came.
func TestDirectThroughRestarts(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	stop := b.start(t, Config{})
	b.waitAsked(t)
	before := b.inboxed(t)
	var clients sync.WaitGroup
	ended := make(chan struct{})
	var mu sync.Mutex
	var ids []string
	for range 4 {
		c := must(client.New(b.Connect(t)))
		clients.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				id, err := c.Submit(t.Context(), contracts.Submission{AgentKey: "echo"})
				if err != nil {
					t.Errorf("submit: %v", err)
					return
				}
				mu.Lock()
				ids = append(ids, id)
				mu.Unlock()
			}
		})
	}
	have := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(ids)
	}
	for round := range 4 {
		at := have()
		waitFor(t, fmt.Sprintf("submissions in round %d", round), func() bool { return have() > at+50 })
		next := b.start(t, Config{})
		if round%2 == 0 { // sometimes there is none at all
			stop()
			stop = next
			continue
		}
		next()
		stop()
		at = have()
		waitFor(t, "submissions without a dispatcher", func() bool { return have() > at+50 })
		stop = b.start(t, Config{})
	}
	close(ended)
	clients.Wait()
	b.waitEmpty(t)
	for _, id := range ids {
		if b.work(t, id) == nil {
			t.Fatalf("run %s was acknowledged and is not queued", id)
		}
	}
	if n := b.count(t, contracts.StreamLog); n != len(ids) {
		t.Errorf("%d events in the logs of %d runs", n, len(ids))
	}
	if n := b.inboxed(t) - before; n == 0 || n >= uint64(len(ids)) {
		t.Errorf("%d of %d submissions went through the inbox, want some, and some by request", n, len(ids))
	}
}

// The answer has a stream's form, which client libraries read.
func TestDirectAnswer(t *testing.T) {
	b := newAsked(t)
	id := contracts.NewRunID()
	ack, ok := b.ask(t, `{"run_id":"`+id+`","agent_key":"echo"}`)
	if at := b.head(t, id); !ok || ack.Stream != contracts.StreamLog || ack.Sequence != at.Sequence {
		t.Errorf("answer is %+v, run.queued stands at %d", ack, at.Sequence)
	}
}
