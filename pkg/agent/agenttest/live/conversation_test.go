package live_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest/live"
	"longhaul/pkg/contracts"
)

// parrot answers with how many messages it was given. It notes which runs it
// has in hand, and does what a run's message says.
type parrot struct {
	mu     sync.Mutex
	inHand map[string]string // by conversation
	seen   map[string][]string
	fault  string
	begun  chan string
}

func newParrot() *parrot {
	return &parrot{inHand: map[string]string{}, seen: map[string][]string{}, begun: make(chan string, 100)}
}

func (p *parrot) run(ctx context.Context, run *agent.Run) (agent.Result, error) {
	p.mu.Lock()
	if other := p.inHand[run.ConversationID]; other != "" && run.ConversationID != "" {
		p.fault = fmt.Sprintf("runs %s and %s of a conversation at once", other, run.ID)
	}
	p.inHand[run.ConversationID] = run.ID
	var said []string
	for _, m := range run.Messages {
		said = append(said, m.Text())
	}
	p.seen[run.ID] = append(p.seen[run.ID], strings.Join(said, " "))
	p.mu.Unlock()
	p.begun <- run.ID
	defer func() {
		p.mu.Lock()
		p.inHand[run.ConversationID] = ""
		p.mu.Unlock()
	}()
	word := run.Messages[len(run.Messages)-1].Text()
	switch {
	case word == "hang":
		<-ctx.Done()
		return agent.Result{}, context.Cause(ctx)
	case word == "fail":
		return agent.Result{}, agent.Permanent(errors.New("no"))
	case strings.HasPrefix(word, "retry") && run.Attempt == 1:
		return agent.Result{}, errors.New("once more")
	case word == "quiet":
		return agent.Result{}, nil
	case word == "sleep":
		return agent.Result{}, agent.Sleep(ctx, run, "long", time.Hour)
	case word == "wait":
		_, err := agent.Wait(ctx, run, "never", time.Hour)
		return agent.Result{}, err
	case strings.HasPrefix(word, "redrive") && run.Epoch == 1:
		return agent.Result{}, agent.Permanent(errors.New("not in this round"))
	}
	answer := contracts.Text(contracts.RoleAssistant, fmt.Sprint(len(run.Messages)))
	return agent.Result{FinalMessages: append(run.Messages[:len(run.Messages):len(run.Messages)], answer)}, nil
}

