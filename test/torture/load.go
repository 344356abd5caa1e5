package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/test/cluster"
	"longhaul/test/torture/history"
)

// submitter is a client: it submits, cancels and redrives, by links and a
// connection of its own.
type submitter struct {
	s     *system
	name  string
	rng   *rand.Rand
	talk  *rand.Rand // of conversations, so that all else is as it would be without
	links []*cluster.Link
	nc    *nats.Conn
	js    jetstream.JetStream
	c     *client.Client
	mine  []sent // what may be submitted once more
	ids   int64
}

// sent is a submission of before.
type sent struct {
	submission contracts.Submission
}

const (
	// patience bounds one request of a client. It outlasts a change of leader
	// at times, and at times it does not.
	patience = 6 * time.Second
	// remembered bounds what a client may submit once more.
	remembered = 64
)

// newSubmitter makes client number i.
func (s *system) newSubmitter(i int) (*submitter, error) {
	return s.newClient(fmt.Sprintf("client-%d", i+1), rand.New(rand.NewPCG(s.o.seed, uint64(1000+i))))
}

// newClient makes a client with links of its own. Even with an error the caller
// has to close it.
func (s *system) newClient(name string, rng *rand.Rand) (*submitter, error) {
	c := &submitter{s: s, name: name, rng: rng, talk: rand.New(rand.NewPCG(s.o.seed, seedOf(name)))}
	var err error
	if c.links, err = s.links(); err != nil {
		return c, err
	}
	sv := service{links: c.links}
	if c.nc, err = jsutil.Connect(jsutil.ConnectConfig{URL: cluster.URLs(sv.addrs()), Name: c.name, Retry: true}); err != nil {
		return c, err
	}
	if c.js, err = jsutil.JetStream(c.nc); err != nil {
		return c, err
	}
	c.c, err = client.New(c.nc)
	return c, err
}

func (c *submitter) close() {
	if c.nc != nil {
		c.nc.Close()
	}
	for _, l := range c.links {
		l.Close()
	}
}

// run does one thing after another until ctx ends.
func (c *submitter) run(ctx context.Context) {
	for ctx.Err() == nil {
		// Seldom in step with one another, so that bursts and lulls come.
		if cluster.Sleep(ctx, time.Duration(c.rng.ExpFloat64()*float64(150*time.Millisecond))) != nil {
			return
		}
		// What is under way is allowed to end: an outcome is worth knowing.
		op, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		c.act(op)
		cancel()
	}
}

// act does one thing.
func (c *submitter) act(ctx context.Context) {
	crowded := c.s.book.living() >= c.s.o.crowd
	switch n := c.rng.IntN(100); {
	case n < 12:
		if h, _, ok := c.s.book.any(c.rng, alive); ok {
			c.cancel(ctx, h.RunID)
		}
	case n < 15: // of one that has ended, or that there never was
		id := contracts.NewRunID()
		if h, _, ok := c.s.book.any(c.rng, func(h contracts.Head) bool { return h.Status.Terminal() }); ok && n < 14 {
			id = h.RunID
		}
		c.cancel(ctx, id)
	case n < 23 && !crowded:
		if h, _, ok := c.s.book.any(c.rng, func(h contracts.Head) bool { return h.Status.Terminal() }); ok {
			c.redrive(ctx, h.RunID)
		}
	case n < 30:
		c.garbage(ctx)
	case n < 40 && len(c.mine) > 0:
		c.again(ctx)
	case !crowded:
		c.fresh(ctx)
	}
}

// fresh submits a run that was not submitted before.
func (c *submitter) fresh(ctx context.Context) {
	sub := c.submission()
	more := c.converse(&sub)
	for _, sub := range append([]contracts.Submission{sub}, more...) {
		c.submit(ctx, sub)
		if c.mine = append(c.mine, sent{submission: sub}); len(c.mine) > remembered {
			c.mine = c.mine[1:]
		}
	}
	if c.rng.IntN(20) == 0 { // twice in a moment
		c.submit(ctx, sub)
	}
}

// again submits what was submitted before: as it was, or another body under
// the same id or key.
func (c *submitter) again(ctx context.Context) {
	old := c.mine[c.rng.IntN(len(c.mine))].submission
	if c.rng.IntN(2) == 0 {
		old.Metadata = map[string]string{"again": "yes"}
		old.Priority = contracts.PriorityLow
	}
	c.submit(ctx, old)
}

