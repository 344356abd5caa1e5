package worker

import (
	"math"
	"math/rand/v2"
	"time"

	"longhaul/pkg/contracts"
)

// action is what to do with a work message, given the head of its run's log.
type action int

const (
	actDrop    action = iota // the run needs nothing: ack the message away
	actWait                  // not before its time: give the message back until then
	actStart                 // append run.started
	actAsk                   // somebody else holds it: ask whether that is still so
	actCancel                // append run.cancelled: the holder went without doing it
	actExhaust               // append run.failed: no attempt is left
	actTimeOut               // append run.timed_out: it was to begin earlier
	actLost                  // append run.failed: its checkpoint has gone (resume finds it)
	actTurn                  // the run before it in its conversation has not ended: give the message back for a while
	actLeave                 // nothing: another delivery of the same message is seen to
)

// decide answers what to do with a run that is handed to us at the time now.
// startBy is when it has to have begun, zero if never; holderGone says that the
// holder named in the head does not hold it any more.
func decide(head contracts.Head, startBy, now time.Time, holderGone bool) action {
	switch {
	case head.Status == contracts.StatusNone || head.Status.Terminal():
		return actDrop
	case head.NotBefore.After(now):
		return actWait
	case head.Status == contracts.StatusScheduled:
		// Its work message comes with run.queued; this one is a stray.
		return actDrop
	case head.Status.Held() && !holderGone:
		return actAsk
	case head.Status == contracts.StatusCancelling:
		return actCancel
	case head.Attempt >= head.MaxAttempts:
		return actExhaust
	case !startBy.IsZero() && now.After(startBy):
		return actTimeOut
	}
	return actStart
}

// goesOn reports whether a holder that has got as far as at may go on behind
// last, which it did not write: the dispatcher's run.cancel_requested.
func goesOn(at, last contracts.Head) bool {
	return last.Epoch == at.Epoch && last.Status == contracts.StatusCancelling && last.Seq > at.Seq
}

// backoff is the delay after the given failed attempt: min(base^attempt s, max)
// and up to a tenth more, so that runs that failed together do not come back
// together. random is in [0, 1).
func backoff(base float64, limit time.Duration, attempt int, random float64) time.Duration {
	delay := min(math.Pow(base, float64(attempt)), limit.Seconds())
	return time.Duration(delay * (1 + random/10) * float64(time.Second))
}

// heeded is how much of the delay that an error asks for is heeded, in seconds:
// a day at most, and nothing of what is no number.
func heeded(asked float64) float64 {
	if asked > 0 {
		return min(asked, 24*60*60)
	}
	return 0
}

func (w *Worker) backoff(attempt int) time.Duration {
	return backoff(w.cfg.RetryBackoffBase, w.cfg.RetryBackoffMax, attempt, rand.Float64())
}
