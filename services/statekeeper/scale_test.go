package statekeeper

import (
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil/jstest"
)

// TestHundredThousandRuns lists 100,000 runs by page, from the newest to the
// oldest, and measures what that and the index take.
func TestHundredThousandRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 100,000 records")
	}
	runs := 100_000
	if raceEnabled {
		runs /= 10
	}
	b := jstest.StartFile(t)
	fill(t, b, runs)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	k := startKeeper(t, b, Config{})
	waitForUpTo(t, 60*time.Second, "the index to be loaded", func() (bool, string) { return k.feed.current() != nil, "" })
	t.Logf("loaded in %s", time.Since(began))
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d bytes of heap per run, broker's caches included", (after.HeapAlloc-before.HeapAlloc)/uint64(runs))
	awaitAPI(t, b)
	if got := k.feed.current().stats().Total; got != runs {
		t.Fatalf("the index holds %d runs, want %d", got, runs)
	}
	for _, c := range []struct {
		name  string
		q     contracts.ListRequest
		pages int
		p99   time.Duration // with slack for a loaded machine
		want  int           // 0: not counted
	}{
		{"pages of 50", contracts.ListRequest{Limit: 50}, 400, 50 * time.Millisecond, 0},
		{"pages of 1000, all", contracts.ListRequest{Limit: 1000}, 1 << 30, 500 * time.Millisecond, runs},
		{"one agent of seven", contracts.ListRequest{AgentKey: "agent-3"}, 200, 50 * time.Millisecond, 0},
		{"one order of all", contracts.ListRequest{Metadata: map[string]string{"order": "order-number-000000007"}}, 1, 200 * time.Millisecond, 1},
		{"nothing", contracts.ListRequest{ConversationID: "no such"}, 1, 50 * time.Millisecond, 0},
	} {
		var took []time.Duration
		count := 0
		for q := c.q; len(took) < c.pages; {
			began := time.Now()
			page, err := ask[contracts.ListResponse](t, b.NC, contracts.EndpointList, q)
			if err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Since(began))
			count += len(page.Runs)
			if q.Cursor = page.Cursor; q.Cursor == "" {
				break
			}
		}
		slices.Sort(took)
		p99 := took[len(took)*99/100]
		t.Logf("%s: %d runs on %d pages, median %s, p99 %s", c.name, count, len(took), took[len(took)/2], p99)
		if p99 > c.p99 && !raceEnabled {
			t.Errorf("%s: p99 %s, want at most %s", c.name, p99, c.p99)
		}
		if c.want > 0 && count != c.want {
			t.Errorf("%s: %d runs, want %d", c.name, count, c.want)
		}
	}
}

// fill writes records as the projector would.
func fill(t *testing.T, b *jstest.Broker, n int) {
	t.Helper()
	var failed atomic.Int64
	js, err := jetstream.New(b.NC, jetstream.WithPublishAsyncMaxPending(2000),
		jetstream.WithPublishAsyncErrHandler(func(jetstream.JetStream, *nats.Msg, error) { failed.Add(1) }))
	if err != nil {
		t.Fatal(err)
	}
	base := time.Now().Add(-time.Hour)
	for i := range n {
		id, s := typical(i, base)
		rec := contracts.StatusRecord{
			RunID: id.String(), ConversationID: s.ConversationID, Metadata: s.Metadata, CreatedAt: s.CreatedAt, UpdatedAt: s.CreatedAt,
			Position: contracts.Position{AgentKey: s.AgentKey, Status: s.Status, Epoch: 1, Attempt: 1, MaxAttempts: 3},
			Seq:      3, LogSequence: uint64(3 * (i + 1)),
		}
		data, err := contracts.Encode(rec)
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err = js.PublishAsync(statusSubject(rec.RunID), data); err == nil {
				break
			}
			t.Log(fmt.Errorf("record %d: %w, again", i, err))
		}
	}
	select {
	case <-js.PublishAsyncComplete():
	case <-time.After(time.Minute):
		t.Fatal("the records were not stored within a minute")
	}
	if failed.Load() > 0 {
		t.Fatalf("%d records were refused", failed.Load())
	}
}
