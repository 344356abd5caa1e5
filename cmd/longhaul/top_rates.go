package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
)

// rateOf is what rates call the events that they count.
func rateOf(t contracts.EventType) string {
	switch t {
	case contracts.TypeQueued, contracts.TypeScheduled:
		return "submitted"
	case contracts.TypeStarted:
		return "started"
	case contracts.TypeRetrying:
		return "retrying"
	case contracts.TypeSucceeded:
		return "succeeded"
	case contracts.TypeFailed:
		return "failed"
	case contracts.TypeTimedOut:
		return "timed_out"
	case contracts.TypeCancelled:
		return "cancelled"
	case contracts.TypeRejected:
		return "rejected"
	}
	return ""
}

// rateNames are all that rateOf returns, in the order of a run's life.
func rateNames() []string {
	return []string{"submitted", "started", "retrying", "succeeded", "failed", "timed_out", "cancelled", "rejected"}
}

// meter counts the events of all runs as they come, which costs the broker no
// consumer. What a connection that is too slow misses is not counted.
type meter struct {
	sub *nats.Subscription
	now func() time.Time

	mu     sync.Mutex // guards the rest
	begun  time.Time
	counts []tally // by second, the oldest first
}

// tally is what was counted in one second.
type tally struct {
	second int64 // Unix time
	n      map[string]int
}

func newMeter(nc *nats.Conn, now func() time.Time) (*meter, error) {
	m := &meter{now: now, begun: now()}
	var err error
	m.sub, err = nc.Subscribe(contracts.SubjectAllEvents, func(msg *nats.Msg) {
		if e, err := contracts.DecodeEvent(msg.Data); err == nil {
			m.count(e.Type)
		}
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		return nil, fmt.Errorf("listen to events: %w", err)
	}
	return m, nil
}

func (m *meter) stop() { _ = m.sub.Unsubscribe() } // the connection is closed next

func (m *meter) count(t contracts.EventType) {
	name := rateOf(t)
	if name == "" {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	second := m.now().Unix()
	if len(m.counts) == 0 || m.counts[len(m.counts)-1].second != second {
		m.counts = append(m.forget(), tally{second, make(map[string]int)})
	}
	m.counts[len(m.counts)-1].n[name]++
}

// forget returns the counts that lie in the window.
func (m *meter) forget() []tally {
	first := m.now().Add(-rateWindow).Unix()
	for len(m.counts) > 0 && m.counts[0].second <= first {
		m.counts = m.counts[1:]
	}
	return m.counts
}

// rates are per second, over the window or as long as it has been counted.
func (m *meter) rates() map[string]float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts = m.forget()
	window := min(rateWindow, max(m.now().Sub(m.begun), time.Second)).Seconds()
	rates := make(map[string]float64)
	for _, name := range rateNames() {
		rates[name] = 0
	}
	for _, c := range m.counts {
		for name, n := range c.n {
			rates[name] += float64(n) / window
		}
	}
	return rates
}
