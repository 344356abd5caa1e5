package dispatcher

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

func TestSubmit(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	seq := b.submit(t, `{"agent_key":"echo","input":{"messages":[{"role":"user","content":"hi <b>"}],"params":{"n":3}},"metadata":{"user":"u1"}}`)
	id := b.derivedID(t, seq)
	b.start(t, Config{})
	s := b.checkQueued(t, id)
	if s.RunID != id || s.Priority != contracts.PriorityNormal || s.TimeoutSeconds != 42 || s.MaxAttempts != 7 {
		t.Errorf("defaults are not those of the agent: %+v", s)
	}
	if s.Metadata["user"] != "u1" || s.Input.Messages[0].Text() != "hi <b>" || string(s.Input.Params) != `{"n":3}` {
		t.Errorf("submission is changed: %+v", s)
	}
	given := contracts.Submission{RunID: contracts.NewRunID(), AgentKey: "echo", Priority: "high", TimeoutSeconds: 1.5, MaxAttempts: 1}
	b.submit(t, given)
	if s := b.checkQueued(t, given.RunID); s.Priority != "high" || s.TimeoutSeconds != 1.5 || s.MaxAttempts != 1 {
		t.Errorf("what was given is changed: %+v", s)
	}
	b.waitEmpty(t)
}

func TestSubmitDefaultsWithoutAgent(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.start(t, Config{AcceptUnknownAgents: true})
	id := contracts.NewRunID()
	b.submit(t, contracts.Submission{RunID: id, AgentKey: "nobody"})
	if s := b.checkQueued(t, id); s.TimeoutSeconds != contracts.DefaultTimeout || s.MaxAttempts != contracts.DefaultMaxAttempts {
		t.Errorf("defaults are %+v", s)
	}
}

func TestSubmitKeepsOrder(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	const n = 1000
	ids := make([]string, n)
	for i := range ids {
		ids[i] = contracts.NewRunID()
		if _, err := b.JS.PublishAsync(contracts.SubjectSubmit, must(contracts.Encode(contracts.Submission{RunID: ids[i], AgentKey: "echo"}))); err != nil {
			t.Fatal(err)
		}
	}
	b.waitEmpty(t)
	if have := b.count(t, contracts.StreamWork); have != n {
		t.Fatalf("%d work messages, want %d", have, n)
	}
	if have := b.count(t, contracts.StreamLog); have != n {
		t.Fatalf("%d events, want %d", have, n)
	}
	var last uint64
	for i, id := range ids {
		m := b.work(t, id)
		if m == nil {
			t.Fatalf("run %d has no work message", i)
		}
		if m.Sequence <= last {
			t.Fatalf("run %d was queued before the one submitted before it", i)
		}
		last = m.Sequence
	}
}

func TestSubmitTwice(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	byID, byKey, keyed := contracts.NewRunID(), contracts.RunIDFromKey("order-77"), contracts.NewRunID()
	for range 3 {
		b.submit(t, contracts.Submission{RunID: byID, AgentKey: "echo"})
		b.submit(t, contracts.Submission{IdempotencyKey: "order-77", AgentKey: "echo"})
		b.submit(t, contracts.Submission{IdempotencyKey: "order-78", RunID: keyed, AgentKey: "echo"})
	}
	b.waitEmpty(t)
	for _, id := range []string{byID, byKey, keyed} {
		b.checkQueued(t, id)
	}
	if n := b.count(t, contracts.StreamWork); n != 3 {
		t.Errorf("%d work messages, want 3", n)
	}
	// Once it has run, a duplicate does not run again.
	work := b.work(t, byID)
	b.append(t, byID, startedDraft("w-1"), contracts.Draft{Type: contracts.TypeSucceeded})
	b.remove(t, work.Sequence)
	b.submit(t, contracts.Submission{RunID: byID, AgentKey: "echo"})
	b.waitEmpty(t)
	b.waitHistory(t, byID, "run.queued run.started run.succeeded")
	if b.work(t, byID) != nil {
		t.Error("a duplicate of a run that has ended is queued")
	}
}

