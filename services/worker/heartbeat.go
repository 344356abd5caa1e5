package worker

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// Heartbeats of all attempts come from one goroutine that looks around every
// beatTick; looks at heads run beside it, at most headReads at a time.
const (
	beatTick  = 250 * time.Millisecond
	headReads = 32
	headRead  = 2 * time.Second // timeout
)

// scheduleBeats spreads the beats of attempts that began together.
func (a *attempt) scheduleBeats(now time.Time) {
	cfg := a.worker.cfg
	a.nextBeat = now.Add(time.Duration((0.5 + rand.Float64()/2) * float64(cfg.HeartbeatInterval)))
	a.nextEvent = now.Add(cfg.HeartbeatEventInterval)
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
			if a.lease.silence(now) > w.cfg.Lease-w.cfg.HeartbeatInterval/2 {
				// Somebody else may be handed the run any moment: be gone by then.
				a.log.Error("broker out of reach for almost a lease, attempt given up")
				a.loseLease()
				continue
			}
			if beat, event := a.due(now); beat {
				if err := a.lease.current().Extend(); err != nil {
					a.log.Warn("lease could not be extended", "error", err)
				}
				// Each waits for its turn by itself: without a broker the turns
				// are long, and nobody else's silence may go unseen for that.
				looks.Go(func() {
					select {
					case reads <- struct{}{}:
						a.look(ctx, now, event)
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

// look reads the head: to find out whether the run is still ours, and, by
// getting an answer, that the broker is in reach. sent is when the lease was extended.
func (a *attempt) look(ctx context.Context, sent time.Time, event bool) {
	defer func() {
		a.mu.Lock()
		a.beating = false
		if a.lease.silence(time.Now()) > a.worker.cfg.HeartbeatInterval {
			a.nextBeat = time.Now().Add(pauseUnavailable) // no answer: ask sooner
		}
		a.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(ctx, headRead)
	defer cancel()
	last, err := a.worker.runs.Last(ctx, a.work.submission.RunID)
	switch {
	case errors.Is(err, jsutil.ErrNotFound) || err == nil && (last.Epoch > a.epoch || last.Status.Terminal() && !a.finishing.Load()):
		a.log.Warn("run is not ours any more", "error", err, "head_epoch", last.Epoch, "head_status", last.Status)
		a.loseLease()
		return
	case err != nil:
		a.worker.counts.HeartbeatFailures.Inc()
		a.log.Warn("heartbeat found no head", "error", err)
		return
	}
	a.lease.confirm(sent)
	if last.Epoch == a.epoch && last.Status == contracts.StatusCancelling {
		a.cancelledElsewhere(last) // the dispatcher wrote it without reaching us
	}
	if event {
		// Queued like an agent's event; if it fails, whatever made it fail shows elsewhere.
		_ = a.writer.emit(ctx, contracts.Draft{Type: contracts.TypeHeartbeat, Payload: contracts.Heartbeat{Timestamp: sent.UTC()}})
	}
}
