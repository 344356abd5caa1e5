package dispatcher

import (
	"context"
	"sync"
	"time"

	"longhaul/pkg/jsutil"
)

// extendEvery is well below the AckWait of the consumers: of what a living
// dispatcher has in hand nothing is delivered again, however slow the broker.
const extendEvery = 500 * time.Millisecond

// held are the messages in hand, from their taking to their answer. The AckWait
// is short for the sake of a dispatcher that is killed, and so has to be
// extended by one that lives. Its methods may be called from several goroutines.
type held struct {
	mu    sync.Mutex
	since map[*jsutil.Delivery]time.Time
	done  []*jsutil.Delivery // to be acknowledged
}

func (h *held) add(m *jsutil.Delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.since[m] = time.Now()
}

// remove returns when m is extended no more: after a Nak that would put it off.
func (h *held) remove(m *jsutil.Delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.since, m)
}

// keep extends what is in hand for long until ctx ends.
func (h *held) keep(ctx context.Context) {
	tick := time.NewTicker(extendEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		h.extend()
	}
}

func (h *held) extend() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for m, since := range h.since {
		if time.Since(since) >= extendEvery {
			_ = m.Extend() // fails on a closed connection; it comes again then
		}
	}
}

// ackPause is how long an acknowledgement waits for others. Nobody waits for it,
// and the broker has much to do for one that empties the inbox, as each does on
// a system at rest: it makes a new file. The run's worker begins meanwhile. A
// dispatcher that is killed leaves that many more to be delivered again.
const ackPause = 5 * time.Millisecond

// ackSoon acknowledges m, together with all others that come within ackPause.
func (h *held) ackSoon(m *jsutil.Delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done = append(h.done, m); len(h.done) == 1 {
		time.AfterFunc(ackPause, h.sendAcks)
	}
}

// sendAcks sends what waits, and is called for what is left when the dispatcher ends.
func (h *held) sendAcks() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range h.done {
		_ = m.Ack() // fails on a closed connection; it comes again then
	}
	h.done = nil
}