func TestKeyOfAnotherRun(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	first, second := contracts.NewRunID(), contracts.NewRunID()
	b.submit(t, contracts.Submission{RunID: first, IdempotencyKey: "k", AgentKey: "echo"})
	b.checkQueued(t, first)
	b.submit(t, contracts.Submission{RunID: second, IdempotencyKey: "k", AgentKey: "echo"})
	if m := faultOf(b.checkRejected(t, second), "idempotency_key"); !strings.Contains(m, first) {
		t.Errorf("fault is %q, should name run %s", m, first)
	}
	b.waitEmpty(t)
}

func TestDeletedKeyIsFree(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	id := contracts.NewRunID()
	m := &nats.Msg{Subject: contracts.KVSubject(contracts.BucketRuns, contracts.IdempotencyKey("k")), Header: nats.Header{"KV-Operation": {"DEL"}}}
	if _, err := b.JS.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	b.start(t, Config{})
	b.submit(t, contracts.Submission{RunID: id, IdempotencyKey: "k", AgentKey: "echo"})
	b.checkQueued(t, id)
}

func TestGarbage(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	good := contracts.NewRunID()
	bodies := map[string]string{
		"empty":           "",
		"binary":          "\x00\xff\xfe\x01\x02",
		"a megabyte":      strings.Repeat("x", 1<<20-1024),
		"a large string":  `{"agent_key":"` + strings.Repeat("y", 900<<10) + `"}`,
		"many fields":     "{" + strings.Repeat(`"`+strings.Repeat("z", 300)+`":1,`, 1500) + `"agent_key":"echo"}`,
		"no object":       `[1,2,3]`,
		"wrong types":     `{"agent_key":7,"input":"x","priority":[],"timeout_seconds":"long"}`,
		"unknown field":   `{"agent_key":"echo","agnet":"x"}`,
		"duplicate field": `{"agent_key":"echo","agent_key":"count"}`,
		"bad agent":       `{"agent_key":"../etc"}`,
		"bad run id":      `{"agent_key":"echo","run_id":"*.>"}`,
		"deep":            `{"agent_key":"echo","input":{"params":` + strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000) + `}}`,
		"not text":        "{\"agent_key\":\"echo\",\"conversation_id\":\"\xff\"}",
		"truncated":       `{"agent_key":"echo","input":{`,
	}
	for what, body := range bodies {
		t.Run(what, func(t *testing.T) {
			b.submit(t, body)
			b.waitEmpty(t)
			last, err := b.last(t, contracts.StreamLog, contracts.SubjectAllEvents)
			if err != nil {
				t.Fatal(err)
			}
			e, err := contracts.DecodeEvent(last.Data)
			if err != nil {
				t.Fatal(err)
			}
			if faults := b.checkRejected(t, e.RunID); len(faults) > contracts.MaxFaults+1 {
				t.Errorf("%d faults", len(faults))
			}
		})
	}
	if n := b.count(t, contracts.StreamLog); n != len(bodies) {
		t.Errorf("%d events for %d bad submissions", n, len(bodies))
	}
	b.submit(t, contracts.Submission{RunID: good, AgentKey: "echo"})
	b.checkQueued(t, good)
}

func TestGarbageHasItsOwnID(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	id := contracts.NewRunID()
	b.submit(t, `{"agent_key":"echo","nonsense":1,"run_id":"`+id+`"}`)
	if faultOf(b.checkRejected(t, id), "nonsense") == "" {
		t.Error("the unknown field is not among the faults")
	}
	b.submit(t, `{"agent_key":"echo","nonsense":1,"idempotency_key":"kk"}`)
	b.checkRejected(t, contracts.RunIDFromKey("kk"))
}

