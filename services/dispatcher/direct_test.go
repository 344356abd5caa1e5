package dispatcher

import (
	"encoding/json"
	"fmt"
	"strings"
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

// ask asks the dispatchers for a run, as any client might.
func (b *bench) ask(t testing.TB, body string) *jetstream.PubAck {
	t.Helper()
	m, err := b.NC.Request(contracts.SubjectSubmitDirect, []byte(body), patience)
	if err != nil {
		t.Fatalf("request %s: %v", body, err)
	}
	var ack jetstream.PubAck
	mustDecode(t, m.Data, &ack)
	return &ack
}

func (b *bench) waitAsked(t testing.TB) {
	t.Helper()
	waitFor(t, "a dispatcher to take requests", func() bool {
		m, err := b.NC.Request(contracts.SubjectSubmitDirect, []byte("{"), patience)
		return err == nil && len(m.Data) > 0
	})
}

// What was answered is queued in full, and never was in the inbox.
func TestDirect(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	b.waitAsked(t)
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

// What is not plain goes to the inbox, and the inbox answers.
func TestDirectPassesOn(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	b.waitAsked(t)
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for i, rest := range []string{
		`"agent_key":"nobody"`, `"agent_key":"echo","max_attempts":-1`, `"agent_key":"echo","idempotency_key":"k-1"`,
		`"agent_key":"echo","conversation_id":"c-1"`, `"agent_key":"echo","not_before":"` + later + `"`, `"agent_key":"echo","start_timeout_seconds":60`,
	} {
		id := contracts.NewRunID()
		ack := b.ask(t, `{"run_id":"`+id+`",`+rest+`}`)
		if ack.Stream != contracts.StreamInbox || ack.Sequence == 0 {
			t.Errorf("%s: answer is %+v, want the inbox's", rest, ack)
		}
		want := []string{"run.rejected", "run.rejected", "run.queued", "run.queued", "run.scheduled", "run.queued"}[i]
		b.waitHistory(t, id, want)
	}
	// One without a run id gets the inbox's, as ever.
	ack := b.ask(t, `{"agent_key":"echo"}`)
	if ack.Stream != contracts.StreamInbox {
		t.Fatalf("answer is %+v, want the inbox's", ack)
	}
	waitFor(t, "a run without a name to be queued", func() bool { return b.count(t, contracts.StreamWork) == 4 })
}

// A dispatcher that was killed behind run.queued leaves no answer and no work
// message; whoever submits again gets both. What has run does not run again.
func TestDirectTwice(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	b.waitAsked(t)
	id := contracts.NewRunID()
	b.append(t, id, queuedDraft(full(id)))
	if b.work(t, id) != nil {
		t.Fatal("there is a work message before the test begins")
	}
	body := string(must(contracts.Encode(contracts.Submission{RunID: id, AgentKey: "echo"})))
	if ack := b.ask(t, body); ack.Stream != contracts.StreamInbox {
		t.Errorf("answer is %+v, want the inbox's", ack)
	}
	waitFor(t, "the work message to be made", func() bool { return b.work(t, id) != nil })

	b.append(t, id, startedDraft("w-1"), contracts.Draft{Type: contracts.TypeSucceeded})
	b.remove(t, b.work(t, id).Sequence)
	b.ask(t, body)
	b.waitEmpty(t)
	b.waitHistory(t, id, "run.queued run.started run.succeeded")
	if b.work(t, id) != nil {
		t.Error("a run that has ended is queued again")
	}
}

// One that is asked for too much passes on what lies behind, and answers all.
func TestDirectBusy(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	d := b.dispatcher()
	s := newSubmitter(d)
	answers := must(b.NC.SubscribeSync(nats.NewInbox()))
	id := contracts.NewRunID()
	s.request(&nats.Msg{Subject: contracts.SubjectSubmitDirect, Reply: answers.Subject,
		Data: must(contracts.Encode(contracts.Submission{RunID: id, AgentKey: "echo"}))}, true)
	var ack jetstream.PubAck
	mustDecode(t, must(answers.NextMsg(patience)).Data, &ack)
	if ack.Stream != contracts.StreamInbox || len(b.history(t, id)) != 0 || len(s.queued) != 0 {
		t.Errorf("a busy dispatcher answered %+v", ack)
	}
}

// Dispatchers come and go while clients submit: none sees an error, and each
// run that was acknowledged is queued, once.
func TestDirectThroughRestarts(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	stop := b.start(t, Config{})
	b.waitAsked(t)
	before := b.count(t, contracts.StreamLog) // it was asked for nonsense
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
	if n := b.count(t, contracts.StreamLog) - before; n != len(ids) {
		t.Errorf("%d events in the logs of %d runs", n, len(ids))
	}
}

// The answer has a stream's form, which client libraries read.
func TestDirectAnswer(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	b.waitAsked(t)
	id := contracts.NewRunID()
	ack := b.ask(t, `{"run_id":"`+id+`","agent_key":"echo"}`)
	if at := b.head(t, id); ack.Stream != contracts.StreamLog || ack.Sequence != at.Sequence {
		t.Errorf("answer is %s, run.queued stands at %d", must(json.Marshal(ack)), at.Sequence)
	}
	ack, err := b.JS.PublishMsg(t.Context(), &nats.Msg{Subject: contracts.SubjectSubmitDirect,
		Data: []byte(strings.ReplaceAll(`{"run_id":"ID","agent_key":"echo"}`, "ID", contracts.NewRunID()))})
	if err != nil || ack.Stream != contracts.StreamLog {
		t.Errorf("the library reads %+v, %v", ack, err)
	}
}
