package statekeeper

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/internal/sabotage"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
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
	interval time.Duration // pingInterval but in tests
	grace    time.Duration // takeoverGrace but in tests
	counters *counters
	logger   *slog.Logger

	connected atomic.Int64 // UnixNano of the last connect
}

const (
	// pingInterval is between two rounds of pings.
	pingInterval = 300 * time.Millisecond
	// takeoverGrace is how long a worker must be gone before its leases are given
	// back (DESIGN "takeover_grace").
	takeoverGrace = time.Second
)

// watched is a worker that holds runs. A round of pings owns it.
type watched struct {
	id string
	suspicion
	given map[heldRun]time.Time // leases that were given back since it last answered, and when
}

// run pings the workers that hold runs, in rounds, until ctx ends.
func (w *watchdog) run(ctx context.Context) error {
	workers := make(map[string]*watched)
	for reconnects := w.nc.Stats().Reconnects; ; sleep(ctx, w.interval) {
		if ctx.Err() != nil {
			return nil
		}
		if now := w.nc.Stats().Reconnects; now != reconnects || w.connected.Load() == 0 {
			reconnects = now
			w.connected.Store(time.Now().UnixNano())
		}
		workers = w.holders(ctx, workers)
		var pings sync.WaitGroup
		for _, worker := range workers {
			pings.Go(func() { w.look(ctx, worker, reconnects) })
		}
		pings.Wait()
	}
}

// holders are the workers to watch: those that hold runs, as far as is known,
// if this instance is the one to act.
func (w *watchdog) holders(ctx context.Context, before map[string]*watched) map[string]*watched {
	workers := make(map[string]*watched)
	x := w.feed.current()
	if x == nil || sabotage.Broken(sabotage.Takeover) {
		return workers
	}
	for _, id := range x.workers() {
		if contracts.CheckWorkerID(id) != nil {
			continue
		}
		if workers[id] = before[id]; workers[id] == nil {
			workers[id] = &watched{id: id, suspicion: suspicion{grace: w.grace}, given: make(map[heldRun]time.Time)}
		}
	}
	if len(workers) == 0 {
		return workers
	}
	ctx, cancel := context.WithTimeout(ctx, w.grace/2) // an outage must not hold the next round up
	defer cancel()
	mine, err := w.acting(ctx)
	if err != nil {
		w.logger.Debug("cannot tell whose turn it is to watch the workers", "error", err)
	}
	if !mine {
		clear(workers)
	}
	return workers
}

// look pings a worker, and gives its leases back if it is dead. Nothing is held
// against it if the connection was renewed since reconnects were counted.
func (w *watchdog) look(ctx context.Context, worker *watched, reconnects uint64) {
	now := time.Now()
	a := w.ping(ctx, worker.id)
	if !w.stands(reconnects) {
		a = unsure
	}
	if worker.observe(a, now, time.Unix(0, w.connected.Load())) {
		w.release(ctx, worker, reconnects)
	} else {
		clear(worker.given)
	}
}

// stands reports whether the connection is up, and the same as when its
// reconnects were counted.
func (w *watchdog) stands(reconnects uint64) bool {
	return w.nc.IsConnected() && w.nc.Stats().Reconnects == reconnects
}

// ping asks a worker whether it lives.
func (w *watchdog) ping(ctx context.Context, workerID string) answer {
	ctx, cancel := context.WithTimeout(ctx, w.grace/2)
	defer cancel()
	_, err := jsutil.AskHolder(ctx, w.nc, workerID, contracts.HolderRequest{Op: contracts.HolderPing})
	switch {
	case err == nil:
		return alive
	case errors.Is(err, nats.ErrNoResponders):
		return absent
	case errors.Is(err, context.DeadlineExceeded):
		return mute
	}
	return unsure
}
