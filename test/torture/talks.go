package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"

	"longhaul/pkg/contracts"
)

const (
	// talksAtOnce is how many conversations there are at a time, for all clients together.
	talksAtOnce = 4
	// talkLength is how many runs one gets at most; then another one takes its place.
	talkLength = 12
	// talkCrowd bounds the runs of one that have not ended, for they wait for one
	// another, and all have to end within settle.
	talkCrowd = 3
	// historyLimit is how many messages of it a run is given: so few that they are cut.
	historyLimit = 7
)

// talks are the conversations that go on.
type talks struct {
	mu   sync.Mutex
	all  [talksAtOnce]talk
	made int
}

// talk is a conversation.
type talk struct {
	id   string
	runs []string
}

// join adds a run to a conversation by chance; "" if that has enough that live.
// Who is not known to have ended counts as living; should it never come, the
// conversation is given up some time.
func (t *talks) join(rng *rand.Rand, run string, ended func(run string) bool) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := &t.all[rng.IntN(len(t.all))]
	live := 0
	for _, r := range c.runs {
		if !ended(r) {
			live++
		}
	}
	if c.id == "" || len(c.runs) >= talkLength || live >= talkCrowd && rng.IntN(8) == 0 {
		t.made++
		*c = talk{id: fmt.Sprintf("talk-%d", t.made)}
	} else if live >= talkCrowd {
		return ""
	}
	c.runs = append(c.runs, run)
	return c.id
}

// more adds a run to a conversation that goes on, however many live.
func (t *talks) more(id, run string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.all {
		if c := &t.all[i]; c.id == id {
			c.runs = append(c.runs, run)
		}
	}
}

// converse makes some submissions runs of conversations, and shorter than they
// may be: the next one waits for it. It returns others that are to be submitted
// in the same moment, so that dispatchers meet.
func (c *submitter) converse(sub *contracts.Submission) (more []contracts.Submission) {
	if c.talk.IntN(4) > 0 {
		return nil
	}
	run := contracts.NewRunID()
	if sub.IdempotencyKey != "" {
		run = contracts.RunIDFromKey(sub.IdempotencyKey)
	} else {
		sub.RunID = run
	}
	sub.ConversationID = c.s.talks.join(c.talk, run, func(run string) bool { return c.s.book.head(run).Status.Terminal() })
	if sub.ConversationID == "" {
		return nil
	}
	c.speak(sub, run)
	if c.talk.IntN(3) == 0 {
		for range 1 + c.talk.IntN(3) {
			next := contracts.Submission{RunID: contracts.NewRunID(), ConversationID: sub.ConversationID, Metadata: sub.Metadata}
			c.s.talks.more(next.ConversationID, next.RunID)
			c.speak(&next, next.RunID)
			more = append(more, next)
		}
	}
	return more
}

// speak says what a run of a conversation is to do there.
func (c *submitter) speak(sub *contracts.Submission, run string) {
	sub.AgentKey, sub.TimeoutSeconds, sub.MaxAttempts = agentKeys()[c.talk.IntN(len(agentKeys()))], 0, 0
	sub.Input.Messages = []contracts.Message{contracts.Text(contracts.RoleUser, "what of "+run+"?")}
	sub.Input.Params, _ = json.Marshal(c.remark()) // numbers, texts and bools: it cannot fail
	// Who is refused for a conflict has no key: under that another run may come.
	switch n := c.talk.IntN(20); {
	case n < 2:
		sub.OnConflict = contracts.OnConflictInterrupt
	case n < 4 && sub.IdempotencyKey == "" && sub.NotBefore.IsZero():
		sub.OnConflict = contracts.OnConflictReject
	}
}

// remark is what a run of a conversation is to do.
func (c *submitter) remark() act {
	roll := func(from, to int) int { return from + c.talk.IntN(to-from+1) }
	a := act{Asks: 1, Steps: roll(0, 3), PauseMS: roll(0, 150), Save: c.talk.IntN(3) == 0, Attempts: 1}
	switch n := c.talk.IntN(100); {
	case n < 60:
		a.Says = saysAll
	case n < 75:
		a.Says = saysTools
	case n < 85:
		a.Says = saysOwn
	}
	a.At = roll(0, a.Steps)
	switch n := c.talk.IntN(100); {
	case n < 15:
		a.Wrong = wrongFail
	case n < 30:
		a.Wrong, a.Attempts = wrongPermanent, roll(1, 3)
	case n < 35:
		a.Wrong = wrongPanic
	case n < 45:
		a.Steps, a.Durable, a.SleepMS = 2, true, roll(100, 1000)
	case n < 55: // others come meanwhile
		a.Steps, a.PauseMS = 5, roll(200, 400)
	}
	return a
}
