package worker

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"longhaul/pkg/contracts"
)

func TestDecide(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	head := func(s contracts.Status, attempt int, notBefore time.Time) contracts.Head {
		return contracts.Head{Seq: 5, Position: contracts.Position{Status: s, Attempt: attempt, MaxAttempts: 3, NotBefore: notBefore}}
	}
	var never time.Time
	for _, c := range []struct {
		what    string
		head    contracts.Head
		gone    bool
		want    action
		startBy time.Time
	}{
		{"empty log", contracts.Head{}, false, actDrop, never},
		{"fresh", head(contracts.StatusPending, 0, never), false, actStart, never},
		{"fresh, to begin by now", head(contracts.StatusPending, 0, never), false, actStart, now},
		{"fresh, to begin earlier", head(contracts.StatusPending, 0, never), false, actTimeOut, now.Add(-1)},
		{"ended, to begin earlier", head(contracts.StatusTimedOut, 0, never), false, actDrop, now.Add(-1)},
		{"backoff not over", head(contracts.StatusPending, 1, now.Add(time.Second)), false, actWait, never},
		{"backoff over", head(contracts.StatusPending, 1, now), false, actStart, never},
		{"scheduled, stray message", head(contracts.StatusScheduled, 0, now.Add(-time.Second)), false, actDrop, never},
		{"held", head(contracts.StatusRunning, 1, never), false, actAsk, never},
		{"holder gone", head(contracts.StatusRunning, 1, never), true, actStart, never},
		{"holder gone in the last attempt", head(contracts.StatusRunning, 3, never), true, actExhaust, never},
		{"cancelling, held", head(contracts.StatusCancelling, 1, never), false, actAsk, never},
		{"cancelling, holder gone", head(contracts.StatusCancelling, 3, never), true, actCancel, never},
		{"succeeded", head(contracts.StatusSucceeded, 1, never), false, actDrop, never},
		{"rejected", head(contracts.StatusRejected, 0, never), false, actDrop, never},
	} {
		if got := decide(c.head, c.startBy, now, c.gone); got != c.want {
			t.Errorf("%s: action %d, want %d", c.what, got, c.want)
		}
	}
}

func TestBackoff(t *testing.T) {
	for _, c := range []struct {
		base    float64
		attempt int
		random  float64
		want    time.Duration
	}{
		{2, 1, 0, 2 * time.Second},
		{2, 3, 0, 8 * time.Second},
		{2, 3, 0.5, 8400 * time.Millisecond},
		{2, 50, 0, 300 * time.Second},
		{2, 5000, 0, 300 * time.Second}, // 2^5000 is infinite
		{0, 1, 0, 0},
	} {
		if got := backoff(c.base, 300*time.Second, c.attempt, c.random); got != c.want {
			t.Errorf("backoff(%v, attempt %d, random %v) = %v, want %v", c.base, c.attempt, c.random, got, c.want)
		}
	}
}

// Whatever the settings, a delay is within its bounds and grows with the attempts.
func TestHeeded(t *testing.T) {
	for asked, want := range map[float64]float64{0: 0, -1: 0, 2.5: 2.5, 1e9: 86400, math.Inf(1): 86400, math.NaN(): 0} {
		if got := heeded(asked); got != want {
			t.Errorf("of %v seconds %v are heeded, want %v", asked, got, want)
		}
	}
}

func TestBackoffProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.Float64Range(1, 10).Draw(t, "base")
		limit := time.Duration(rapid.IntRange(1, 3600).Draw(t, "limit")) * time.Second
		attempt := rapid.IntRange(1, 100).Draw(t, "attempt")
		random := rapid.Float64Range(0, 0.999).Draw(t, "random")
		least, got, next := backoff(base, limit, attempt, 0), backoff(base, limit, attempt, random), backoff(base, limit, attempt+1, random)
		if got < least || got > least+least/10+1 || least > limit || next < got {
			t.Errorf("backoff(%v, %v, attempt %d, random %v) = %v; without chance %v, the next %v", base, limit, attempt, random, got, least, next)
		}
	})
}

func TestConfigFaultsComeTogether(t *testing.T) {
	_, err := New(nil, Config{WorkerID: "no spaces", Concurrency: -1, Lease: time.Millisecond, MaxAttempts: 1000})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, field := range []string{"worker_id", "agents", "concurrency", "lease", "max_attempts"} {
		if !strings.Contains(err.Error(), field+":") {
			t.Errorf("%q does not name %s", err, field)
		}
	}
}

// TestShare checks that every queue with a backlog gets its part, and nobody more than room.
func TestShare(t *testing.T) {
	got := map[contracts.Priority]int{}
	one := &hosted{room: 1000}
	sources := []*source{{hosted: one, priority: contracts.PriorityHigh, backlog: 1000}, {hosted: one, priority: contracts.PriorityNormal, backlog: 1000}, {hosted: one, priority: contracts.PriorityLow, backlog: 1000}}
	for range 210 { // one slot at a time, as it is with a concurrency of 1
		for s, n := range share(1, append([]*source(nil), sources...)) {
			got[s.priority] += n
		}
	}
	if got[contracts.PriorityHigh] != 160 || got[contracts.PriorityNormal] != 40 || got[contracts.PriorityLow] != 10 {
		t.Errorf("210 slots were shared %v, want 160:40:10", got)
	}
	all := share(100, []*source{{hosted: one, priority: contracts.PriorityHigh, backlog: 3}, {hosted: one, priority: contracts.PriorityLow, backlog: 1000}})
	total := 0
	for s, n := range all {
		total += n
		if s.priority == contracts.PriorityHigh && n != 3 {
			t.Errorf("a backlog of 3 got %d", n)
		}
	}
	if total != 100 {
		t.Errorf("%d of 100 were shared", total)
	}
	// An agent without room leaves it all to others, and one with some gets no more, over all of its queues.
	two := &hosted{room: 2}
	narrow := []*source{{hosted: two, priority: contracts.PriorityHigh, backlog: 9}, {hosted: two, priority: contracts.PriorityLow, backlog: 9}}
	wide := &source{hosted: one, priority: contracts.PriorityLow, backlog: 1000}
	all = share(100, append([]*source{{hosted: &hosted{}, priority: contracts.PriorityHigh, backlog: 9}, wide}, narrow...))
	if all[narrow[0]]+all[narrow[1]] != 2 || all[wide] != 98 || len(all) > 3 {
		t.Errorf("one with room for 2 got %d and %d, one with room for all %d", all[narrow[0]], all[narrow[1]], all[wide])
	}
}
