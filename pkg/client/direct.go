package client

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
)

// direct asks a dispatcher for runs, without the inbox (ADR 21). The dispatcher
// answers as a stream would, when the run is queued. Whoever is refused, or gets
// no answer, leaves the submission in the inbox: the run id makes that harmless.
type direct struct {
	js jetstream.JetStream
	// until is when dispatchers are asked again, after one gave no answer; in ns
	// since 1970. mute counts those in a row that came too late.
	until, mute atomic.Int64
}

const (
	// directTimeout bounds the wait for a dispatcher's answer.
	directTimeout = time.Second
	// absentPause is how long none is asked after there was none, slowPause after
	// one did not answer in time, and twice as long each further time: whoever waits
	// for it loses directTimeout, and does so for ever where he lacks the right to ask.
	absentPause, slowPause = 500 * time.Millisecond, 5 * time.Second
	mostDoublings          = 6
)

func newDirect(nc *nats.Conn) (*direct, error) {
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(maxInFlight), jetstream.WithPublishAsyncTimeout(directTimeout))
	return &direct{js: js}, err
}

// ask sends a submission. It returns nil for one that has to go through the
// inbox, and while no dispatcher is likely to answer.
func (d *direct) ask(s contracts.Submission, header nats.Header, data []byte) jetstream.PubAckFuture {
	plain := s.IdempotencyKey == "" && s.ConversationID == "" && s.StartTimeoutSeconds == 0 && s.NotBefore.IsZero()
	if !plain || time.Now().UnixNano() < d.until.Load() || !d.js.Conn().IsConnected() {
		return nil
	}
	answer, err := d.js.PublishMsgAsync(&nats.Msg{Subject: contracts.SubjectSubmitDirect, Header: header, Data: data}, jetstream.WithRetryAttempts(0))
	if err != nil {
		return nil // too many are under way
	}
	return answer
}

// await returns nil once the run that was asked for is durable.
func (d *direct) await(ctx context.Context, answer jetstream.PubAckFuture) error {
	var err error
	select {
	case <-answer.Ok():
	case err = <-answer.Err():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	switch {
	case err == nil:
		d.mute.Store(0)
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		d.until.Store(time.Now().Add(absentPause).UnixNano())
	case errors.Is(err, jetstream.ErrAsyncPublishTimeout) && time.Now().UnixNano() >= d.until.Load(): // one of many at once counts
		d.until.Store(time.Now().Add(slowPause << min(d.mute.Add(1)-1, mostDoublings)).UnixNano())
	}
	return err
}
