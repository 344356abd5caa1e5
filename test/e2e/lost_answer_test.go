package e2e

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/test/cluster"
)

// A submission is stored, and the answer lost with the connection, as when the
// broker dies that would have given it: Submit tries again, and does not wait
// for that answer until its caller's patience is at an end.
func TestSubmitOverALostAnswer(t *testing.T) {
	s := newStage(t)
	s.start(t, "dispatcher")
	s.start(t, "statekeeper")
	s.start(t, "worker", "--agent", "echo")
	s.waitForAgent(t, "echo")
	// A link knows one address, and TLS the name of who is meant: both are there
	// without a deployment and with one.
	cfg := s.reach("client")
	if s.secured != nil {
		return // nothing of this depends on who asks
	}
	c, nc, link := distant(t, cfg)
	for _, lost := range []struct {
		to  string
		sub contracts.Submission
	}{
		{contracts.SubjectSubmitDirect, contracts.Submission{AgentKey: "echo"}},
		{contracts.SubjectSubmit, contracts.Submission{AgentKey: "echo", IdempotencyKey: "lost"}},
	} {
		if err := jsutil.WaitConnected(t.Context(), nc); err != nil {
			t.Fatal(err)
		}
		var sent atomic.Bool
		link.Set(&cluster.Trap{Way: cluster.Up, Pattern: []byte("PUB " + lost.to + " "), Then: func() { sent.Store(true) }})
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		begun := time.Now()
		id, err := c.Submit(ctx, lost.sub)
		if took := time.Since(begun); err != nil || took > 10*time.Second || !sent.Load() {
			t.Errorf("submit, %s unanswered (%t): %v after %s, want a second try after some seconds", lost.to, sent.Load(), err, took)
		}
		if all := checkLog(t, s.log(t), id); all[len(all)-1].Status != contracts.StatusSucceeded {
			t.Errorf("the run ended as %s", all[len(all)-1].Status)
		}
	}
}

// distant is a client whose connection goes through a link.
func distant(t *testing.T, cfg jsutil.ConnectConfig) (*client.Client, *nats.Conn, *cluster.Link) {
	t.Helper()
	first, _, _ := strings.Cut(strings.TrimPrefix(cfg.URL, "nats://"), ",")
	link, err := cluster.NewLink(first)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(link.Close)
	cfg.URL = "nats://" + link.Addr()
	nc := connectBy(t, cfg)
	c, err := client.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return c, nc, link
}

// Of many that no dispatcher takes at once (nobody has registered their agent)
// each costs no round trip of its own.
func TestSubmitAllFromAfar(t *testing.T) {
	s := newStage(t)
	s.start(t, "dispatcher")
	s.start(t, "worker", "--agent", "echo")
	s.waitForAgent(t, "echo")
	cfg := s.reach("client")
	if s.secured != nil {
		return // as above
	}
	c, _, link := distant(t, cfg)
	link.Slow(5 * time.Millisecond)
	begun, n := time.Now(), 0
	for id, err := range c.SubmitAll(t.Context(), slices.Values(slices.Repeat([]contracts.Submission{{AgentKey: "nobody"}}, 1000))) {
		if err != nil {
			t.Fatalf("run %s: %v", id, err)
		}
		n++
	}
	if took := time.Since(begun); n != 1000 || took > 3*time.Second { // one after the other it would be 10 s
		t.Errorf("%d were submitted in %s", n, took)
	}
}
