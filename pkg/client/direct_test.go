package client_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
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

// guest returns a connection of a user who may not publish to those subjects, on a
// broker of its own, and another one of somebody who may do everything.
func guest(t *testing.T, forbidden ...string) (nc, all *nats.Conn) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
		Users: []*server.User{{Username: "all", Password: "x"}, {Username: "guest", Password: "x", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Deny: forbidden},
			Subscribe: &server.SubjectPermission{Deny: []string{contracts.SubjectSubmitDirect}},
		}}}})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patience) {
		t.Fatal("the broker is not ready")
	}
	var conns [2]*nats.Conn
	for i, user := range []string{"guest", "all"} {
		if conns[i], err = nats.Connect(s.ClientURL(), nats.UserInfo(user, "x"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(conns[i].Close)
	}
	js, err := jsutil.JetStream(conns[1])
	if err == nil {
		err = jsutil.EnsureTopology(t.Context(), js, jsutil.NewTopology(jsutil.TopologyOptions{}))
	}
	if err != nil {
		t.Fatal(err)
	}
	return conns[0], conns[1]
}

// Whoever may not ask goes to the inbox at once.
func TestSubmitWithoutTheRightToAsk(t *testing.T) {
	nc, all := guest(t, contracts.SubjectSubmitDirect)
	for _, what := range []string{"one", "many", "many at once"} {
		c, err := client.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		switch what {
		case "one":
			_, err = c.Submit(soon(t), contracts.Submission{AgentKey: "echo"})
		case "many at once":
			errs := make([]error, 8)
			var all sync.WaitGroup
			for i := range errs {
				all.Go(func() { _, errs[i] = c.Submit(soon(t), contracts.Submission{AgentKey: "echo"}) })
			}
			all.Wait()
			err = errors.Join(errs...)
		default:
			for _, e := range c.SubmitAll(soon(t), func(yield func(contracts.Submission) bool) {
				for range 100 {
					if !yield(contracts.Submission{AgentKey: "echo"}) {
						return
					}
				}
			}) {
				err = errors.Join(err, e)
			}
		}
		if took := time.Since(began); err != nil || took > time.Second {
			t.Errorf("%s: took %s, %v", what, took, err)
		}
	}
	js, err := jsutil.JetStream(all)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := js.Stream(t.Context(), contracts.StreamInbox); err != nil || s.CachedInfo().State.Msgs != 109 {
		t.Errorf("of 109 submissions %d are in the inbox, %v", s.CachedInfo().State.Msgs, err)
	}
}

// That the broker has refused something before does not keep anybody from asking.
func TestSubmitAfterAnotherRefusal(t *testing.T) {
	nc, all := guest(t)
	var asked atomic.Int64
	if _, err := all.Subscribe(contracts.SubjectSubmitDirect, func(m *nats.Msg) {
		asked.Add(1)
		if err := m.Respond([]byte(`{"stream":"RUNS_LOG","seq":1}`)); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.SubscribeSync(contracts.SubjectSubmitDirect); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(all.Flush(), nc.Flush()); err != nil || !errors.Is(nc.LastError(), nats.ErrPermissionViolation) {
		t.Fatalf("the test needs a refusal: %v, %v", err, nc.LastError())
	}
	c, err := client.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := c.Submit(soon(t), contracts.Submission{AgentKey: "echo"}); err != nil {
			t.Fatal(err)
		}
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("a dispatcher was asked %d times for 3 runs", n)
	}
}
