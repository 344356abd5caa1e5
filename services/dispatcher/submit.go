package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// submitter takes submissions in. On the fast lane nobody waits for an answer
// that somebody after him could wait for: accept sends run.queued; post, a
// goroutine of its own, awaits it and sends the work message; settle awaits
// that, and acks. Accept and post work in the order of the inbox, and so does
// work get queued, at a rate that does not hang on the round trips. Whatever
// needs a question asked first leaves the fast lane (admit.go).
type submitter struct {
	*Dispatcher
	lane   *lane
	turns  *turns     // of conversations
	queued chan *item // their run.queued is under way
}

// item is one submission on its way. One goroutine at a time has it.
type item struct {
	*jsutil.Delivery
	asked    *nats.Msg            // the request, of one that did not come through the inbox
	sub      contracts.Submission // after read always with a valid run id
	named    bool                 // the submission itself says which
	delayed  bool                 // the run must not start yet
	follows  string               // the run before it in its conversation
	appended *runlog.Pending
	sent     time.Time // when it was
	at       uint64    // where run.queued stands in the log
}

// How often a submission of a conversation is tried again before the next one, and how soon.
const turnTries, turnPause = 50, 20 * time.Millisecond

func newSubmitter(d *Dispatcher) *submitter {
	return &submitter{Dispatcher: d, lane: newLane(), turns: newTurns(), queued: make(chan *item, inFlight)}
}

// takeSubmissions takes submissions until ctx ends, and returns when all that
// it took are answered. Their handling has the context work.
func (d *Dispatcher) takeSubmissions(ctx, work context.Context) {
	s := newSubmitter(d)
	var posting, asking sync.WaitGroup
	posting.Go(func() {
		for it := range s.queued {
			s.post(work, it)
		}
	})
	asking.Go(func() { s.takeRequests(ctx) })
	d.take(ctx, contracts.StreamInbox, contracts.ConsumerSubmit, func(m *jsutil.Delivery) { s.accept(work, m) })
	asking.Wait()
	close(s.queued)
	posting.Wait()
	s.lane.wg.Wait()
}

// accept is the first step.
func (s *submitter) accept(ctx context.Context, m *jsutil.Delivery) {
	it := &item{Delivery: m}
	faults := it.read(s.cfg)
	if it.sub.ConversationID != "" {
		s.inTurn(ctx, it.sub.ConversationID, m)
		return
	}
	if s.sendPlain(it, faults) {
		s.queued <- it
		return
	}
	s.aside(ctx, s.lane, m, it.sub.RunID, func(ctx context.Context) error { return s.admit(ctx, it, faults) })
}

// sendPlain sends the first event of a run about which nothing has to be asked,
// and reports whether it did.
func (s *submitter) sendPlain(it *item, faults contracts.Faults) bool {
	rec, known := s.agents.cached(it.sub.AgentKey)
	plain := len(faults) == 0 && rec.misfit(it.sub) == nil && (known || s.cfg.AcceptUnknownAgents) && it.sub.IdempotencyKey == "" &&
		it.sub.StartTimeoutSeconds == 0 && !it.delayed
	return plain && s.send(it, rec.AgentRecord) == nil
}

// inTurn takes in the submissions of one conversation one after the other, in
// the order of the inbox. One that the broker holds up, or a run before it that
// another dispatcher has yet to take in, is tried again for a second.
func (s *submitter) inTurn(ctx context.Context, conversation string, m *jsutil.Delivery) {
	first, err := s.turns.enter(conversation, m)
	if err != nil {
		s.finish(m, "", err)
	}
	if first {
		s.lane.run(func() {
			for tries := 0; m != nil; m = s.turns.next(conversation) {
				it := &item{Delivery: m}
				try := func() error {
					faults := it.read(s.cfg)
					return bounded(ctx, func(ctx context.Context) error { return s.admit(ctx, it, faults) })
				}
				err := try()
				for ; broken(err) && tries < turnTries && ctx.Err() == nil; tries++ {
					jsutil.Sleep(ctx, turnPause)
					err = try()
				}
				if err == nil {
					tries = 0
				}
				s.finish(m, it.sub.RunID, err)
			}
		})
	}
}

// read decodes the submission and settles its run id.
func (it *item) read(cfg Config) contracts.Faults {
	data := it.Data
	sub, faults := contracts.DecodeSubmission(data)
	if most := cfg.MaxTimeout.Seconds(); sub.TimeoutSeconds > most {
		faults = append(faults, contracts.Fault{Field: "timeout_seconds",
			Message: fmt.Sprintf("must be at most %g, the limit of the dispatcher, not %g", most, sub.TimeoutSeconds)})
	}
	if len(faults) > 0 {
		// Of a bad one only what can be trusted is kept.
		sub = contracts.Submission{AgentKey: sub.AgentKey}
		sub.RunID, sub.IdempotencyKey = contracts.PeekSubmission(data)
	}
	it.named = sub.RunID != ""
	switch {
	case it.named:
	case sub.IdempotencyKey != "":
		sub.RunID = contracts.RunIDFromKey(sub.IdempotencyKey)
	default:
		sub.RunID = contracts.RunIDFromInbox(it.Sequence, it.Stored)
	}
	it.sub, it.delayed = sub, sub.NotBefore.After(time.Now())
	it.Finished = cfg.Tracer.Dispatch(it.Header, &it.sub)
	return faults
}

// send appends run.queued, and does not wait for the answer. After an error
// nothing was sent.
func (s *submitter) send(it *item, rec contracts.AgentRecord) error {
	complete(&it.sub, rec, s.cfg.MaxTimeout)
	event, err := contracts.Next(contracts.Head{}, it.sub.RunID, queuedOf(it.sub, it.Stored, ""), time.Now())
	if err != nil {
		return err
	}
	it.sent = time.Now()
	it.appended, err = s.log.AppendAsync(runlog.Head{}, event)
	return err
}

// post is the second step.
func (s *submitter) post(ctx context.Context, it *item) {
	step, cancel := context.WithDeadline(ctx, it.sent.Add(stepTimeout))
	defer cancel()
	head, err := it.appended.Wait(step)
	if errors.Is(err, jsutil.ErrConflict) && it.asked == nil {
		// Delivered again, to us or to another dispatcher, or submitted twice.
		s.aside(ctx, s.lane, it.Delivery, it.sub.RunID, func(ctx context.Context) error { return s.resume(ctx, it.sub.RunID) })
		return
	}
	if err == nil {
		s.meters.Submitted("queued")
		it.at = head.Sequence
		err = s.sendWork(it, head)
	}
	if err != nil {
		s.settle(it, err)
	}
}

// sendWork publishes the work message, and has the third step wait for the answer.
func (s *submitter) sendWork(it *item, head runlog.Head) error {
	m, err := workMessage(head.Head, it.appended.Data(), head.Sequence)
	if err != nil {
		return err
	}
	ack, err := s.js.PublishMsgAsync(m)
	if err != nil {
		return translate("publish the work message", err)
	}
	s.lane.run(func() {
		var err error
		select { // one of them comes: js has a timeout for it
		case <-ack.Ok():
		case err = <-ack.Err():
		}
		s.settle(it, jsutil.Ignoring(jsutil.ErrPresent, translate("publish the work message", err)))
	})
	return nil
}

// settle is the third step.
func (s *submitter) settle(it *item, err error) {
	if it.asked != nil {
		s.answer(it, err)
		return
	}
	s.finish(it.Delivery, it.sub.RunID, err)
}
