package contracts

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epochStart = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

// model is a run as DESIGN tells of it, with nothing of the code's table.
type model struct {
	phase      string // new, scheduled, waiting, held, stopping, over, refused, done
	notBefore  time.Time
	waitsFor   string
	starts     uint64 // over the whole run
	charged    int    // in this round
	limit      int
	worker     string
	checkpoint *CheckpointRef
	spent      Usage
}

// may says whether DESIGN lets d happen now, and moves on if so.
func (m *model) may(d Draft, now time.Time) bool {
	// Only a holder spends, and what is spent is spent.
	spent := m.spent
	if holder := m.phase == "held" || m.phase == "stopping"; holder && d.Usage != (Usage{}) {
		if spent = d.Usage; spent.Cost < m.spent.Cost || spent.InputTokens < m.spent.InputTokens {
			return false
		}
	}
	if !m.moves(d, now) {
		return false
	}
	m.spent = spent
	return true
}

// moves is may for all but the usage.
func (m *model) moves(d Draft, now time.Time) bool {
	held := m.phase == "held" || m.phase == "stopping"
	switch d.Type {
	case TypeQueued, TypeScheduled, TypeRejected:
		if d.Type == TypeQueued && m.phase == "scheduled" && !now.Before(m.notBefore) {
			m.phase, m.notBefore = "waiting", time.Time{}
			return true
		}
		if m.phase != "new" || d.Type == TypeScheduled && d.NotBefore.IsZero() {
			return false
		}
		if d.Type != TypeRejected && (d.AgentKey == "" || d.Priority == "" || d.MaxAttempts < 1) {
			return false
		}
		m.phase = map[EventType]string{TypeQueued: "waiting", TypeScheduled: "scheduled", TypeRejected: "refused"}[d.Type]
		if d.Type == TypeScheduled {
			m.notBefore = d.NotBefore
		}
		m.limit = d.MaxAttempts
		return true
	case TypeStarted: // a first one, or a takeover
		if m.phase != "waiting" && m.phase != "held" || m.charged == m.limit || now.Before(m.notBefore) || d.WorkerID == "" {
			return false
		}
		m.phase, m.starts, m.charged, m.worker, m.notBefore, m.waitsFor = "held", m.starts+1, m.charged+1, d.WorkerID, time.Time{}, ""
		return true
	case TypeRetrying:
		if m.phase != "held" || m.charged == m.limit || d.NotBefore.IsZero() {
			return false
		}
		m.phase, m.notBefore, m.worker = "waiting", d.NotBefore, ""
		return true
	case TypeSleeping:
		if m.phase != "held" || d.NotBefore.IsZero() {
			return false
		}
		m.phase, m.notBefore, m.waitsFor, m.worker, m.charged = "waiting", d.NotBefore, d.WaitsFor, "", m.charged-1
		return true
	case TypeSignalled:
		if m.phase != "waiting" || m.starts == 0 {
			return false
		}
		if d.WaitsFor != m.waitsFor { // it is over
			m.notBefore, m.waitsFor = time.Time{}, ""
		}
		return true
	case TypeRequeued:
		switch m.phase {
		case "held": // a drain, which is not charged
			m.charged--
		case "over": // a redrive, which begins anew
			if m.charged = 0; d.FromStart {
				m.checkpoint = nil
			}
		case "waiting": // its work message was lost, and nothing else has changed
		default:
			return false
		}
		m.phase, m.worker = "waiting", ""
		return true
	case TypeCancelRequested:
		if m.phase != "held" {
			return false
		}
		m.phase = "stopping"
		return true
	case TypeCancelled:
		if m.phase != "scheduled" && m.phase != "waiting" && m.phase != "stopping" {
			return false
		}
		m.phase, m.notBefore, m.waitsFor = "over", time.Time{}, ""
		return true
	case TypeFailed:
		if m.phase != "held" && m.phase != "waiting" {
			return false
		}
		m.phase, m.notBefore, m.waitsFor = "over", time.Time{}, ""
		return true
	case TypeTimedOut, TypeSucceeded:
		neverBegun := d.Type == TypeTimedOut && m.phase == "waiting" && m.starts == 0
		if m.phase != "held" && !neverBegun {
			return false
		}
		m.phase = map[EventType]string{TypeTimedOut: "over", TypeSucceeded: "done"}[d.Type]
		return true
	case TypeCheckpoint:
		c := d.Checkpoint
		if !held || c == nil || c.Epoch != m.starts || c.N == 0 || c.Revision == 0 || m.checkpoint != nil && c.N <= m.checkpoint.N {
			return false
		}
		m.checkpoint = c
		return true
	}
	return held && (d.Type == TypeHeartbeat || d.Type == TypeStepCompleted || !d.Type.Reserved())
}

