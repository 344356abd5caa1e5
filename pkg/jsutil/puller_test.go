package jsutil_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

// A delivery says since when the lease may have run: never a time after it was
// handed out, and no earlier than it has to be.
func TestDeliveriesKnowSinceWhen(t *testing.T) {
	b := jstest.StartEmpty(t)
	ctx := t.Context()
	if _, err := b.JS.CreateStream(ctx, jetstream.StreamConfig{Name: "W", Subjects: []string{"w.*"}, Storage: jetstream.MemoryStorage}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.JS.CreateConsumer(ctx, "W", jetstream.ConsumerConfig{Durable: "c", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Fatal(err)
	}
	arrived := make(chan *jsutil.Delivery, 4)
	p, err := jsutil.NewPuller(b.NC, jsutil.PullerConfig{Stream: "W", Consumer: "c",
		Deliver: func(d *jsutil.Delivery) { arrived <- d }, Unfilled: func() {}, Missing: func() { t.Error("the consumer is missing") },
		Malformed: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	pull := func(n int) (before, after time.Time) {
		t.Helper()
		before = time.Now()
		if err := errors.Join(p.Pull(n, time.Minute), b.NC.Flush()); err != nil {
			t.Fatal(err)
		}
		return before, time.Now()
	}
	receive := func() *jsutil.Delivery {
		t.Helper()
		if _, err := b.JS.Publish(ctx, "w.1", nil); err != nil {
			t.Fatal(err)
		}
		select {
		case d := <-arrived:
			return d
		case <-time.After(10 * time.Second):
			t.Fatal("waited in vain for a message")
			return nil
		}
	}
	wantBetween := func(d *jsutil.Delivery, from, to time.Time) {
		t.Helper()
		if d.Since.Before(from) || d.Since.After(to) {
			t.Errorf("since %v, want %v to %v", d.Since, from, to)
		}
	}

	first, firstSent := pull(2)
	second, secondSent := pull(2)
	// The broker fills the two in turns. Two messages may have been handed out
	// before the second was sent, and not three.
	wantBetween(receive(), first, firstSent)
	wantBetween(receive(), first, firstSent)
	wantBetween(receive(), second, secondSent)
	if n := p.Outstanding(); n != 1 {
		t.Errorf("%d outstanding, want 1", n)
	}
	p.Reset()
	if d := receive(); !d.Since.IsZero() {
		t.Errorf("of a request that was forgotten: since %v", d.Since)
	}
}
