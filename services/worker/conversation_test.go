package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

func talk(roles string) (messages []contracts.Message) {
	for i, r := range strings.Fields(roles) {
		role := map[string]string{"u": contracts.RoleUser, "s": contracts.RoleSystem, "a": contracts.RoleAssistant, "t": contracts.RoleTool}[r]
		messages = append(messages, contracts.Text(role, fmt.Sprint(i)))
	}
	return messages
}

// A history is cut at its limit and before an answer whose question is lost.
func TestNewest(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		roles string
		limit int
		want  int // messages that are left
	}{
		{"", 3, 0}, {"u a", 3, 2}, {"u a u a", 3, 2}, {"u a t a u a", 5, 2}, {"u a t a u a", 6, 6}, {"s u a", 3, 3}, {"t t t", 3, 0}, {"u a u", 1, 1},
	} {
		w := &Worker{nc: b.NC, cfg: Config{HistoryLimit: c.limit}}
		all := talk(c.roles)
		got := w.newest(all)
		if len(got) != c.want || c.want > 0 && got[len(got)-1].Text() != all[len(all)-1].Text() {
			t.Errorf("%q, limit %d: %d are left, want %d", c.roles, c.limit, len(got), c.want)
		}
	}
	w := &Worker{nc: b.NC, cfg: Config{HistoryLimit: 100}}
	large := append(talk("u a"), contracts.Text(contracts.RoleUser, strings.Repeat("x", w.payloadLimit()/3)), contracts.Text(contracts.RoleUser, strings.Repeat("y", w.payloadLimit()/4)))
	if got := w.newest(large); len(got) != 1 {
		t.Errorf("of what does not fit %d are left, want 1", len(got))
	}
}

// Of one loop of tools that is longer than the limit the question and its answer are left.
func TestGist(t *testing.T) {
	b := newBench(t)
	call := contracts.Message{Role: contracts.RoleAssistant, ToolCalls: []contracts.ToolCall{{ID: "1", Type: "function"}}}
	loop := talk("u a u")
	for range 5 {
		loop = append(loop, call, contracts.Text(contracts.RoleTool, "found"))
	}
	for _, c := range []struct {
		end   []contracts.Message
		limit int
		want  string
	}{
		{talk("a"), 4, "[2 0]"}, {nil, 4, "[2]"}, {talk("a"), 1, "[]"},
		{[]contracts.Message{contracts.Text(contracts.RoleAssistant, strings.Repeat("x", 1<<20))}, 4, "[]"},
	} {
		w := &Worker{nc: b.NC, cfg: Config{HistoryLimit: c.limit}}
		texts := []string{}
		for _, m := range w.newest(append(slices.Clone(loop), c.end...)) {
			texts = append(texts, m.Text())
		}
		if got := fmt.Sprint(texts); got != c.want {
			t.Errorf("limit %d: %.60s is left, want %s", c.limit, got, c.want)
		}
	}
}

// follower is a work message of a run that follows another one.
func (b *bench) follower(t *testing.T, s contracts.Submission, follows string, queued time.Time) string {
	t.Helper()
	s.RunID, s.AgentKey, s.Priority, s.MaxAttempts, s.ConversationID = contracts.NewRunID(), "talks", contracts.PriorityNormal, 3, "c1"
	e, err := contracts.Next(contracts.Head{}, s.RunID, contracts.Draft{Type: contracts.TypeQueued, AgentKey: s.AgentKey, Priority: s.Priority,
		MaxAttempts: s.MaxAttempts, Payload: contracts.Queued{Submission: s, Follows: follows}}, queued)
	if err != nil {
		t.Fatal(err)
	}
	at, err := b.runs.Append(t.Context(), runlog.Head{}, e)
	if err != nil {
		t.Fatal(err)
	}
	body, err := contracts.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	b.publishWork(t, s, body, at.Sequence)
	return s.RunID
}