// likely repeats the types that may follow, so that walks go far.
func likely(s Status) []EventType {
	var types []EventType
	for _, eventType := range allTypes {
		if _, ok := transition(s, eventType); ok {
			types = append(types, eventType, eventType, eventType)
		}
	}
	return types
}

// draft draws anything that an appender might try, sensible or not.
func draft(t *rapid.T, head Head, now time.Time) Draft {
	d := Draft{
		Type:       rapid.SampledFrom(append(likely(head.Status), allTypes...)).Draw(t, "type"),
		AgentKey:   rapid.SampledFrom([]string{"echo", "echo", ""}).Draw(t, "agent"),
		Priority:   rapid.SampledFrom([]Priority{PriorityNormal, PriorityLow, ""}).Draw(t, "priority"),
		WorkerID:   rapid.SampledFrom([]string{"w1", "w2", "w3", ""}).Draw(t, "worker"),
		FromStart:  rapid.Bool().Draw(t, "from start"),
		Visibility: rapid.SampledFrom([]Visibility{"", VisibilityUser, VisibilityDebug}).Draw(t, "visibility"),
	}
	d.WaitsFor = rapid.SampledFrom([]string{head.WaitsFor, "", "go", "stop"}).Draw(t, "waits for")
	if d.Type == TypeSignalled && head.WaitsFor == "" {
		d.WaitsFor = "" // there is nothing to choose
	}
	d.MaxAttempts = rapid.IntRange(0, 3).Draw(t, "max attempts")
	if rapid.IntRange(0, 3).Draw(t, "has usage") == 0 {
		d.Usage = head.Usage.Add(Usage{InputTokens: rapid.Uint64Range(0, 2).Draw(t, "tokens")})
		d.Usage.Cost = float64(rapid.IntRange(0, 9).Draw(t, "cost"))
	}
	if rapid.IntRange(0, 5).Draw(t, "has time") > 0 {
		d.NotBefore = now.Add(time.Duration(rapid.IntRange(-2, 3).Draw(t, "delay")) * time.Second)
	}
	if rapid.IntRange(0, 5).Draw(t, "has checkpoint") > 0 {
		d.Checkpoint = &CheckpointRef{N: rapid.Uint64Range(0, 3).Draw(t, "n"), Revision: rapid.Uint64Range(0, 3).Draw(t, "revision"), Epoch: head.Epoch}
		if head.Checkpoint != nil {
			d.Checkpoint.N += head.Checkpoint.N
		}
		if rapid.IntRange(0, 4).Draw(t, "of an old epoch") == 0 {
			d.Checkpoint.Epoch--
		}
	}
	return d
}

