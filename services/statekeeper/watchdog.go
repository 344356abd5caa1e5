package statekeeper

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
)

// watchdog gives back the leases of workers that died, so that their runs go on
// in about a second instead of when the lease runs out.
//
// Every instance could do it, for all it needs is the index and the log; only
// the one that the projection is pinned to does, or any if none is, lest each
// worker be pinged and each lease be given back as often as there are
// instances. If two do at once, or one errs, nothing is harmed: a worker that
// is handed a run asks the holder first.
type watchdog struct {
	nc       *nats.Conn
	log      *runlog.Log
	feed     *feed
	acting   func(context.Context) (bool, error)
	interval time.Duration // between two pings of a worker
	grace    time.Duration
	logger   *slog.Logger

	connected atomic.Int64 // UnixNano of the last connect
	released  atomic.Int64 // leases given back
	watches   sync.WaitGroup
}

const (
	// roleInterval is how often the watchdog asks whether it is its turn.
	roleInterval = time.Second
	// releaseInterval is how often the runs of a dead worker are gone through:
	// more may come to light while the projection catches up.
	releaseInterval = time.Second
)

// run watches until ctx ends or the connection is renewed.
func (w *watchdog) run(ctx context.Context) error {
	renewed := w.nc.StatusChanged(nats.CONNECTED)
	defer w.nc.RemoveStatusListener(renewed)
	w.connected.Store(time.Now().UnixNano())
	watched := make(map[string]context.CancelFunc)
	defer func() {
		for _, stop := range watched {
			stop()
		}
		w.watches.Wait()
	}()
	tick := time.NewTicker(w.interval)
	defer tick.Stop()
	var asked time.Time
	mine := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-renewed:
			w.connected.Store(time.Now().UnixNano())
			continue
		case <-tick.C:
		}
		holders := w.holders()
		if len(holders) > 0 && time.Since(asked) >= roleInterval {
			asked = time.Now()
			var err error
			if mine, err = w.acting(ctx); err != nil {
				w.logger.Debug("cannot tell whose turn it is to watch the workers", "error", err)
			}
		}
		if !mine {
			holders = nil
		}
		w.adjust(ctx, watched, holders)
	}
}

// holders are the workers that hold runs, as far as is known.
func (w *watchdog) holders() map[string]bool {
	x := w.feed.current()
	if x == nil {
		return nil
	}
	holders := make(map[string]bool)
	for _, id := range x.workers() {
		if contracts.CheckWorkerID(id) == nil {
			holders[id] = true
		}
	}
	return holders
}

// adjust starts and ends watches so that there is one for each holder.
func (w *watchdog) adjust(ctx context.Context, watched map[string]context.CancelFunc, holders map[string]bool) {
	for id, stop := range watched {
		if !holders[id] {
			stop()
			delete(watched, id)
		}
	}
	for id := range holders {
		if watched[id] == nil {
			watch, stop := context.WithCancel(ctx)
			watched[id] = stop
			w.watches.Go(func() { w.watch(watch, id) })
		}
	}
}

// watch pings one worker, one ping at a time, until ctx ends.
func (w *watchdog) watch(ctx context.Context, workerID string) {
	logger := w.logger.With("worker_id", workerID)
	s := suspicion{grace: w.grace}
	given := make(map[heldRun]bool)
	var gone time.Time             // the last time its runs were gone through
	sleep(ctx, rand.N(w.interval)) // so that the pings spread out
	for ctx.Err() == nil {
		now, connected := time.Now(), w.connected.Load()
		a := w.ping(ctx, workerID)
		if w.connected.Load() != connected {
			a = unsure
		}
		if s.observe(a, now, time.Unix(0, connected)) {
			if time.Since(gone) >= releaseInterval {
				gone = now
				w.release(ctx, logger, workerID, given)
			}
		} else {
			clear(given)
		}
		sleep(ctx, w.interval*9/10+rand.N(w.interval/5))
	}
}

// ping asks a worker whether it lives.
func (w *watchdog) ping(ctx context.Context, workerID string) answer {
	request, err := contracts.Encode(contracts.HolderRequest{Op: contracts.HolderPing})
	if err != nil || !w.nc.IsConnected() {
		return unsure
	}
	ctx, cancel := context.WithTimeout(ctx, w.grace/2)
	defer cancel()
	_, err = w.nc.RequestWithContext(ctx, contracts.WorkerSubject(workerID), request)
	switch {
	case err == nil:
		return alive
	case errors.Is(err, nats.ErrNoResponders):
		return absent
	case errors.Is(err, context.DeadlineExceeded) && w.nc.IsConnected():
		return mute
	}
	return unsure
}
