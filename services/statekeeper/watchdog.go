package statekeeper

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/internal/sabotage"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
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
	*api
	acting   func(context.Context) (bool, error)
	interval time.Duration // pingInterval but in tests
	grace    time.Duration // takeoverGrace but in tests

	mu         sync.Mutex // guards the rest
	reconnects uint64     // of the connection, when it was last looked at
	connected  time.Time  // since when it stands
}

const (
	// pingInterval is between two pings of a worker, and between two looks at who
	// holds runs. It is what a death may go unnoticed before the grace begins; a
	// ping is one request without JetStream, measured at 40 µs of CPU for worker,
	// broker and us together: 100 workers that hold runs cost 2 % of a core.
	pingInterval = 200 * time.Millisecond
	// takeoverGrace is how long a worker must be gone before its leases are given
	// back (DESIGN "takeover_grace").
	takeoverGrace = time.Second
)

// watched is a worker that holds runs. The goroutine of watch owns it.
type watched struct {
	id string
	suspicion
	given map[heldRun]time.Time // leases that were given back since it last answered, and when
}

// run has every worker that holds runs watched until ctx ends, each by a
// goroutine of its own: one that is mute, or leaves much to be given back,
// delays nobody's.
func (w *watchdog) run(ctx context.Context) error {
	var watches sync.WaitGroup
	defer watches.Wait()
	defer w.counters.meters.Watchdog.Stop()
	ends := make(map[string]context.CancelFunc)
	for ; ctx.Err() == nil; jsutil.Sleep(ctx, w.interval) {
		w.counters.meters.Watchdog.Turn()
		w.connection() // its age counts from here, not from the first ping
		holders, err := w.holders(ctx)
		if err != nil { // those who are watched stay so
			w.logger.Debug("cannot tell whose turn it is to watch the workers", "error", err)
			continue
		}
		for id, end := range ends {
			if !holders[id] {
				end()
				delete(ends, id)
			}
		}
		for id := range holders {
			if ends[id] != nil {
				continue
			}
			var watch context.Context
			watch, ends[id] = context.WithCancel(ctx)
			watches.Go(func() { w.watch(watch, id) })
		}
	}
	return nil
}

// holders are the workers to watch: those that hold runs, as far as is known,
// if this instance is the one to act.
func (w *watchdog) holders(ctx context.Context) (map[string]bool, error) {
	x := w.feed.current()
	if x == nil || sabotage.Broken(sabotage.Takeover) {
		return nil, nil
	}
	holders := make(map[string]bool)
	for _, id := range x.workers() {
		if contracts.CheckWorkerID(id) == nil {
			holders[id] = true
		}
	}
	if len(holders) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, w.grace/2) // an outage must not hold the next look up
	defer cancel()
	mine, err := w.acting(ctx)
	if !mine {
		clear(holders)
	}
	return holders, err
}

// watch pings a worker until ctx ends.
func (w *watchdog) watch(ctx context.Context, id string) {
	worker := &watched{id: id, suspicion: suspicion{grace: w.grace}, given: make(map[heldRun]time.Time)}
	for ctx.Err() == nil {
		jsutil.Sleep(ctx, time.Until(w.look(ctx, worker)))
	}
}

// look pings a worker, gives its leases back if it is dead, and says when to
// look again: a suspected one just when it will have been gone for long enough.
// Nothing is held against it if the connection was renewed meanwhile.
func (w *watchdog) look(ctx context.Context, worker *watched) time.Time {
	reconnects, connected := w.connection()
	now := time.Now()
	a := w.ping(ctx, worker.id)
	if !w.stands(reconnects) {
		a = unsure
	}
	next := now.Add(w.interval)
	if worker.observe(a, now, connected) {
		w.release(ctx, worker, reconnects)
		return next
	}
	clear(worker.given)
	if due := worker.due(now, connected); !due.IsZero() && due.Before(next) {
		return due
	}
	return next
}

// connection says how often the connection was renewed, and since when it stands.
func (w *watchdog) connection() (reconnects uint64, since time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := w.nc.Stats().Reconnects; now != w.reconnects || w.connected.IsZero() {
		w.reconnects, w.connected = now, time.Now()
	}
	return w.reconnects, w.connected
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