// A leader that is behind may know of a delayed run that it was scheduled, but not that
// it was queued, nor of the run before it: that has not been removed.
func TestFollowerOfALeaderThatIsBehind(t *testing.T) {
	b := newBench(t)
	w, err := New(b.Connect(t), Config{Agents: []agent.Agent{{Key: "echo", Run: echo}}, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	id := contracts.NewRunID()
	e := mustNext(t, contracts.Head{}, id, contracts.Draft{
		Type: contracts.TypeScheduled, AgentKey: "echo", Priority: contracts.PriorityNormal, MaxAttempts: 1, NotBefore: time.Now(),
	})
	if _, err := b.runs.Append(t.Context(), runlog.Head{}, e); err != nil {
		t.Fatal(err)
	}
	at := e.Head()
	wk := &work{worker: w, follows: contracts.NewRunID()}
	if history, turn, err := w.history(t.Context(), wk, at); !turn || err != nil {
		t.Errorf("all that its work message knows is there: %v, %v, %v", history, turn, err)
	}
	at.Seq++ // run.queued, which is not there yet
	if history, _, err := w.history(t.Context(), wk, at); !errors.Is(err, jsutil.ErrUnavailable) {
		t.Errorf("it begins with %v, %v", history, err)
	}
}

// A run waits for the one before it, and does not take a slot meanwhile. One
// that was removed is not waited for.
func TestFollower(t *testing.T) {
	b := newBench(t)
	given := make(chan string, 10)
	b.start(t, Config{Concurrency: 1, Agents: []agent.Agent{
		{Key: "echo", Run: echo},
		{Key: "talks", Run: func(_ context.Context, run *agent.Run) (agent.Result, error) {
			var texts []string
			for _, m := range run.Messages {
				texts = append(texts, m.Text())
			}
			given <- strings.Join(texts, " ")
			return agent.Result{}, nil
		}},
	}})
	input := contracts.Submission{Input: contracts.Input{Messages: []contracts.Message{contracts.Text(contracts.RoleUser, "now")}}}
	b.waitForEnd(t, b.follower(t, input, contracts.NewRunID(), time.Now()))
	if got := <-given; got != "now" {
		t.Errorf("after a run that was removed: %q", got)
	}

	first, second, third := contracts.NewRunID(), "", ""
	at := runlog.Head{}
	for i, d := range []contracts.Draft{
		{Type: contracts.TypeQueued, AgentKey: "talks", Priority: contracts.PriorityNormal, MaxAttempts: 1},
		{Type: contracts.TypeStarted, WorkerID: "w-1", Payload: contracts.Started{History: talk("u a")}},
		{Type: contracts.TypeHeartbeat},
		{Type: contracts.TypeFailed},
	} {
		e := mustNext(t, at.Head, first, d)
		var err error
		if at, err = b.runs.Append(t.Context(), at, e); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			second = b.follower(t, input, first, time.Now())
			third = b.follower(t, input, second, time.Now())
		}
		if i < 3 {
			b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "echo"})) // time to begin too early
		}
		if last, err := b.runs.Last(t.Context(), second); i < 3 && (err != nil || last.Epoch > 0) {
			t.Errorf("it began while the run before it was %s, %v", at.Status, err)
		}
	}
	for _, id := range []string{second, third} {
		all := b.waitForEnd(t, id)
		if got := <-given; got != "0 1 now" { // what the one before had begun with
			t.Errorf("given %q", got)
		}
		if p := payload[contracts.Started](t, all[1]); len(p.History) != 2 {
			t.Errorf("run.started has %+v", p.History)
		}
	}
}