// TestRandomWalks lets appenders try anything, and holds what Next and Apply
// make of it against the model and DESIGN's invariants 1, 2, 4, 5, 6, 8 and 9.
func TestRandomWalks(t *testing.T) {
	reached := map[Status]int{}
	rapid.Check(t, func(t *rapid.T) {
		var head Head
		m := model{phase: "new"}
		now := epochStart
		var stale []Event // made on a head that is not the head any more
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "seconds")) * time.Second)
			d := draft(t, head, now)
			e, err := Next(head, testRun, d, now)
			if legal := m.may(d, now); legal != (err == nil) {
				t.Fatalf("%s on %+v at %v: the model says %t, Next %v", d.Type, head, now, legal, err)
			}
			if err != nil {
				if !errors.Is(err, ErrTransition) || !reflect.DeepEqual(e, Event{}) {
					t.Fatalf("%s refused with %v and %+v", d.Type, err, e)
				}
				continue
			}
			next, err := Apply(head, e)
			if err != nil {
				t.Fatalf("Apply refuses what Next made: %v", err)
			}
			checkStep(t, head, next, e)
			checkAgainst(t, m, next)
			// Of two that were made on one head, one is stored.
			for _, old := range append(stale, e) {
				if _, err := Apply(next, old); err == nil {
					t.Fatalf("event %d of epoch %d follows event %d of epoch %d", old.Seq, old.Epoch, next.Seq, next.Epoch)
				}
			}
			stale = append(stale, e)
			reached[next.Status]++
			head = next
		}
	})
	for _, s := range Statuses() {
		if reached[s] == 0 {
			t.Errorf("no walk came to %s", s)
		}
	}
}

// checkStep holds two neighbouring heads against the invariants.
func checkStep(t interface{ Fatalf(string, ...any) }, head, next Head, e Event) {
	switch {
	case !reflect.DeepEqual(next, e.Head()):
		t.Fatalf("the head is %+v, the event %+v", next, e)
	case next.Seq != head.Seq+1: // 6
		t.Fatalf("seq %d after %d", next.Seq, head.Seq)
	case head.Status.Terminal() && e.Type != TypeRequeued: // 2
		t.Fatalf("%s after %s", e.Type, head.Status)
	case e.Type == TypeStarted && next.Epoch != head.Epoch+1, e.Type != TypeStarted && next.Epoch != head.Epoch: // 4
		t.Fatalf("%s leads from epoch %d to %d", e.Type, head.Epoch, next.Epoch)
	case next.Attempt > next.MaxAttempts, next.Attempt < 0: // 4
		t.Fatalf("attempt %d of %d", next.Attempt, next.MaxAttempts)
	case head.Seq > 0 && (next.MaxAttempts != head.MaxAttempts || next.AgentKey != head.AgentKey || next.Priority != head.Priority || next.RunID != head.RunID):
		t.Fatalf("%s makes %+v of %+v", e.Type, next, head)
	case e.Type == TypeStarted && e.Time.Before(head.NotBefore): // 9
		t.Fatalf("started at %v, before %v", e.Time, head.NotBefore)
	}
	if fault := impossible(next); fault != "" {
		t.Fatalf("%s leads to an impossible head: %s: %+v", e.Type, fault, next)
	}
}

// impossible says what no head can be.
func impossible(h Head) string {
	waiting := h.Status == StatusPending || h.Status == StatusScheduled
	switch {
	case !h.Status.Valid():
		return "status"
	case h.Seq == 0 || CheckRunID(h.RunID) != nil:
		return "identity"
	case h.Status == StatusRejected && (h.Seq != 1 || h.Epoch != 0 || h.Attempt != 0 || h.WorkerID != "" || h.Checkpoint != nil):
		return "a rejected run that has run"
	case h.Status != StatusRejected && (CheckAgentKey(h.AgentKey) != nil || !h.Priority.Valid() || h.MaxAttempts < 1):
		return "no agent, priority or max_attempts"
	case h.Attempt < 0 || h.Attempt > h.MaxAttempts || uint64(h.Attempt) > h.Epoch:
		return "attempt"
	case h.Status.Held() && (CheckWorkerID(h.WorkerID) != nil || h.Attempt == 0):
		return "held by nobody"
	case waiting && h.WorkerID != "":
		return "waits for a worker and has one"
	case h.Status == StatusScheduled && h.NotBefore.IsZero():
		return "scheduled for no time"
	case !waiting && !h.NotBefore.IsZero():
		return "does not wait, yet has a time"
	case h.WaitsFor != "" && (h.Status != StatusPending || h.NotBefore.IsZero() || h.Epoch == 0):
		return "waits for a signal in vain"
	case h.Checkpoint != nil && (h.Checkpoint.N == 0 || h.Checkpoint.Revision == 0 || h.Checkpoint.Epoch == 0 || h.Checkpoint.Epoch > h.Epoch):
		return "checkpoint"
	case h.Status == StatusSucceeded && h.Epoch == 0:
		return "ended by a worker that never was"
	}
	return ""
}

