package worker

import (
	"context"
	"sync"
	"time"

	"longhaul/pkg/jsutil"
)

// lease is the unacknowledged work message of an attempt, and what is known
// about our contact with the broker.
type lease struct {
	mu       sync.Mutex
	delivery *jsutil.Delivery
	// confirmed is when we last sent something that the broker then answered;
	// our claim to the lease is no younger. By the monotonic clock.
	confirmed time.Time
}

func newLease(d *jsutil.Delivery) *lease { return &lease{delivery: d, confirmed: d.Since} }

// renew sees to it that most of the lease of a message is left, which may have
// waited on its way to us. An error means that the broker has not said so.
func (w *Worker) renew(ctx context.Context, d *jsutil.Delivery) error {
	sent := time.Now()
	if sent.Sub(d.Since) <= w.cfg.HeartbeatInterval {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	if err := d.ExtendConfirmed(ctx); err != nil {
		return err
	}
	d.Since = sent
	return nil
}

// adopt goes on under a newer delivery of the same message. The older one's
// answers would be accepted too; the newer one's token is the one to leave behind.
func (l *lease) adopt(d *jsutil.Delivery) {
	l.mu.Lock()
	l.delivery = d
	l.mu.Unlock()
	// Should this be lost, the next heartbeat is as good.
	_ = d.Extend()
}

func (l *lease) current() *jsutil.Delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.delivery
}

// confirm notes that the broker answered what was sent at the given time.
func (l *lease) confirm(sent time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sent.After(l.confirmed) {
		l.confirmed = sent
	}
}

// silence is for how long nothing has been confirmed.
func (l *lease) silence(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return now.Sub(l.confirmed)
}

// silence is the longest time for which a lease has not been confirmed.
func (w *Worker) silence() (longest time.Duration) {
	for _, a := range w.attempts() {
		longest = max(longest, a.lease.silence(time.Now()))
	}
	return longest
}
