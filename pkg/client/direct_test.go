package client_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil/jstest"
)

// Where no dispatcher answers, the inbox takes what it was not asked for in vain for long.
func TestSubmitWithoutAnAnswer(t *testing.T) {
	c, b := newClient(t)
	var asked atomic.Int64
	submit := func() time.Duration {
		t.Helper()
		began := time.Now()
		if _, err := c.Submit(soon(t), contracts.Submission{AgentKey: "echo"}); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	if took := submit(); took > 500*time.Millisecond {
		t.Errorf("without a dispatcher it took %s", took)
	}
	mute, err := b.NC.Subscribe(contracts.SubjectSubmitDirect, func(*nats.Msg) { asked.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	for slowest := time.Duration(0); slowest < 500*time.Millisecond; { // until the mute one is asked
		slowest = submit()
		if slowest > 3*time.Second {
			t.Fatalf("with a dispatcher that does not answer it took %s", slowest)
		}
	}
	for range 20 {
		if took := submit(); took > 500*time.Millisecond {
			t.Errorf("after an answer that did not come it took %s", took)
		}
	}
	if err := mute.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("a dispatcher that does not answer was asked %d times", n)
	}
}

// A dispatcher that dies with all that it was asked for loses nothing.
func TestSubmitAllWithoutAnAnswer(t *testing.T) {
	c, b := newClient(t)
	if _, err := b.NC.Subscribe(contracts.SubjectSubmitDirect, func(*nats.Msg) {}); err != nil {
		t.Fatal(err)
	}
	if err := b.NC.Flush(); err != nil {
		t.Fatal(err)
	}
	submitAll(t, c, b, 700)
}

// Whoever has little time leaves enough of it for the inbox.
func TestSubmitInAHurry(t *testing.T) {
	c, b := newClient(t)
	var asked atomic.Int64
	if _, err := b.NC.Subscribe(contracts.SubjectSubmitDirect, func(*nats.Msg) { asked.Add(1) }); err != nil {
		t.Fatal(err)
	}
	if err := b.NC.Flush(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 900*time.Millisecond)
		if _, err := c.Submit(ctx, contracts.Submission{AgentKey: "echo"}); err != nil {
			t.Errorf("with 900 ms: %v", err)
		}
		cancel()
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("a dispatcher that does not answer was asked %d times, want once", n)
	}
}

// What is refused goes to the inbox together, not one after the other, and after
// some refusals nobody asks for a while.
func TestSubmitAllRefused(t *testing.T) {
	c, b := newClient(t)
	var asked atomic.Int64
	if _, err := b.NC.Subscribe(contracts.SubjectSubmitDirect, func(m *nats.Msg) {
		asked.Add(1)
		if err := m.Respond([]byte(`{"error":{"code":503,"description":"no"}}`)); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := b.NC.Flush(); err != nil {
		t.Fatal(err)
	}
	const n = 3000
	submitAll(t, c, b, n)
	if asked := asked.Load(); asked > n/2 {
		t.Errorf("dispatchers that refuse were asked %d times of %d", asked, n)
	}
}

// submitAll submits n, and holds each to be in the inbox.
func submitAll(t *testing.T, c *client.Client, b *jstest.Broker, n int) {
	t.Helper()
	done := 0
	for id, err := range c.SubmitAll(soon(t), func(yield func(contracts.Submission) bool) {
		for range n {
			if !yield(contracts.Submission{AgentKey: "echo"}) {
				return
			}
		}
	}) {
		if err != nil {
			t.Fatalf("run %s: %v", id, err)
		}
		done++
	}
	if stored := len(inbox(t, b)); done != n || stored != n {
		t.Errorf("%d were yielded and %d stored, of %d", done, stored, n)
	}
}