func checkAgainst(t *rapid.T, m model, h Head) {
	t.Helper()
	worker := h.WorkerID
	if h.Status.Terminal() {
		worker = m.worker // who held it last, if anybody
	}
	if h.Epoch != m.starts || h.Attempt != m.charged || worker != m.worker || !h.NotBefore.Equal(m.notBefore) || h.WaitsFor != m.waitsFor || !reflect.DeepEqual(h.Checkpoint, m.checkpoint) || h.Usage != m.spent {
		t.Fatalf("head %+v\nmodel %+v", h, m)
	}
	phase := map[Status]string{StatusScheduled: "scheduled", StatusPending: "waiting", StatusRunning: "held", StatusCancelling: "stopping",
		StatusSucceeded: "done", StatusFailed: "over", StatusTimedOut: "over", StatusCancelled: "over", StatusRejected: "refused"}[h.Status]
	if phase != m.phase {
		t.Fatalf("status %s, phase %s", h.Status, m.phase)
	}
}

// walk brings a run to a head that many tests begin from: running, second
// epoch, with a checkpoint.
func walk(t testing.TB, drafts ...Draft) (Head, []Event) {
	t.Helper()
	var head Head
	var events []Event
	for i, d := range append([]Draft{
		{Type: TypeQueued, AgentKey: "echo", Priority: PriorityNormal, MaxAttempts: 3, Payload: Queued{Submission: Submission{
			RunID: testRun, AgentKey: "echo", ConversationID: "c1", IdempotencyKey: "k1", Metadata: map[string]string{"user": "u1"}}}},
		{Type: TypeStarted, WorkerID: "w1"},
	}, drafts...) {
		e, err := Next(head, testRun, d, epochStart.Add(time.Duration(i)*time.Second))
		if err != nil {
			t.Fatalf("event %d, %s: %v", i+1, d.Type, err)
		}
		if head, err = Apply(head, e); err != nil {
			t.Fatalf("event %d, %s: %v", i+1, d.Type, err)
		}
		events = append(events, e)
	}
	return head, events
}

