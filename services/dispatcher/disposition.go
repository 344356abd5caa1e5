package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"longhaul/pkg/jsutil"
)

// action is what becomes of a message.
type action string

const (
	actAck  action = "ack"  // done with
	actNak  action = "nak"  // to be delivered again, after a delay
	actTerm action = "term" // can never be handled
	// actRefuse is a request's alone: to be left in the inbox.
	actRefuse action = "refuse"
)

var (
	// errMalformed is in the error of a message that can never be understood
	// and about which there is nothing to write down.
	errMalformed = errors.New("malformed")
	// errDrained is in the error of a message that was not handled because the dispatcher ends.
	errDrained = errors.New("dispatcher ends")
)

// notYet is the error of a message that is to come again later, with nothing wrong.
type notYet struct {
	delay  time.Duration
	reason string
}

func (n notYet) Error() string { return fmt.Sprintf("not for another %s: %s", n.delay, n.reason) }

const (
	firstDelay = 100 * time.Millisecond
	// maxDelay is for errors that pass: a broker that is back is noticed within it.
	maxDelay = 2 * time.Second
	// maxOddDelay is for errors that may stay until somebody acts.
	maxOddDelay = 30 * time.Second
)

// dispose says what becomes of a message after err; delivered counts its
// deliveries, this one included. Nothing is given up but what can never be
// understood: a message whose error we do not know comes again, for ever.
func dispose(err error, delivered uint64) (action, time.Duration) {
	var later notYet
	switch {
	case err == nil:
		return actAck, 0
	case errors.As(err, &later):
		return actNak, later.delay
	case errors.Is(err, errMalformed):
		return actTerm, 0
	case errors.Is(err, errDrained):
		return actNak, 0 // another dispatcher may take it now
	case broken(err), errors.Is(err, jsutil.ErrConflict), errors.Is(err, jsutil.ErrNotFound):
		return actNak, backoff(delivered, maxDelay)
	}
	return actNak, backoff(delivered, maxOddDelay)
}

// broken reports whether the broker, or something on it, is not there just now.
func broken(err error) bool {
	return errors.Is(err, jsutil.ErrUnavailable) || errors.Is(err, jsutil.ErrNoTopology)
}

func backoff(delivered uint64, most time.Duration) time.Duration {
	d := firstDelay
	for i := uint64(1); i < delivered && d < most; i++ {
		d *= 2
	}
	return min(d, most)
}

// finish answers m as err has it, and is the one place where an error of a
// message is logged.
func (d *Dispatcher) finish(m *jsutil.Delivery, runID string, err error) {
	act, delay := dispose(err, m.Delivered)
	d.held.remove(m)
	d.meters.Answered(m, string(act))
	if m.Finished != nil {
		m.Finished(err)
	}
	var answer error
	switch act {
	case actAck:
		answer = m.Ack()
	case actNak:
		answer = m.Nak(delay)
	case actTerm:
		answer = m.Term()
	}
	if broken(err) {
		d.suspected.Store(true)
	}
	if err != nil {
		level := slog.LevelWarn
		if later := (notYet{}); errors.As(err, &later) || errors.Is(err, errDrained) {
			level = slog.LevelDebug
		}
		d.logger.Log(context.Background(), level, "message is not carried out", "run_id", runID, "subject", m.Subject,
			"sequence", m.Sequence, "delivered", m.Delivered, "action", string(act), "delay", delay, "error", err)
	}
	if answer != nil {
		// It comes again by itself when its AckWait is over.
		d.logger.Warn("message could not be answered", "subject", m.Subject, "action", string(act), "error", answer)
	}
}
