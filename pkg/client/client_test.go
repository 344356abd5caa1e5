package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/runlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const unknownRun = "0198c0de-7a11-7abc-8def-0123456789ab"

// patience bounds every wait of these tests.
const patience = 20 * time.Second

func newClient(t *testing.T) (*client.Client, *jstest.Broker) {
	t.Helper()
	b := jstest.Start(t)
	c, err := client.New(b.NC)
	if err != nil {
		t.Fatal(err)
	}
	return c, b
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// inbox returns what is stored in RUNS_INBOX, as subject and body.
func inbox(t *testing.T, b *jstest.Broker) []string {
	t.Helper()
	s, err := b.JS.Stream(t.Context(), contracts.StreamInbox)
	if err != nil {
		t.Fatal(err)
	}
	state := s.CachedInfo().State
	var all []string
	for seq := state.FirstSeq; seq <= state.LastSeq && state.Msgs > 0; seq++ {
		m, err := s.GetMsg(t.Context(), seq)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m.Subject+" "+string(m.Data))
	}
	return all
}

// script appends drafts to a run's log as the services would.
type script struct {
	t    *testing.T
	log  *runlog.Log
	id   string
	head runlog.Head
}

func newScript(t *testing.T, b *jstest.Broker, id string) *script {
	t.Helper()
	return &script{t: t, log: runlog.New(b.JS), id: id}
}

func (s *script) append(drafts ...contracts.Draft) {
	s.t.Helper()
	for _, d := range drafts {
		if s.head.Seq == 0 {
			d.AgentKey, d.Priority, d.MaxAttempts = "echo", contracts.PriorityNormal, 3
		}
		e, err := contracts.Next(s.head.Head, s.id, d, time.Now())
		if err != nil {
			s.t.Fatal(err)
		}
		if s.head, err = s.log.Append(s.t.Context(), s.head, e); err != nil {
			s.t.Fatal(err)
		}
	}
}

func queued() contracts.Draft {
	return contracts.Draft{Type: contracts.TypeQueued, Payload: contracts.Queued{}}
}

func started() contracts.Draft {
	return contracts.Draft{Type: contracts.TypeStarted, WorkerID: "w-1", Payload: contracts.Started{}}
}

func succeeded(output string) contracts.Draft {
	return contracts.Draft{Type: contracts.TypeSucceeded, Payload: contracts.Succeeded{FinalOutput: []byte(output)}}
}

func TestSubmit(t *testing.T) {
	c, b := newClient(t)
	ctx := soon(t)

	first, err := c.Submit(ctx, contracts.Submission{AgentKey: "echo"})
	if err != nil {
		t.Fatal(err)
	}
	if err := contracts.CheckRunID(first); err != nil {
		t.Errorf("run id %v", err)
	}
	byKey, err := c.Submit(ctx, contracts.Submission{AgentKey: "echo", IdempotencyKey: "order-77"})
	if err != nil || byKey != contracts.RunIDFromKey("order-77") {
		t.Errorf("run id %s, %v, want the key's", byKey, err)
	}
	own, err := c.Submit(ctx, contracts.Submission{AgentKey: "echo", IdempotencyKey: "order-78", RunID: unknownRun})
	if err != nil || own != unknownRun {
		t.Errorf("run id %s, %v, want the one given", own, err)
	}
	want := []string{
		`runs.submit {"run_id":"` + first + `","agent_key":"echo"}`,
		`runs.submit {"run_id":"` + byKey + `","idempotency_key":"order-77","agent_key":"echo"}`,
		`runs.submit {"run_id":"` + own + `","idempotency_key":"order-78","agent_key":"echo"}`,
	}
	if got := inbox(t, b); !slices.Equal(got, want) {
		t.Errorf("stored\n%q\nwant\n%q", got, want)
	}
}

func TestSubmitInvalid(t *testing.T) {
	c, b := newClient(t)
	_, err := c.Submit(soon(t), contracts.Submission{AgentKey: "No Agent", MaxAttempts: -1})
	var faults contracts.Faults
	if !errors.As(err, &faults) || len(faults) != 2 {
		t.Fatalf("error %v, want two faults", err)
	}
	if got := inbox(t, b); len(got) != 0 {
		t.Errorf("stored %q all the same", got)
	}
}

func TestSubmitWithoutTopology(t *testing.T) {
	e, err := jsutil.StartEmbedded(jsutil.EmbeddedConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Shutdown)
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: e.URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	c, err := client.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Submit(soon(t), contracts.Submission{AgentKey: "echo"}); !errors.Is(err, client.ErrUnavailable) && !errors.Is(err, client.ErrNoTopology) {
		t.Errorf("error %v", err)
	}
}

