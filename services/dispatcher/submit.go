package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// submitter takes submissions in. Its fast lane is three stages, each a
// goroutine that works in the order of the inbox and waits for no answer that
// the stage after it could wait for: accept sends run.queued, post awaits it
// and sends the work message, settle awaits that and acks. So the rate does
// not hang on the round trips, and work is queued in the order of the inbox.
// Whatever needs a question asked first leaves the fast lane (admit.go).
type submitter struct {
	handler
	agents        *agents
	acceptUnknown bool
	lane          *lane
	queued        chan *item // their run.queued is under way
	posted        chan *item // so is their work message
}

// item is one submission on its way. One goroutine at a time has it.
type item struct {
	*jsutil.Delivery
	sub      contracts.Submission // after read always with a valid run id
	appended *runlog.Pending
	work     jetstream.PubAckFuture
	sent     time.Time // when the last of the two was
}

func newSubmitter(h handler, a *agents, cfg Config) *submitter {
	return &submitter{
		handler: h, agents: a, acceptUnknown: cfg.AcceptUnknownAgents, lane: newLane(cfg.Concurrency),
		queued: make(chan *item, cfg.Prefetch), posted: make(chan *item, cfg.Prefetch),
	}
}

// run handles what take hands it until take returns, and waits for all of it.
func (s *submitter) run(ctx context.Context, take func(handle func(*jsutil.Delivery))) {
	var stages sync.WaitGroup
	stages.Go(func() {
		defer close(s.posted)
		for it := range s.queued {
			s.post(ctx, it)
		}
	})
	stages.Go(func() {
		for it := range s.posted {
			s.settle(ctx, it)
		}
	})
	take(func(m *jsutil.Delivery) { s.accept(ctx, m) })
	close(s.queued)
	stages.Wait()
	s.lane.wait()
}

// accept is the first stage.
func (s *submitter) accept(ctx context.Context, m *jsutil.Delivery) {
	it := &item{Delivery: m}
	if faults := it.read(); len(faults) > 0 {
		s.aside(ctx, it, func(ctx context.Context, it *item) error { return s.refuse(ctx, it, faults) })
		return
	}
	rec, known := s.agents.cached(it.sub.AgentKey)
	if !known && !s.acceptUnknown || it.sub.IdempotencyKey != "" || it.delayed() {
		s.aside(ctx, it, s.admit)
		return
	}
	complete(&it.sub, rec)
	var err error
	if it.appended, err = s.appendQueued(it); err != nil {
		s.aside(ctx, it, func(ctx context.Context, it *item) error { return s.oversized(ctx, it, err) })
		return
	}
	it.sent = time.Now()
	s.queued <- it
}

// read decodes the submission and settles its run id.
func (it *item) read() contracts.Faults {
	data := it.Data
	sub, faults := contracts.DecodeSubmission(data)
	if len(faults) > 0 {
		// Of a bad one only what can be trusted is kept.
		sub = contracts.Submission{AgentKey: sub.AgentKey}
		sub.RunID, sub.IdempotencyKey = contracts.PeekSubmission(data)
	}
	switch {
	case sub.RunID != "":
	case sub.IdempotencyKey != "":
		sub.RunID = contracts.RunIDFromKey(sub.IdempotencyKey)
	default:
		sub.RunID = contracts.RunIDFromInbox(it.Sequence, it.Stored)
	}
	it.sub = sub
	return faults
}

// delayed reports whether the run must not start yet.
func (it *item) delayed() bool { return it.sub.NotBefore.After(time.Now()) }

// appendQueued sends the first event of a run that may start at once.
func (s *submitter) appendQueued(it *item) (*runlog.Pending, error) {
	event, err := contracts.Next(contracts.Head{}, it.sub.RunID, contracts.Draft{
		Type: contracts.TypeQueued, AgentKey: it.sub.AgentKey, Priority: it.sub.Priority, MaxAttempts: it.sub.MaxAttempts,
		Payload: contracts.Queued{Submission: it.sub, SubmittedAt: it.Stored.UTC()},
	}, time.Now())
	if err != nil {
		return nil, fmt.Errorf("queue the run: %w", err)
	}
	return s.log.AppendAsync(runlog.Head{}, event)
}

// post is the second stage.
func (s *submitter) post(ctx context.Context, it *item) {
	head, err := s.await(ctx, it)
	if errors.Is(err, jsutil.ErrConflict) {
		s.aside(ctx, it, s.resume)
		return
	}
	if err == nil {
		it.work, err = s.broker.js.PublishMsgAsync(workMessage(head.Head, it.appended.Data(), head.Sequence))
	}
	if err != nil {
		s.finish(it.Delivery, translate("queue the run", err), "run_id", it.sub.RunID)
		return
	}
	it.sent = time.Now()
	s.posted <- it
}

func (s *submitter) await(ctx context.Context, it *item) (runlog.Head, error) {
	ctx, cancel := context.WithDeadline(ctx, it.sent.Add(stepTimeout))
	defer cancel()
	return it.appended.Wait(ctx)
}

// settle is the third stage.
func (s *submitter) settle(ctx context.Context, it *item) {
	err := awaitAck(ctx, it.work, it.sent.Add(stepTimeout))
	if errors.Is(err, jsutil.ErrPresent) {
		err = nil // another dispatcher has taken the same submission up and was quicker
	}
	s.finish(it.Delivery, err, "run_id", it.sub.RunID)
}

func awaitAck(ctx context.Context, f jetstream.PubAckFuture, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	select {
	case <-f.Ok():
		return nil
	case err := <-f.Err():
		return translate("publish the work message", err)
	case <-ctx.Done():
		return fmt.Errorf("publish the work message: %w: %w", jsutil.ErrUnavailable, context.Cause(ctx))
	}
}

// aside goes on with it off the fast lane, and answers its message.
func (s *submitter) aside(ctx context.Context, it *item, f func(context.Context, *item) error) {
	s.lane.run(func() {
		ctx, cancel := context.WithTimeout(ctx, stepTimeout)
		defer cancel()
		s.finish(it.Delivery, f(ctx, it), "run_id", it.sub.RunID)
	})
}