func say(t *testing.T, s *live.Stage, conversation, word string, onConflict contracts.OnConflict) string {
	t.Helper()
	id, err := s.Client.Submit(t.Context(), contracts.Submission{AgentKey: "parrot", ConversationID: conversation, OnConflict: onConflict,
		Input: contracts.Input{Messages: []contracts.Message{contracts.Text(contracts.RoleUser, word)}}})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Runs of a conversation are executed one after the other, in the order of their
// submission, and each is given what was said before it, in every attempt. One
// that fails, says nothing or never begins leaves the history as it was.
func TestConversation(t *testing.T) {
	p := newParrot()
	stage := live.Start(t, agent.Agent{Key: "parrot", Run: p.run})
	var runs []string
	words := []string{"a", "fail", "b", "quiet", "retry", "c"}
	for _, word := range words {
		for _, conversation := range []string{"one", "two"} {
			runs = append(runs, say(t, stage, conversation, word, ""))
		}
	}
	want := [][]string{{"a"}, {"a 1 fail"}, {"a 1 b"}, {"a 1 b 3 quiet"}, {"a 1 b 3 retry", "a 1 b 3 retry"}, {"a 1 b 3 retry 5 c"}}
	for i, id := range runs {
		o, err := stage.Client.Wait(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		p.mu.Lock()
		if got := p.seen[id]; fmt.Sprint(got) != fmt.Sprint(want[i/2]) {
			t.Errorf("run %d, %s (%s), was given %q, want %q", i, words[i/2], o.Status, got, want[i/2])
		}
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault != "" {
		t.Error(p.fault)
	}
}

// One run is interrupted by the next one, and waiting ones with it; the next one
// begins when they have ended, with the history from before.
func TestConversationIsInterrupted(t *testing.T) {
	p := newParrot()
	stage := live.Start(t, agent.Agent{Key: "parrot", Run: p.run})
	first, hangs := say(t, stage, "one", "a", ""), say(t, stage, "one", "hang", "")
	for <-p.begun != hangs {
	}
	waits := say(t, stage, "one", "b", "")
	refused := say(t, stage, "one", "c", contracts.OnConflictReject)
	last := say(t, stage, "one", "d", contracts.OnConflictInterrupt)
	for id, want := range map[string]contracts.Status{first: contracts.StatusSucceeded, hangs: contracts.StatusCancelled,
		waits: contracts.StatusCancelled, refused: contracts.StatusRejected, last: contracts.StatusSucceeded} {
		if o, err := stage.Client.Wait(t.Context(), id); err != nil || o.Status != want {
			t.Errorf("run %s is %s, want %s, %v", id, o.Status, want, err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := fmt.Sprint(p.seen[last]); got != "[a 1 d]" || p.fault != "" {
		t.Errorf("the last run was given %s; %s", got, p.fault)
	}
}

// What is interrupted may be held by nobody: while it sleeps, and while it waits for a signal.
func TestConversationIsInterruptedWhileNobodyHoldsIt(t *testing.T) {
	p := newParrot()
	stage := live.Start(t, agent.Agent{Key: "parrot", Run: p.run})
	for _, word := range []string{"sleep", "wait"} {
		first, lies := say(t, stage, word, "a", ""), say(t, stage, word, word, "")
		for <-p.begun != lies {
		}
		for status := contracts.StatusRunning; status != contracts.StatusPending; {
			head, err := stage.Client.Head(t.Context(), lies)
			if err != nil {
				t.Fatal(err)
			}
			status = head.Status
		}
		last := say(t, stage, word, "b", contracts.OnConflictInterrupt)
		for id, want := range map[string]contracts.Status{first: contracts.StatusSucceeded, lies: contracts.StatusCancelled, last: contracts.StatusSucceeded} {
			if o, err := stage.Client.Wait(t.Context(), id); err != nil || o.Status != want {
				t.Errorf("%s: run %s is %s, want %s, %v", word, id, o.Status, want, err)
			}
		}
		p.mu.Lock()
		if got := fmt.Sprint(p.seen[last]); got != "[a 1 b]" || p.fault != "" {
			t.Errorf("%s: the last run was given %s; %s", word, got, p.fault)
		}
		p.mu.Unlock()
	}
}

// A run that is redriven, in a conversation that has gone on, begins with what it
// began with; what comes of it is not in what is said next.
func TestConversationOfARedrivenRun(t *testing.T) {
	p := newParrot()
	stage := live.Start(t, agent.Agent{Key: "parrot", Run: p.run})
	var ids []string
	wait := func(id string, want contracts.Status) {
		t.Helper()
		if o, err := stage.Client.Wait(t.Context(), id); err != nil || o.Status != want {
			t.Fatalf("run %s is %s, want %s, %v", id, o.Status, want, err)
		}
	}
	for _, word := range []string{"a", "redrive", "b"} {
		ids = append(ids, say(t, stage, "one", word, ""))
	}
	wait(ids[1], contracts.StatusFailed)
	wait(ids[2], contracts.StatusSucceeded)
	head, err := stage.Client.Head(t.Context(), ids[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := stage.Client.Redrive(t.Context(), ids[1], contracts.RedriveCommand{FromStart: true}); err != nil {
		t.Fatal(err)
	}
	if o, err := stage.Client.WaitFrom(t.Context(), ids[1], head.Seq+1); err != nil || o.Status != contracts.StatusSucceeded {
		t.Fatalf("the redriven run is %s, %v", o.Status, err)
	}
	last := say(t, stage, "one", "c", "")
	wait(last, contracts.StatusSucceeded)
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := fmt.Sprint(p.seen[ids[1]]); got != "[a 1 redrive a 1 redrive]" {
		t.Errorf("the redriven run was given %s", got)
	}
	if got := fmt.Sprint(p.seen[last]); got != "[a 1 b 3 c]" {
		t.Errorf("the last run was given %s", got)
	}
}

// Ten turns that are submitted at once come in their order, each after the one before it.
func TestConversationOfTenTurns(t *testing.T) {
	p := newParrot()
	stage := live.Start(t, agent.Agent{Key: "parrot", Run: p.run})
	var last, want string
	for i := range 10 {
		word := string(rune('a' + i))
		last = say(t, stage, "one", word, "")
		want += fmt.Sprintf("%s %d ", word, 2*i+1)
	}
	o, err := stage.Client.Wait(t.Context(), last)
	if err != nil || o.Status != contracts.StatusSucceeded {
		t.Fatal(o.Status, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := p.seen[last][0] + " 19 "; got != want || p.fault != "" {
		t.Errorf("the last one was given %q, want %q; %s", got, want, p.fault)
	}
}