// Nothing of an event's envelope can be other than what follows from the head.
func TestApplyRefusesForgedEnvelopes(t *testing.T) {
	checkpoint := &CheckpointRef{N: 1, Epoch: 1, Revision: 5}
	head, _ := walk(t, Draft{Type: TypeCheckpoint, Checkpoint: checkpoint})
	good, err := Next(head, testRun, Draft{Type: TypeDelta, Payload: Delta{Text: "x"}}, epochStart)
	if err != nil {
		t.Fatal(err)
	}
	for name, forge := range map[string]func(*Event){
		"run_id":          func(e *Event) { e.RunID = NewRunID() },
		"seq repeated":    func(e *Event) { e.Seq-- },
		"seq skipped":     func(e *Event) { e.Seq++ },
		"type":            func(e *Event) { e.Type = TypeQueued },
		"type any":        func(e *Event) { e.Type = typeAny },
		"type reserved":   func(e *Event) { e.Type = "run.own" },
		"type ended":      func(e *Event) { e.Type = TypeSucceeded },
		"agent_key":       func(e *Event) { e.AgentKey = "count" },
		"priority":        func(e *Event) { e.Priority = PriorityHigh },
		"status":          func(e *Event) { e.Status = StatusSucceeded },
		"epoch lower":     func(e *Event) { e.Epoch-- },
		"epoch higher":    func(e *Event) { e.Epoch++ },
		"attempt lower":   func(e *Event) { e.Attempt-- },
		"attempt higher":  func(e *Event) { e.Attempt++ },
		"max_attempts":    func(e *Event) { e.MaxAttempts++ },
		"worker_id":       func(e *Event) { e.WorkerID = "w2" },
		"no checkpoint":   func(e *Event) { e.Checkpoint = nil },
		"checkpoint n":    func(e *Event) { e.Checkpoint = &CheckpointRef{N: 2, Epoch: 1, Revision: 5} },
		"not_before":      func(e *Event) { e.NotBefore = epochStart },
		"waits_for":       func(e *Event) { e.WaitsFor = "go" },
		"visibility":      func(e *Event) { e.Visibility = "public" },
		"visibility none": func(e *Event) { e.Visibility = "" },
	} {
		e := good
		forge(&e)
		got, err := Apply(head, e)
		if !errors.Is(err, ErrTransition) || !reflect.DeepEqual(got, head) {
			t.Errorf("%s: Apply gives %+v, %v", name, got, err)
		}
	}
	same := good
	same.Checkpoint = &CheckpointRef{N: 1, Epoch: 1, Revision: 5}
	if _, err := Apply(head, same); err != nil {
		t.Errorf("an equal checkpoint at another address is refused: %v", err)
	}
}

func TestNextRefuses(t *testing.T) {
	first := Draft{Type: TypeQueued, AgentKey: "echo", Priority: PriorityNormal, MaxAttempts: 1}
	running, _ := walk(t)
	last := running
	last.Attempt = last.MaxAttempts
	backoff, _ := walk(t, Draft{Type: TypeRetrying, NotBefore: epochStart.Add(time.Hour)})
	queued := Head{RunID: testRun, Seq: 1, Position: Position{AgentKey: "echo", Priority: PriorityLow, Status: StatusPending, MaxAttempts: 1}}
	scheduled := Head{RunID: testRun, Seq: 1, Position: Position{AgentKey: "echo", Priority: PriorityLow, Status: StatusScheduled, MaxAttempts: 1, NotBefore: epochStart.Add(1)}}
	saved, _ := walk(t, Draft{Type: TypeCheckpoint, Checkpoint: &CheckpointRef{N: 2, Epoch: 1, Revision: 9}}, Draft{Type: TypeStarted, WorkerID: "w2"})
	checkpoint := func(n, epoch, revision uint64) func(*Draft) {
		return func(d *Draft) {
			d.Type, d.Checkpoint = TypeCheckpoint, &CheckpointRef{N: n, Epoch: epoch, Revision: revision}
		}
	}
	for _, c := range []struct {
		want  string
		head  Head
		runID string
		d     func(*Draft)
	}{
		{"names no run", Head{}, "x", func(*Draft) {}},
		{"names no agent", Head{}, testRun, func(d *Draft) { d.AgentKey = "a.b" }},
		{`has the priority "urgent"`, Head{}, testRun, func(d *Draft) { d.Priority = "urgent" }},
		{"has no max_attempts", Head{}, testRun, func(d *Draft) { d.MaxAttempts = -1 }},
		{"run.rejected names no agent", Head{}, testRun, func(d *Draft) { d.Type, d.AgentKey = TypeRejected, "a.b" }},
		{"run.rejected has the priority", Head{}, testRun, func(d *Draft) { d.Type, d.Priority = TypeRejected, "x" }},
		{`has the visibility "public"`, running, testRun, func(d *Draft) { d.Type, d.Visibility = TypeDelta, "public" }},
		{"run.started names no worker", running, testRun, func(d *Draft) { d.Type, d.WorkerID = TypeStarted, "events" }},
		{"is attempt 4 of 3", last, testRun, func(d *Draft) { d.Type, d.WorkerID = TypeStarted, "w2" }},
		{"follows the last attempt, 3 of 3", last, testRun, func(d *Draft) { d.Type, d.NotBefore = TypeRetrying, epochStart }},
		{"run.started comes before its time", backoff, testRun, func(d *Draft) { d.Type, d.WorkerID = TypeStarted, "w2" }},
		{"after run " + testRun, running, NewRunID(), func(d *Draft) { d.Type = TypeDelta }},
		{"it is not UTF-8", running, testRun, func(d *Draft) { d.Type, d.Payload = TypeDelta, json.RawMessage("\"\xff\"") }},
		{"unsupported value", running, testRun, func(d *Draft) { d.Type, d.Payload = TypeDelta, math.NaN() }},
		{`assistant.Delta is no event type`, running, testRun, func(d *Draft) { d.Type = "assistant.Delta" }},
		{`* is no event type`, running, testRun, func(d *Draft) { d.Type = "*" }},
		{"run.queued comes before its time", scheduled, testRun, func(*Draft) {}},
		{"run.signalled comes before the first attempt", queued, testRun, func(d *Draft) { d.Type = TypeSignalled }},
		{"names no new checkpoint", saved, testRun, func(d *Draft) { d.Type = TypeCheckpoint }},
		{"names no new checkpoint", saved, testRun, checkpoint(0, 2, 9)},
		{"names no new checkpoint", saved, testRun, checkpoint(2, 2, 9)},
		{"names no new checkpoint", saved, testRun, checkpoint(3, 1, 9)},
		{"names no new checkpoint", saved, testRun, checkpoint(3, 3, 9)},
		{"names no new checkpoint", saved, testRun, checkpoint(3, 2, 0)},
	} {
		d := first
		c.d(&d)
		if e, err := Next(c.head, c.runID, d, epochStart); err == nil || !strings.Contains(err.Error(), c.want) || !reflect.DeepEqual(e, Event{}) {
			t.Errorf("want %q, got %v, %+v", c.want, err, e)
		}
	}
}