// A run that was cancelled before its time, redriven and cancelled once more
// never began: who follows it waits for the run that it followed.
func TestFollowerOfARunThatWasNeverQueued(t *testing.T) {
	b := newBench(t)
	w, err := New(b.Connect(t), Config{Agents: []agent.Agent{{Key: "echo", Run: echo}}, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	write := func(at runlog.Head, runID string, drafts ...contracts.Draft) runlog.Head {
		for _, d := range drafts {
			if at, err = b.runs.Append(t.Context(), at, mustNext(t, at.Head, runID, d)); err != nil {
				t.Fatal(err)
			}
		}
		return at
	}
	redriven := func(follows string) contracts.Draft {
		return contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueRedrive, Follows: follows}}
	}
	cancelled := contracts.Draft{Type: contracts.TypeCancelled}
	first, unqueued, last := contracts.NewRunID(), contracts.NewRunID(), contracts.NewRunID()
	at := write(runlog.Head{}, first, contracts.Draft{Type: contracts.TypeQueued, AgentKey: "echo", Priority: contracts.PriorityNormal, MaxAttempts: 1},
		contracts.Draft{Type: contracts.TypeStarted, WorkerID: "w-1", Payload: contracts.Started{}})
	write(runlog.Head{}, unqueued, contracts.Draft{Type: contracts.TypeScheduled, AgentKey: "echo", Priority: contracts.PriorityNormal, MaxAttempts: 1, NotBefore: time.Now()},
		cancelled, redriven(contracts.NewRunID()), cancelled, redriven(first), cancelled)
	head := write(runlog.Head{}, last, contracts.Draft{Type: contracts.TypeQueued, AgentKey: "echo", Priority: contracts.PriorityNormal, MaxAttempts: 1,
		Payload: contracts.Queued{Follows: unqueued}})
	wk := work{follows: unqueued, submission: contracts.Submission{ConversationID: "c1"}}
	if history, turn, err := w.history(t.Context(), &wk, head.Head); err != nil || turn {
		t.Errorf("while the first one goes on: %v, %v, %v", history, turn, err)
	}
	write(at, first, contracts.Draft{Type: contracts.TypeSucceeded, Payload: contracts.Succeeded{FinalMessages: talk("u a")}})
	if history, turn, err := w.history(t.Context(), &wk, head.Head); err != nil || !turn || len(history) != 2 {
		t.Errorf("behind the first one: %v, %v, %v", history, turn, err)
	}
}

// It is asked for the run itself first. Asked for that behind the other one, it
// may have caught up in between.
func TestFollowerAsksForItselfFirst(t *testing.T) {
	b := newBench(t)
	w, err := New(b.Connect(t), Config{Agents: []agent.Agent{{Key: "echo", Run: echo}}, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	spy := b.Connect(t)
	asked, err := spy.SubscribeSync("$JS.API.STREAM.MSG.GET." + contracts.StreamLog)
	if err := errors.Join(err, spy.Flush()); err != nil {
		t.Fatal(err)
	}
	itself, before := contracts.NewRunID(), contracts.NewRunID()
	wk := work{follows: before, submission: contracts.Submission{ConversationID: "c1"}}
	if _, _, err := w.history(t.Context(), &wk, contracts.Head{RunID: itself}); !errors.Is(err, jsutil.ErrNotFound) {
		t.Error(err)
	}
	for _, want := range []string{itself, before} {
		m, err := asked.NextMsg(5 * time.Second)
		if err != nil || !strings.Contains(string(m.Data), want) {
			t.Fatalf("%v, asked for %s, want run %s", err, m.Data, want)
		}
	}
}

// A leader that does not know of the run before one may be a new one that is
// behind: it is believed only if it knows of the run itself.
func TestFollowerOfARunThatTheLeaderDoesNotKnowYet(t *testing.T) {
	b := newBench(t)
	w, err := New(b.Connect(t), Config{Agents: []agent.Agent{{Key: "echo", Run: echo}}, Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	wk := work{follows: contracts.NewRunID(), submission: contracts.Submission{ConversationID: "c1"}}
	if _, _, err := w.history(t.Context(), &wk, contracts.Head{RunID: contracts.NewRunID()}); !errors.Is(err, jsutil.ErrNotFound) {
		t.Errorf("of a leader that knows of neither: %v", err)
	}
	known := b.submit(t, contracts.Submission{AgentKey: "echo"})
	if history, turn, err := w.history(t.Context(), &wk, contracts.Head{RunID: known}); err != nil || !turn || len(history) > 0 {
		t.Errorf("of a run that was removed: %v, %v, %v", history, turn, err)
	}
}

// Who has waited for long is looked at less often, and yet often enough.
func TestTurnPause(t *testing.T) {
	for waited, want := range map[time.Duration]time.Duration{-time.Hour: 100 * time.Millisecond, 0: 100 * time.Millisecond,
		4 * time.Second: 500 * time.Millisecond, time.Hour: 2 * time.Second} {
		if got := turnPause(waited); got != want {
			t.Errorf("after %v: %v, want %v", waited, got, want)
		}
	}
}