// submit submits by the client library, and writes down what came of it.
func (c *submitter) submit(ctx context.Context, sub contracts.Submission) {
	if sub.RunID == "" && sub.IdempotencyKey == "" {
		sub.RunID = contracts.NewRunID() // as the library would, but known before
	}
	run := sub.RunID
	if run == "" {
		run = contracts.RunIDFromKey(sub.IdempotencyKey)
	}
	id := c.invoke(history.Entry{Kind: history.KindSubmit, Run: run, Key: sub.IdempotencyKey, Submit: &history.Submit{
		Agent: sub.AgentKey, Priority: string(sub.Priority), NotBefore: sub.NotBefore, StartTimeout: int(sub.StartTimeoutSeconds),
		Timeout: int(sub.TimeoutSeconds), MaxAttempts: sub.MaxAttempts,
		Conversation: sub.ConversationID, OnConflict: string(sub.OnConflict),
	}})
	_, err := c.c.Submit(ctx, sub)
	c.outcome(history.Entry{Kind: history.KindSubmit, ID: id, Run: run, Key: sub.IdempotencyKey}, err)
}

func (c *submitter) cancel(ctx context.Context, run string) {
	id := c.invoke(history.Entry{Kind: history.KindCancel, Run: run})
	err := c.c.Cancel(ctx, run, contracts.CancelCommand{Reason: "torture", By: c.name})
	c.outcome(history.Entry{Kind: history.KindCancel, ID: id, Run: run}, err)
}

func (c *submitter) redrive(ctx context.Context, run string) {
	id := c.invoke(history.Entry{Kind: history.KindRedrive, Run: run})
	err := c.c.Redrive(ctx, run, contracts.RedriveCommand{By: c.name, FromStart: c.rng.IntN(3) == 0})
	c.outcome(history.Entry{Kind: history.KindRedrive, ID: id, Run: run}, err)
}

// garbage publishes what breaks a rule, by no library.
func (c *submitter) garbage(ctx context.Context) {
	run := contracts.NewRunID()
	bodies := []string{
		`{"run_id":"` + run + `","agent_key":"nobody-knows-it"}`,
		`{"run_id":"` + run + `","agent_key":"steady","surprise":1}`,
		`{"run_id":"` + run + `","agent_key":"steady","max_attempts":-1,"timeout_seconds":-2}`,
		`{"run_id":"` + run + `","agent_key":"steady","metadata":{"k":"` + strings.Repeat("v", 2000) + `"}}`,
		`{"run_id":"no id","agent_key":"steady"}`,
		`{"agent_key":`,
		"\x00\xff not JSON",
		``,
	}
	n := c.rng.IntN(len(bodies))
	if n >= 4 {
		run = "" // nobody can read one out of it
	}
	id := c.invoke(history.Entry{Kind: history.KindSubmit, Run: run, Submit: &history.Submit{Garbage: true}})
	ack, err := c.js.Publish(ctx, contracts.SubjectSubmit, []byte(bodies[n]), jetstream.WithExpectStream(contracts.StreamInbox))
	e := history.Entry{Kind: history.KindSubmit, ID: id, Run: run}
	if err == nil {
		e.Submit = &history.Submit{Garbage: true, InboxSeq: ack.Sequence, Duplicate: ack.Duplicate}
	}
	c.outcome(e, jsutil.Translate(err))
}

func (c *submitter) invoke(e history.Entry) int64 {
	c.ids++
	e.Op, e.ID = history.OpInvoke, c.ids
	c.write(e)
	return e.ID
}

// outcome writes down what came of an operation. Only what was refused before
// it was sent, or by the broker itself, has failed for certain.
func (c *submitter) outcome(e history.Entry, err error) {
	var faults contracts.Faults
	switch {
	case err == nil:
		e.Op = history.OpOK
	case errors.As(err, &faults) || errors.Is(err, jsutil.ErrRefused):
		e.Op, e.Error = history.OpFail, err.Error()
	default:
		e.Op, e.Error = history.OpUnknown, err.Error()
	}
	c.write(e)
}

func (c *submitter) write(e history.Entry) {
	e.Actor = c.name
	c.s.write(e)
}