func TestNextFillsIn(t *testing.T) {
	running, _ := walk(t)
	for _, c := range []struct {
		payload any
		want    string
	}{{nil, "{}"}, {json.RawMessage(nil), "{}"}, {json.RawMessage(`[1]`), "[1]"}, {Delta{Text: "<&>"}, `{"text":"<&>"}`}} {
		e, err := Next(running, testRun, Draft{Type: "acme.own", Payload: c.payload}, epochStart)
		if err != nil || string(e.Payload) != c.want || e.Visibility != VisibilityUser {
			t.Errorf("%v: got %s, %s, %v", c.payload, e.Payload, e.Visibility, err)
		}
	}
	for _, c := range []struct {
		d    Draft
		want Visibility
	}{
		{Draft{Type: TypeHeartbeat}, VisibilityInternal},
		{Draft{Type: TypeCheckpoint, Checkpoint: &CheckpointRef{N: 1, Epoch: 1, Revision: 1}}, VisibilityInternal},
		{Draft{Type: TypeHeartbeat, Visibility: VisibilityDebug}, VisibilityDebug},
		{Draft{Type: TypeSucceeded}, VisibilityUser},
	} {
		if e, err := Next(running, testRun, c.d, epochStart); err != nil || e.Visibility != c.want {
			t.Errorf("%s: got %s, %v", c.d.Type, e.Visibility, err)
		}
	}
	// The event is what its decoding will be, wherever and whenever it is made.
	here := time.Now().In(time.FixedZone("", 3600))
	e, err := Next(running, testRun, Draft{Type: TypeRetrying, NotBefore: here.Add(time.Minute)}, here)
	if err != nil {
		t.Fatal(err)
	}
	data, err := Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	if decoded, err := DecodeEvent(data); err != nil || !reflect.DeepEqual(decoded, e) {
		t.Errorf("made    %+v\ndecoded %+v, %v", e, decoded, err)
	}
}

