package statekeeper

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"longhaul/pkg/contracts"
)

// typical is a run as an index of many would hold it.
func typical(i int, base time.Time) (uuid.UUID, contracts.StatusRecord) {
	statuses := contracts.Statuses()
	s := contracts.StatusRecord{
		Position: contracts.Position{
			AgentKey: fmt.Sprintf("agent-%d", i%7), Priority: contracts.PriorityNormal, Status: statuses[i%len(statuses)], WorkerID: fmt.Sprintf("w-%d", i%50),
		},
		StartedSequence: uint64(i + 1),
		ConversationID:  fmt.Sprintf("conversation-%d", i/10),
		Metadata:        map[string]string{"user": fmt.Sprintf("user-%d", i%1000), "order": fmt.Sprintf("order-number-%09d", i)},
		CreatedAt:       base.Add(time.Duration(i) * time.Millisecond),
	}
	return uuid.Must(uuid.NewV7()), s
}

// memoryPerRun and memoryPerLiveRun are what the doc comment of index states, in bytes.
const memoryPerRun, memoryPerLiveRun = 400, 500

func TestIndexMemory(t *testing.T) {
	const runs = 100_000
	for name, c := range map[string]struct {
		on   []contracts.Status // as a run goes on
		most float64
	}{
		"kept":    {[]contracts.Status{contracts.StatusRunning, contracts.StatusSucceeded}, memoryPerRun},
		"waiting": {[]contracts.Status{contracts.StatusPending}, memoryPerLiveRun},
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		x, base := newIndex(), time.Now()
		for i := range runs {
			id, s := typical(i, base)
			for _, s.Status = range c.on {
				x.set(id, s)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		per := float64(after.HeapAlloc-before.HeapAlloc) / runs
		t.Logf("%s: %.0f bytes per run", name, per)
		if per > c.most {
			t.Errorf("the index takes %.0f bytes per run that is %s, want at most %.0f", per, name, c.most)
		}
		runtime.KeepAlive(x)
	}
}

// model is the index, made plainly.
type model map[uuid.UUID]contracts.StatusRecord

func (m model) matches(q contracts.ListRequest, s contracts.StatusRecord) bool {
	if len(q.Status) > 0 && s.Status != q.Status[0] || q.AgentKey != "" && s.AgentKey != q.AgentKey ||
		q.ConversationID != "" && s.ConversationID != q.ConversationID ||
		s.CreatedAt.Before(q.CreatedAfter) || !q.CreatedBefore.IsZero() && !s.CreatedAt.Before(q.CreatedBefore) {
		return false
	}
	for k, v := range q.Metadata {
		if have, ok := s.Metadata[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// TestIndexAgainstModel changes runs at random and compares lists and counts.
func TestIndexAgainstModel(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	x, m, base := newIndex(), model{}, time.Unix(1_700_000_000, 0)
	var ids []uuid.UUID
	for step := range 4000 {
		id, s := typical(r.IntN(500), base)
		if len(ids) > 0 && r.IntN(3) > 0 {
			id = ids[r.IntN(len(ids))]
			if had, ok := m[id]; ok {
				s.CreatedAt = had.CreatedAt
			}
		}
		switch {
		case r.IntN(5) == 0:
			x.set(id, contracts.StatusRecord{})
			delete(m, id)
		default:
			ids = append(ids, id)
			x.set(id, s)
			m[id] = s
		}
		if step%100 != 0 {
			continue
		}
		_, like := typical(r.IntN(500), base)
		for _, q := range []contracts.ListRequest{
			{}, {Status: []contracts.Status{like.Status}}, {AgentKey: like.AgentKey}, {ConversationID: like.ConversationID},
			{Metadata: map[string]string{"user": like.Metadata["user"]}}, {Metadata: like.Metadata, AgentKey: like.AgentKey},
			{CreatedAfter: like.CreatedAt}, {CreatedBefore: like.CreatedAt},
			{CreatedAfter: like.CreatedAt, CreatedBefore: like.CreatedAt.Add(50 * time.Millisecond)}, {AgentKey: "none"},
		} {
			compare(t, x, m, q, 1+r.IntN(20))
		}
		if total := x.stats().Total; total != len(m) {
			t.Fatalf("step %d: %d runs, want %d", step, total, len(m))
		}
	}
	for id := range m {
		x.set(id, contracts.StatusRecord{})
	}
	if len(x.byID)+len(x.counts)+len(x.held)+x.ordered.Len() != 0 {
		t.Errorf("an emptied index keeps %d runs, %d counts, %d workers, %d places", len(x.byID), len(x.counts), len(x.held), x.ordered.Len())
	}
}

// compare lists by page and holds it against the model.
func compare(t *testing.T, x *index, m model, q contracts.ListRequest, page int) {
	t.Helper()
	want := 0
	for _, s := range m {
		if m.matches(q, s) {
			want++
		}
	}
	seen := make(map[uuid.UUID]bool)
	var latest time.Time
	for from, more := newest(), true; more; {
		var ids []string
		ids, from, more = x.find(q, from, page)
		if more && len(ids) != page {
			t.Fatalf("%+v: a page of %d, with more to come, want %d", q, len(ids), page)
		}
		for _, id := range ids {
			id := uuid.MustParse(id)
			s, ok := m[id]
			if !ok || !m.matches(q, s) || seen[id] || !latest.IsZero() && s.CreatedAt.After(latest) {
				t.Fatalf("%+v: run %s (%+v) should not be here; seen %v", q, id, s, seen[id])
			}
			seen[id], latest = true, s.CreatedAt
		}
	}
	if len(seen) != want {
		t.Fatalf("%+v: %d runs, want %d", q, len(seen), want)
	}
}

func BenchmarkIndexSet(b *testing.B) {
	x, base := newIndex(), time.Now()
	for i := 0; b.Loop(); i++ {
		id, s := typical(i, base)
		x.set(id, s)
	}
}

func TestCursor(t *testing.T) {
	t.Parallel()
	p := position{time.Now().UnixNano(), uuid.New()}
	if got, err := parseCursor(p.cursor()); err != nil || got != p {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"x", "!!", p.cursor() + "A", p.cursor()[:20], "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"} {
		if _, err := parseCursor(bad); err == nil {
			t.Errorf("cursor %q was taken", bad)
		}
	}
}

func TestIndexOfLiveRuns(t *testing.T) {
	x := newIndex()
	put := func(agent string, p contracts.Priority, status contracts.Status, sequence uint64, notBefore time.Time) uuid.UUID {
		id := uuid.Must(uuid.NewV7())
		x.set(id, contracts.StatusRecord{
			Position: contracts.Position{AgentKey: agent, Priority: p, Status: status, NotBefore: notBefore}, LogSequence: sequence, CreatedAt: time.Now(),
		})
		return id
	}
	const normal, pending = contracts.PriorityNormal, contracts.StatusPending
	var want []uuid.UUID // in the order of queues, and of their last events
	for _, agent := range []string{"a", "b"} {
		second := put(agent, normal, pending, 20, time.Time{})
		running := put(agent, normal, contracts.StatusRunning, 5, time.Time{})
		later := put(agent, normal, pending, 6, time.Now().Add(time.Hour))
		first := put(agent, normal, pending, 10, time.Time{})
		put(agent, normal, contracts.StatusSucceeded, 7, time.Time{})
		want = append(want, running, later, first, second)
	}
	want = append(want, put("b", contracts.PriorityLow, pending, 1, time.Time{}))
	slices.SortStableFunc(want[4:], func(a, b uuid.UUID) int { // low comes before normal, as words do
		return cmp.Compare(x.byID[a].live.priority, x.byID[b].live.priority)
	})
	put("no key", normal, pending, 3, time.Time{}) // a stranger's records are not looked at
	put("a", "urgent", pending, 3, time.Time{})

	var got []uuid.UUID
	for from, n := (liveRun{}), 2; n == 2; {
		page := x.quiet(0, from, 2)
		for _, r := range page {
			got = append(got, r.id)
			from = r
		}
		from.sequence++
		n = len(page)
	}
	if !slices.Equal(got, want) {
		t.Errorf("live runs are %v, want %v", got, want)
	}
	if n := len(x.quiet(time.Minute, liveRun{}, 9)); n != 0 {
		t.Errorf("%d runs have been quiet for a minute", n)
	}
	due := func(limit int) (ids []uuid.UUID) {
		for _, r := range x.due(0, limit, func(*liveRun) bool { return false }) {
			ids = append(ids, r.id)
		}
		return ids
	}
	if got, want := due(1), []uuid.UUID{want[2], want[4], want[7]}; !slices.Equal(got, want) {
		t.Errorf("the first of each queue are %v, want %v", got, want)
	}
	if got, want := due(9), []uuid.UUID{want[2], want[3], want[4], want[7], want[8]}; !slices.Equal(got, want) {
		t.Errorf("those that could begin are %v, want %v", got, want)
	}
	for _, id := range want {
		x.set(id, contracts.StatusRecord{})
	}
	if n := x.live.Len(); n != 0 {
		t.Errorf("%d runs live on", n)
	}
}
