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