// What is wrong with some does not keep the others back, and the order stays.
func TestSubmitAll(t *testing.T) {
	c, b := newClient(t)
	const n = 2_000
	var ids []string
	i, faulty := 0, 0
	for id, err := range c.SubmitAll(soon(t), func(yield func(contracts.Submission) bool) {
		for ; i < n; i++ {
			s := contracts.Submission{AgentKey: "echo", ConversationID: fmt.Sprint("c", i)}
			if i%100 == 50 {
				s.AgentKey = ""
			}
			if !yield(s) {
				return
			}
		}
	}) {
		var faults contracts.Faults
		if errors.As(err, &faults) {
			faulty++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if len(ids) != n-n/100 || faulty != n/100 {
		t.Errorf("%d submitted and %d refused, want %d and %d", len(ids), faulty, n-n/100, n/100)
	}
	stored := inbox(t, b)
	if len(stored) != len(ids) {
		t.Fatalf("%d stored, want %d", len(stored), len(ids))
	}
	for i, id := range ids {
		if got, _ := contracts.PeekSubmission([]byte(stored[i][len("runs.submit "):])); got != id {
			t.Fatalf("outcome %d is %s, stored is %s", i, id, got)
		}
	}
}

func TestSubmitAllEndsEarly(t *testing.T) {
	c, _ := newClient(t)
	drawn := 0
	for _, err := range c.SubmitAll(soon(t), func(yield func(contracts.Submission) bool) {
		for ; yield(contracts.Submission{AgentKey: "echo"}); drawn++ {
		}
	}) {
		if err != nil {
			t.Error(err)
		}
		break
	}
	if drawn > 1_000 {
		t.Errorf("%d drawn after the loop was left", drawn)
	}
}

func TestCommands(t *testing.T) {
	c, b := newClient(t)
	ctx := soon(t)
	if err := c.Cancel(ctx, unknownRun, contracts.CancelCommand{Reason: "enough"}); err != nil {
		t.Error(err)
	}
	if err := c.Redrive(ctx, unknownRun, contracts.RedriveCommand{By: "me", FromStart: true}); err != nil {
		t.Error(err)
	}
	want := []string{
		"runs." + unknownRun + `.cancel {"reason":"enough"}`,
		"runs." + unknownRun + `.redrive {"by":"me","from_start":true}`,
	}
	if got := inbox(t, b); !slices.Equal(got, want) {
		t.Errorf("stored\n%q\nwant\n%q", got, want)
	}
	var faults contracts.Faults
	if err := c.Cancel(ctx, "*", contracts.CancelCommand{}); !errors.As(err, &faults) {
		t.Errorf("cancel of *: %v, want faults", err)
	}
	if err := c.Cancel(ctx, unknownRun, contracts.CancelCommand{Reason: string(make([]byte, 2000))}); !errors.As(err, &faults) {
		t.Errorf("a reason too long: %v, want faults", err)
	}
	if err := c.Redrive(ctx, "", contracts.RedriveCommand{}); !errors.As(err, &faults) {
		t.Errorf("redrive of nothing: %v, want faults", err)
	}
}

// serveAPI answers statekeeper's endpoint with what answer returns.
func serveAPI(t *testing.T, b *jstest.Broker, endpoint string, answer func(*nats.Msg) *nats.Msg) {
	t.Helper()
	sub, err := b.NC.Subscribe(contracts.APISubject(endpoint), func(m *nats.Msg) {
		if err := m.RespondMsg(answer(m)); err != nil {
			t.Errorf("answer: %v", err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sub.Unsubscribe() })
}

// A broker that is killed and comes back in the middle makes no submission
// fail, loses none, and none is another run when it is sent again.
func TestSubmitAllOutwaitsTheBroker(t *testing.T) {
	b := jstest.StartFile(t)
	c, err := client.New(b.NC)
	if err != nil {
		t.Fatal(err)
	}
	const n = 3_000
	var ids []string
	for id, err := range c.SubmitAll(soon(t), func(yield func(contracts.Submission) bool) {
		for i := range n {
			if i == n/2 {
				b.Restart(t)
			}
			if !yield(contracts.Submission{AgentKey: "echo"}) {
				return
			}
		}
	}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	stored := map[string]bool{}
	for _, m := range inbox(t, b) {
		id, _ := contracts.PeekSubmission([]byte(m[len("runs.submit "):]))
		stored[id] = true
	}
	if len(ids) != n || len(stored) != n {
		t.Errorf("%d reported and %d stored, want %d", len(ids), len(stored), n)
	}
	for _, id := range ids {
		if !stored[id] {
			t.Fatalf("run %s was reported as stored and is not", id)
		}
	}
}

// A key whose run was rejected is free for a corrected submission, which is a
// run with another id; a key whose run was not is that run.
func TestSubmitUnderTheKeyOfARejectedRun(t *testing.T) {
	c, b := newClient(t)
	ctx := soon(t)
	submission := contracts.Submission{AgentKey: "echo", IdempotencyKey: "k"}
	submit := func() string {
		t.Helper()
		id, err := c.Submit(ctx, submission)
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.SubmitAsync(ctx, submission)
		if err != nil || r.RunID != id || r.Wait(ctx) != nil {
			t.Errorf("SubmitAsync: %+v, %v; Submit: %s", r, err, id)
		}
		for all, err := range c.SubmitAll(ctx, slices.Values([]contracts.Submission{submission})) {
			if err != nil || all != id {
				t.Errorf("SubmitAll: %s, %v; Submit: %s", all, err, id)
			}
		}
		return id
	}
	id := contracts.RunIDFromKey("k")
	for range 3 {
		if have := submit(); have != id {
			t.Fatalf("run id is %s, want %s", have, id)
		}
		newScript(t, b, id).append(contracts.Draft{Type: contracts.TypeRejected, Payload: contracts.Rejected{}})
		id = contracts.RunIDAfter(id, "k")
	}
	newScript(t, b, id).append(queued())
	if have := submit(); have != id {
		t.Errorf("run id is %s, want that of the run that was not rejected, %s", have, id)
	}
}
