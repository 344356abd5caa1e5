package worker

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// Heartbeats of all attempts come from one goroutine that looks around every
// beatTick; looks at heads run beside it, at most headReads at a time.
const (
	beatTick    = 250 * time.Millisecond
	headReads   = 32
	beatTimeout = 2 * time.Second // of an extension, and of a look
)

// scheduleBeats spreads the beats of attempts that began together. The first
// one counts from when the lease did.
func (a *attempt) scheduleBeats(now time.Time) {
	a.nextBeat = a.lease.confirmed.Add(time.Duration((0.5 + rand.Float64()/2) * float64(a.worker.cfg.HeartbeatInterval)))
	a.nextEvent = now.Add(a.worker.cfg.HeartbeatEventInterval)
}

// keepLeases sends heartbeats until ctx ends.
func (w *Worker) keepLeases(ctx context.Context) {
	tick := time.NewTicker(min(beatTick, w.cfg.HeartbeatInterval/2))
	defer tick.Stop()
	reads := make(chan struct{}, headReads)
	var looks sync.WaitGroup
	defer looks.Wait()
	defer w.counts.Heartbeat.Stop()
	for {
		w.counts.Heartbeat.Turn()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		for _, a := range w.attempts() {
			if a.lease.silence(now) > w.cfg.Lease-w.cfg.HeartbeatInterval/2 && !a.mayEndLate() {
				// Somebody else may be handed the run any moment: be gone by then.
				a.log().Error("broker out of reach for almost a lease, attempt given up")
				a.loseLease()
				continue
			}
			if beat, event := a.due(now); beat {
				// Each waits for its turn by itself: without a broker the turns
				// are long, and nobody else's silence may go unseen for that.
				looks.Go(func() {
					extended := a.extend(ctx, now)
					select {
					case reads <- struct{}{}:
						a.look(ctx, now, extended, event)
						<-reads
					case <-ctx.Done():
					}
				})
			}
		}
	}
}

// due reports whether a heartbeat is due and whether it should be written down
// as an event too. One look at a time: a broker that does not answer gets no second question.
func (a *attempt) due(now time.Time) (beat, event bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.beating || now.Before(a.nextBeat) {
		return false, false
	}
	a.beating = true
	a.nextBeat = now.Add(a.worker.cfg.HeartbeatInterval)
	if !now.Before(a.nextEvent) {
		a.nextEvent = now.Add(a.worker.cfg.HeartbeatEventInterval)
		return true, true
	}
	return true, false
}

// mayEndLate reports whether all that is left of an attempt is to write its last
// event. That may take longer than the lease: nothing runs any more that could
// run twice, whoever is handed the run asks us first, and if somebody did begin
// it, the append is refused. Only a drain whose time is over does not wait for it.
func (a *attempt) mayEndLate() bool {
	return a.finishing.Load() && a.inside.Load() == 0 && !a.worker.closing()
}

// extend begins the lease anew, now, and reports whether the broker says that it did.
func (a *attempt) extend(ctx context.Context, now time.Time) bool {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	err := a.lease.current().ExtendConfirmed(ctx)
	if err != nil {
		a.log().Warn("lease could not be extended", "error", err)
		return false
	}
	a.lease.confirm(now)
	return true
}

// look reads the head, to find out whether the run is still ours. Unless the
// lease was extended, it asks the leader: that it answers what was asked at the
// time sent says that the broker is in reach all the same, which a replica that
// is as cut off as we are cannot say.
func (a *attempt) look(ctx context.Context, sent time.Time, extended, event bool) {
	defer func() {
		a.mu.Lock()
		a.beating = false
		if a.lease.silence(time.Now()) > a.worker.cfg.HeartbeatInterval {
			a.nextBeat = time.Now().Add(pauseUnavailable) // no answer: ask sooner
		}
		a.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	var last runlog.Entry
	err := jsutil.ErrNotFound
	if extended {
		last, err = a.worker.runs.Last(ctx, a.work.submission.RunID)
	}
	if errors.Is(err, jsutil.ErrNotFound) { // a replica that lags may say so too
		if last, err = a.worker.runs.LastFromLeader(ctx, a.work.submission.RunID); err == nil {
			a.lease.confirm(sent)
		}
	}
	switch {
	case errors.Is(err, jsutil.ErrNotFound):
		a.log().Warn("run has no log any more", "error", err)
		a.loseLease()
		return
	case err != nil:
		a.worker.counts.HeartbeatFailures.Inc()
		a.log().Warn("heartbeat found no head", "error", err)
		return
	case last.Epoch > a.epoch || last.Epoch == a.epoch && !last.Status.Held() && !a.finishing.Load():
		// Logs only grow: this is true, however old. A head of an epoch before ours is merely old.
		a.log().Warn("run is not ours any more", "head_epoch", last.Epoch, "head_status", last.Status)
		a.loseLease()
		return
	}
	if last.Epoch == a.epoch && last.Status == contracts.StatusCancelling {
		a.cancelledElsewhere(last) // the dispatcher wrote it without reaching us
	}
	if event && !a.finishing.Load() {
		// Queued like an agent's event; if it fails, whatever made it fail shows elsewhere.
		_ = a.writer.emit(ctx, contracts.Draft{Type: contracts.TypeHeartbeat, Payload: contracts.Heartbeat{Timestamp: sent.UTC()}})
	}
}