// startLoad starts the clients; the returned function waits for them after
// ctx has ended.
func (s *system) startLoad(ctx context.Context) (wait func(), err error) {
	var all sync.WaitGroup
	start := func(c *submitter, err error, run func(context.Context, *submitter)) error {
		if err != nil {
			c.close()
			return err
		}
		s.mu.Lock()
		s.clients = append(s.clients, c)
		s.mu.Unlock()
		all.Go(func() {
			defer c.close()
			run(ctx, c)
		})
		return nil
	}
	for i := range s.o.clients {
		c, err := s.newSubmitter(i)
		if err := start(c, err, func(ctx context.Context, c *submitter) { c.run(ctx) }); err != nil {
			return all.Wait, err
		}
	}
	for i, tracks := range tracksFor(racers, s.o.duration) {
		c, err := s.newRacer(i)
		if err := start(c, err, func(ctx context.Context, c *submitter) { c.race(ctx, tracks) }); err != nil {
			return all.Wait, err
		}
	}
	return all.Wait, nil
}

// submission is a run of one of all kinds.
func (c *submitter) submission() contracts.Submission {
	sub := contracts.Submission{AgentKey: agentSteady, Metadata: map[string]string{"by": c.name}}
	a := c.part(&sub)
	sub.Input.Params, _ = json.Marshal(a) // numbers, texts and bools: it cannot fail
	switch n := c.rng.IntN(10); {
	case n < 2:
		sub.Priority = contracts.PriorityHigh
	case n < 4:
		sub.Priority = contracts.PriorityLow
	}
	if c.rng.IntN(8) == 0 {
		sub.NotBefore = time.Now().Add(time.Duration(c.rng.IntN(6000)) * time.Millisecond).UTC()
	}
	if c.rng.IntN(12) == 0 {
		sub.StartTimeoutSeconds = float64(1 + c.rng.IntN(4))
	}
	if c.rng.IntN(4) == 0 {
		sub.IdempotencyKey = fmt.Sprintf("%s/%d/%d", c.name, c.s.o.seed, c.rng.Uint64())
	}
	return sub
}

// part is what the run is to do.
func (c *submitter) part(sub *contracts.Submission) act {
	roll := func(from, to int) int { return from + c.rng.IntN(to-from+1) }
	switch n := c.rng.IntN(100); {
	case n < 30: // short
		return act{Steps: roll(0, 2), PauseMS: roll(0, 30)}
	case n < 50: // long, resumed where it was
		return act{Steps: roll(4, 20), PauseMS: roll(20, 250), Save: true, Deltas: roll(0, 2), Bytes: roll(0, 6000)}
	case n < 60: // remembers its steps, and sleeps between them without a worker
		a := act{Steps: roll(1, 6), PauseMS: roll(10, 150), Durable: true, Attempts: roll(0, 2), Wrong: wrongFail, At: roll(1, 4)}
		if c.rng.IntN(2) == 0 {
			a.SleepMS = roll(100, 4000)
		}
		return a
	case n < 70:
		sub.AgentKey = agentStream
		return act{Steps: roll(2, 10), PauseMS: roll(0, 50), Deltas: roll(20, 120), Save: c.rng.IntN(2) == 0}
	}
	sub.AgentKey = agentRough
	a := act{Steps: roll(1, 5), PauseMS: roll(10, 150), Save: c.rng.IntN(2) == 0, Attempts: roll(1, 3)}
	a.At = roll(0, a.Steps)
	switch n := c.rng.IntN(100); {
	case n < 35:
		a.Wrong = wrongFail
	case n < 50:
		a.Wrong = wrongPermanent
	case n < 65:
		a.Wrong = wrongPanic
	case n < 67:
		a.Wrong = wrongExit
		sub.MaxAttempts = roll(1, 3)
	case n < 85: // ignores that it is to end
		a.Deaf, a.Steps, a.PauseMS = true, roll(1, 3), roll(500, 2000)
		sub.TimeoutSeconds = float64(roll(1, 4))
	default: // sleeps past its time
		a.Steps, a.PauseMS = 1, roll(500, 6000)
		sub.TimeoutSeconds = float64(roll(1, 4))
	}
	return a
}

// loaders are the clients that have been started.
func (s *system) loaders() []*submitter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clients
}
