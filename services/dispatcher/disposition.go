package dispatcher

import (
	"errors"
	"fmt"
	"time"

	"longhaul/pkg/jsutil"
)

// action is what becomes of a message.
type action string

const (
	actAck  action = "ack"  // done with
	actNak  action = "nak"  // to be delivered again, after a delay
	actTerm action = "term" // can never be handled
)

// errMalformed is in the error of a message that can never be understood and
// about which there is nothing to write down.
var errMalformed = errors.New("malformed")

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
	case passing(err):
		return actNak, backoff(delivered, maxDelay)
	}
	return actNak, backoff(delivered, maxOddDelay)
}

// passing reports whether an error ends by itself, or by repair.
func passing(err error) bool {
	return errors.Is(err, jsutil.ErrUnavailable) || errors.Is(err, jsutil.ErrConflict) || errors.Is(err, jsutil.ErrNoTopology)
}

func backoff(delivered uint64, most time.Duration) time.Duration {
	d := firstDelay
	for i := uint64(1); i < delivered && d < most; i++ {
		d *= 2
	}
	return min(d, most)
}

// finish answers m as err has it, and is the one place where an error of a
// message is logged. about is slog's key-value pairs that say what m is.
func (h handler) finish(m *jsutil.Delivery, err error, about ...any) {
	act, delay := dispose(err, m.Delivered)
	var answer error
	switch act {
	case actAck:
		answer = m.Ack()
	case actNak:
		answer = m.Nak(delay)
	case actTerm:
		answer = m.Term()
	}
	if err != nil {
		h.complain(m, err, act, delay, about)
	}
	if answer != nil {
		// It comes again by itself when its AckWait is over.
		h.logger.Warn("message could not be answered", "subject", m.Subject, "action", string(act), "error", answer)
	}
}

func (h handler) complain(m *jsutil.Delivery, err error, act action, delay time.Duration, about []any) {
	args := append([]any{"subject", m.Subject, "sequence", m.Sequence, "delivered", m.Delivered,
		"action", string(act), "delay", delay, "error", err}, about...)
	var later notYet
	switch {
	case errors.As(err, &later), errors.Is(err, errDrained):
		h.logger.Debug("message is put off", args...)
	case act == actTerm:
		h.logger.Warn("message cannot be handled and is dropped", args...)
	case passing(err):
		if !errors.Is(err, jsutil.ErrConflict) {
			h.repair.suspect()
		}
		h.logger.Warn("message comes again", args...)
	default:
		h.logger.Error("message comes again after an unknown error", args...)
	}
}
