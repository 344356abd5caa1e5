package client

import (
	"context"
	"errors"
	"strings"
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
	// until is when dispatchers are asked again, in ns since 1970. mute counts the
	// answers that did not come in time since the last that said yes, refused those that said no.
	until, mute, refused atomic.Int64
	// may says that we may ask, as far as is known: the broker was asked (forbidden).
	may atomic.Bool
}

const (
	// directTimeout bounds the wait for a dispatcher's answer. Of what a caller has
	// left it takes a third at most, and where that is less than leastDirect nobody is asked.
	directTimeout, leastDirect = 2 * time.Second, 100 * time.Millisecond
	// shortPause is how long none is asked after there was none, or maxRefusals in a
	// row; slowPause after one did not answer in time, and twice as long each further
	// time: whoever waits for it loses that time. Who is not allowed to ask loses none, and
	// pauses as long: the broker's complaint is in his log each time.
	shortPause, slowPause      = 500 * time.Millisecond, 5 * time.Second
	maxRefusals, mostDoublings = 8, 6
)

func newDirect(nc *nats.Conn) (*direct, error) {
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(maxInFlight), jetstream.WithPublishAsyncTimeout(directTimeout))
	return &direct{js: js}, err
}

// patience is how long an answer is waited for.
func patience(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return directTimeout
	}
	return min(directTimeout, time.Until(deadline)/3)
}

// ask sends a submission. It returns nil for one that has to go through the
// inbox, and while no dispatcher is likely to answer.
func (d *direct) ask(ctx context.Context, s contracts.Submission, header nats.Header, data []byte) jetstream.PubAckFuture {
	plain := s.IdempotencyKey == "" && s.ConversationID == "" && s.StartTimeoutSeconds == 0 && s.NotBefore.IsZero()
	if !plain || time.Now().UnixNano() < d.until.Load() || patience(ctx) < leastDirect || !d.js.Conn().IsConnected() {
		return nil
	}
	before := d.js.Conn().LastError()
	answer, err := d.js.PublishMsgAsync(&nats.Msg{Subject: contracts.SubjectSubmitDirect, Header: header, Data: data}, jetstream.WithRetryAttempts(0))
	if err != nil {
		return nil // too many are under way
	}
	if !d.may.Load() && d.forbidden(ctx, before) { // each of those that begin at once looks for itself
		_ = d.note(nats.ErrPermissionViolation)
		return nil
	}
	return answer
}

// forbidden reports whether we may not ask. The broker says so to the connection
// alone, as its last error, and before it answers a ping; while that goes back and
// forth a dispatcher is at work. An error of before is about something else, or
// from a time when there were other rights.
func (d *direct) forbidden(ctx context.Context, before error) bool {
	ctx, cancel := context.WithTimeout(ctx, patience(ctx)/2)
	defer cancel()
	nc := d.js.Conn()
	if nc.FlushWithContext(ctx) != nil {
		return false // nothing was learned
	}
	last := nc.LastError()
	if errors.Is(last, nats.ErrPermissionViolation) && last != before && strings.Contains(last.Error(), contracts.SubjectSubmitDirect) { //nolint:errorlint // the very same is meant
		return true
	}
	d.may.Store(true)
	return false
}

// await returns nil once the run that was asked for is durable.
func (d *direct) await(ctx context.Context, answer jetstream.PubAckFuture) error {
	enough := time.NewTimer(patience(ctx))
	defer enough.Stop()
	select {
	case <-answer.Ok():
		d.mute.Store(0)
		d.refused.Store(0)
		return nil
	case err := <-answer.Err():
		return d.note(err)
	case <-enough.C:
		return d.note(jetstream.ErrAsyncPublishTimeout)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// note takes note of a refusal, or of an answer that did not come, and returns it.
func (d *direct) note(err error) error {
	now, pause := time.Now(), time.Duration(0)
	switch refusal := (*jetstream.APIError)(nil); {
	case errors.Is(err, jetstream.ErrNoStreamResponse):
		pause = shortPause
	case errors.As(err, &refusal):
		if d.refused.Add(1) >= maxRefusals {
			pause = shortPause
		}
	case errors.Is(err, jetstream.ErrAsyncPublishTimeout), errors.Is(err, nats.ErrPermissionViolation):
		if now.UnixNano() >= d.until.Load() { // one of many at once counts
			pause = slowPause << min(d.mute.Add(1)-1, mostDoublings)
			d.may.Store(false)
		}
	}
	if pause > 0 {
		d.until.Store(now.Add(pause).UnixNano())
	}
	return err
}