// A drain is not charged, a redrive begins anew: with or without the checkpoint.
func TestRoundsAndCharges(t *testing.T) {
	ref := &CheckpointRef{N: 3, Epoch: 1, Revision: 9}
	drained := []Draft{{Type: TypeCheckpoint, Checkpoint: ref}}
	for range 10 { // more often than there are attempts
		drained = append(drained, Draft{Type: TypeRequeued}, Draft{Type: TypeStarted, WorkerID: "w2"})
	}
	head, _ := walk(t, drained...)
	if head.Epoch != 11 || head.Attempt != 1 || head.WorkerID != "w2" || *head.Checkpoint != *ref {
		t.Errorf("after ten drains: %+v", head)
	}
	for _, c := range []struct {
		fromStart bool
		want      *CheckpointRef
	}{{false, ref}, {true, nil}} {
		head, _ := walk(t, append(drained, Draft{Type: TypeStarted, WorkerID: "w3"}, Draft{Type: TypeStarted, WorkerID: "w4"}, Draft{Type: TypeFailed},
			Draft{Type: TypeRequeued, FromStart: c.fromStart})...)
		want := Position{AgentKey: "echo", Priority: PriorityNormal, Status: StatusPending, Epoch: 13, MaxAttempts: 3, Checkpoint: c.want}
		if !reflect.DeepEqual(head.Position, want) {
			t.Errorf("redriven from start %t: %+v, want %+v", c.fromStart, head.Position, want)
		}
	}
}

// A signal ends the wait for it, and no other wait.
func TestSignalled(t *testing.T) {
	later := epochStart.Add(time.Hour)
	sleeping := func(signal string) []Draft {
		return []Draft{{Type: TypeSleeping, NotBefore: later, WaitsFor: signal}}
	}
	for name, c := range map[string]struct {
		before []Draft
		ends   bool
	}{
		"waits for it":           {sleeping("go"), true},
		"waits for any":          {sleeping(AnySignal), true},
		"waits for another":      {sleeping("stop"), false},
		"sleeps":                 {sleeping(""), false},
		"is in backoff":          {[]Draft{{Type: TypeRetrying, NotBefore: later}}, false},
		"waits, its work lost":   {append(sleeping("go"), Draft{Type: TypeRequeued}), true},
		"waits, another came":    {append(sleeping("go"), Signalled{Name: "stop"}.Draft(Head{Position: Position{WaitsFor: "go"}})), true},
		"another, its work lost": {append(sleeping("stop"), Draft{Type: TypeRequeued}), false},
	} {
		head, _ := walk(t, c.before...)
		e, err := Next(head, testRun, Signalled{Name: "go"}.Draft(head), epochStart.Add(time.Minute))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := head.Position
		if c.ends {
			want.NotBefore, want.WaitsFor = time.Time{}, ""
		}
		if !reflect.DeepEqual(e.Position, want) {
			t.Errorf("%s: %+v, want %+v", name, e.Position, want)
		}
	}
}

func TestJoin(t *testing.T) {
	at := func(minutes int, signal string) Sleeping {
		return Sleeping{Name: "x", WakeAt: epochStart.Add(time.Duration(minutes) * time.Minute), Signal: signal}
	}
	for _, c := range []struct{ a, b, want Sleeping }{
		{Sleeping{}, at(1, ""), at(1, "")},
		{Sleeping{}, at(1, "a"), at(1, "a")},
		{at(1, ""), at(2, "a"), at(1, "a")},
		{at(2, "a"), at(1, "b"), at(1, AnySignal)},
		{at(2, AnySignal), at(1, ""), at(1, AnySignal)},
		{at(2, "a"), at(1, "a"), at(1, "a")},
	} {
		if got := c.a.Join(c.b); got != c.want {
			t.Errorf("%+v and %+v: %+v", c.a, c.b, got)
		}
		if got := c.b.Join(c.a); c.a != (Sleeping{}) && got != c.want {
			t.Errorf("%+v and %+v: %+v", c.b, c.a, got)
		}
	}
}