func TestGarbageAboutAnExistingRun(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	id := contracts.NewRunID()
	b.submit(t, contracts.Submission{RunID: id, AgentKey: "echo"})
	b.checkQueued(t, id)
	b.submit(t, `{"run_id":"`+id+`","agent_key":"echo","priority":"urgent"}`)
	b.submit(t, `{"run_id":"`+id+`","agent_key":"nobody"}`)
	b.waitEmpty(t)
	b.checkQueued(t, id)
}

// What the broker's max_payload does not allow may have fitted into the inbox,
// where no event is around it.
func TestTooLargeForTheLog(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	it := &item{Delivery: &jsutil.Delivery{Stored: time.Now()}, sub: full(contracts.NewRunID())}
	it.sub.IdempotencyKey = "k"
	it.sub.Input.Params = json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`)
	if err := newSubmitter(b.dispatcher()).admit(t.Context(), it, nil); err != nil {
		t.Fatal(err)
	}
	b.checkRejected(t, it.sub.RunID)
	// It holds no key: what was made smaller takes it.
	if m, err := b.last(t, contracts.StreamRuns, contracts.KVSubject(contracts.BucketRuns, contracts.IdempotencyKey("k"))); err == nil {
		t.Errorf("the key is held by run %s", m.Data)
	}
	smaller := full(contracts.NewRunID())
	smaller.IdempotencyKey = "k"
	b.submit(t, smaller)
	b.start(t, Config{AcceptUnknownAgents: true})
	b.checkQueued(t, smaller.RunID)
}

// A rejected submission holds no key, whether its run id was given, derived
// from the key by its sender or by the dispatcher: a corrected one takes it, and from then on is
// the run of the key.
func TestKeyOfARejectedRunIsFree(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	b.start(t, Config{})
	const bad, good = `{"idempotency_key":"k","agent_key":"nobody"}`, `{"idempotency_key":"k","agent_key":"echo"}`
	first := contracts.RunIDFromKey("k")
	second := contracts.RunIDAfter(first, "k")
	b.submit(t, bad)
	b.checkRejected(t, first)
	for range 3 {
		b.submit(t, good)
		b.waitEmpty(t)
	}
	b.checkQueued(t, second)
	b.checkRejected(t, first)
	if n := b.count(t, contracts.StreamWork); n != 1 {
		t.Errorf("%d work messages", n)
	}
	other := contracts.NewRunID()
	b.submit(t, contracts.Submission{RunID: other, IdempotencyKey: "k", AgentKey: "echo"})
	if m := faultOf(b.checkRejected(t, other), "idempotency_key"); !strings.Contains(m, second) {
		t.Errorf("fault is %q, should name run %s", m, second)
	}
}

// A claim is there, and its run was rejected after all.
func TestClaimOfARejectedRunGivesWay(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	rejected, later := contracts.NewRunID(), contracts.NewRunID()
	must(b.dispatcher().claim(t.Context(), "k", rejected))
	b.append(t, rejected, contracts.Draft{Type: contracts.TypeRejected, Payload: contracts.Rejected{}})
	b.start(t, Config{})
	b.submit(t, contracts.Submission{RunID: later, IdempotencyKey: "k", AgentKey: "echo"})
	b.checkQueued(t, later)
}

// A dispatcher wrote the rejection and died; its agent is known when the
// submission comes again. The rejection has been seen, and holds.
func TestRejectionHoldsWhenDeliveredAgain(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	sequence := b.submit(t, `{"idempotency_key":"k","agent_key":"echo"}`)
	s := must(b.JS.Stream(t.Context(), contracts.StreamInbox))
	stored := must(s.GetMsg(t.Context(), sequence)).Time
	id := contracts.RunIDFromKey("k")
	b.append(t, id, contracts.Draft{Type: contracts.TypeRejected, Payload: contracts.Rejected{SubmittedAt: stored}})
	b.start(t, Config{})
	b.waitEmpty(t)
	b.waitHistory(t, id, "run.rejected")
	if n := b.count(t, contracts.StreamLog); n != 1 {
		t.Errorf("%d events", n)
	}
}

func TestUnknownAgent(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	for i := range 30 {
		b.register(t, contracts.AgentRecord{AgentKey: fmt.Sprintf("agent-%02d", 29-i)})
	}
	b.start(t, Config{})
	id := contracts.NewRunID()
	b.submit(t, contracts.Submission{RunID: id, AgentKey: "nobody"})
	m := faultOf(b.checkRejected(t, id), "agent_key")
	if !strings.Contains(m, "agent-00, agent-01, agent-02") || !strings.Contains(m, "agent-19 and 10 more") || strings.Contains(m, "agent-20") {
		t.Errorf("fault is %q", m)
	}
	// One that registers a moment later is known at once, and listed.
	b.register(t, contracts.AgentRecord{AgentKey: "agent", MaxAttempts: 9})
	id = contracts.NewRunID()
	b.submit(t, contracts.Submission{RunID: id, AgentKey: "nobody"})
	if m := faultOf(b.checkRejected(t, id), "agent_key"); !strings.Contains(m, "known are agent, agent-00") {
		t.Errorf("fault is %q", m)
	}
	b.register(t, contracts.AgentRecord{AgentKey: "late", MaxAttempts: 9})
	id = contracts.NewRunID()
	b.submit(t, contracts.Submission{RunID: id, AgentKey: "late"})
	if s := b.checkQueued(t, id); s.MaxAttempts != 9 {
		t.Errorf("max_attempts is %d, want the agent's 9", s.MaxAttempts)
	}
}

// TestUnknownAgentAmongFaults checks that a wrong form does not hide a wrong agent.
func TestUnknownAgentAmongFaults(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.start(t, Config{})
	id := contracts.NewRunID()
	b.publish(t, contracts.SubjectSubmit, `{"run_id": "`+id+`", "agent_key": "nobody", "max_attempts": 0}`)
	faults := b.checkRejected(t, id)
	if len(faults) != 2 || faultOf(faults, "agent_key") == "" || faultOf(faults, "max_attempts") == "" {
		t.Errorf("faults are %v, want one of max_attempts and one of agent_key", faults)
	}
}

func TestHostileHeaders(t *testing.T) {
	b := newBench(t, jstest.Start(t))
	b.register(t, echo)
	before := contracts.NewRunID()
	b.submit(t, contracts.Submission{RunID: before, AgentKey: "echo"})
	for _, h := range []nats.Header{
		{"Nats-Rollup": {"all"}}, {"Nats-Rollup": {"sub"}}, {"Nats-TTL": {"1s"}}, {"Nats-TTL": {"never"}},
		{"Nats-Schedule": {"@at 2020-01-01T00:00:00Z"}, "Nats-Schedule-Target": {"runs.work.echo.high.x"}},
		{"Nats-Schedule-Target": {"runs.x.log"}, "Nats-Schedule": {"@every 1s"}},
		{"Nats-Incr": {"+1"}},
	} {
		m := &nats.Msg{Subject: contracts.SubjectSubmit, Header: h, Data: []byte(`{"agent_key":"echo"}`)}
		if _, err := b.JS.PublishMsg(t.Context(), m); err == nil {
			t.Errorf("the broker took a submission with %v", h)
		}
	}
	b.start(t, Config{})
	b.checkQueued(t, before)
	// Headers that are ours mean nothing on a submission.
	id := contracts.NewRunID()
	m := &nats.Msg{Subject: contracts.SubjectSubmit, Data: must(contracts.Encode(contracts.Submission{RunID: id, AgentKey: "echo"})),
		Header: nats.Header{contracts.HeaderLogSequence: {"99"}, "Nats-Scheduler": {""}, "KV-Operation": {"DEL"}}}
	if _, err := b.JS.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	b.checkQueued(t, id)
	b.waitEmpty(t)
}
