package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/tracing"
)

// Submit asks for a run and returns its id as soon as the broker has stored
// the request, or the run itself, durably. A submission without a run id gets a fresh one, or the
// one that its idempotency key stands for. Submitting again what was submitted
// before, by run id or by key, makes no second run; but a key whose run was
// rejected is free for a corrected submission, which becomes a run with another id.
//
// A broker that does not answer is asked again for ten seconds, or until ctx
// ends: a change of leader takes up to six, and the answer of one that dies is
// lost. That is harmless, the run id is the same.
//
// What is plainly wrong with s is returned as contracts.Faults before anything
// is sent. What only the dispatcher can tell (an agent nobody has registered, a
// key that belongs to another run) becomes a rejected run: see Wait.
func (c *Client) Submit(ctx context.Context, s contracts.Submission) (runID string, err error) {
	s, data, err := c.prepare(ctx, s)
	if err != nil {
		return "", err
	}
	header, span := c.tracer.Submit(ctx, s)
	defer func() { span.End(err) }()
	bounded, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	if answer := c.direct.ask(bounded, s, header, data); answer != nil && c.direct.await(bounded, answer) == nil {
		return s.RunID, nil
	}
	for pause := leastPause; ; pause = min(2*pause, mostPause) {
		// A try that was not acknowledged may have been stored; the run id makes
		// the next one harmless.
		try, cancel := context.WithTimeout(bounded, submitTry)
		_, err = c.js.PublishMsg(try, &nats.Msg{Subject: contracts.SubjectSubmit, Header: header, Data: data}, jetstream.WithExpectStream(contracts.StreamInbox))
		cancel()
		if err = jsutil.Translate(err); err == nil {
			return s.RunID, nil
		}
		if errors.Is(err, ErrUnavailable) && !c.nc.IsClosed() {
			jsutil.Sleep(bounded, pause) // it may be full, and have said so at once
		}
		if !errors.Is(err, ErrUnavailable) || c.nc.IsClosed() || bounded.Err() != nil {
			return s.RunID, fmt.Errorf("submit run %s: %w", s.RunID, err)
		}
	}
}

// Receipt is a submission under way.
type Receipt struct {
	RunID string

	ack  jetstream.PubAckFuture
	span tracing.Span
}

// Wait returns when the broker has stored the submission, or with the error
// that tells why it has not, or may not have. It is to be called once.
func (r *Receipt) Wait(ctx context.Context) (err error) {
	defer func() { r.span.End(err) }()
	select {
	case <-r.ack.Ok():
		return nil
	case err := <-r.ack.Err():
		return fmt.Errorf("submit run %s: %w", r.RunID, jsutil.Translate(err))
	case <-ctx.Done():
		return fmt.Errorf("submit run %s: %w", r.RunID, context.Cause(ctx))
	}
}

// SubmitAsync is Submit without the wait: nothing is promised until the
// Receipt's Wait returns nil. It blocks only while too many submissions of this
// Client are under way.
func (c *Client) SubmitAsync(ctx context.Context, s contracts.Submission) (*Receipt, error) {
	s, data, err := c.prepare(ctx, s)
	if err != nil {
		return nil, err
	}
	header, span := c.tracer.Submit(ctx, s)
	return c.publish(ctx, s.RunID, header, data, span)
}

// publish sends a submission that is prepared to the inbox.
func (c *Client) publish(ctx context.Context, runID string, header nats.Header, data []byte, span tracing.Span) (*Receipt, error) {
	for {
		ack, err := c.js.PublishMsgAsync(&nats.Msg{Subject: contracts.SubjectSubmit, Header: header, Data: data}, jetstream.WithExpectStream(contracts.StreamInbox))
		if err == nil {
			return &Receipt{RunID: runID, ack: ack, span: span}, nil
		}
		// The library waits a moment for room before it says that there is none.
		if !errors.Is(err, jetstream.ErrTooManyStalledMsgs) {
			return nil, fmt.Errorf("submit run %s: %w", runID, jsutil.Translate(err))
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("submit run %s: %w", runID, context.Cause(ctx))
		}
	}
}

// prepare fills in the run id and checks and encodes the submission.
func (c *Client) prepare(ctx context.Context, s contracts.Submission) (contracts.Submission, []byte, error) {
	switch {
	case s.RunID != "":
	case s.IdempotencyKey != "" && len(s.IdempotencyKey) <= contracts.MaxIdempotencyKey:
		s.RunID = c.runIDOf(ctx, s.IdempotencyKey)
	default:
		s.RunID = contracts.NewRunID()
	}
	data, faults := contracts.EncodeSubmission(s)
	if len(faults) > 0 {
		return s, nil, fmt.Errorf("submission: %w", faults)
	}
	if c.keys != nil {
		var err error
		if s, err = c.sealed(s); err != nil {
			return s, nil, err
		}
		if data, err = contracts.Encode(s); err != nil {
			return s, nil, fmt.Errorf("submission: encode it: %w", err)
		}
	}
	if len(data) > contracts.MaxSubmission {
		return s, nil, fmt.Errorf("submission: %w", contracts.Faults{{
			Message: fmt.Sprintf("has %d bytes; at most %d are allowed", len(data), contracts.MaxSubmission),
		}})
	}
	return s, data, nil
}

// runIDOf returns the run id that an idempotency key stands for: the first of
// those that come from the key whose run was not rejected. Where that can't be
// seen (a broker that is away, a user who may not read) it is the very first.
func (c *Client) runIDOf(ctx context.Context, key string) string {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	for id := contracts.RunIDFromKey(key); ; id = contracts.RunIDAfter(id, key) {
		if e, err := c.log.Last(ctx, id); err != nil || e.Type != contracts.TypeRejected {
			return id
		}
	}
}
