package statekeeper

import (
	"fmt"
	"math/rand/v2"
	"runtime"
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
			AgentKey: fmt.Sprintf("agent-%d", i%7), Status: statuses[i%len(statuses)], WorkerID: fmt.Sprintf("w-%d", i%50),
		},
		StartedSequence: uint64(i + 1),
		ConversationID:  fmt.Sprintf("conversation-%d", i/10),
		Metadata:        map[string]string{"user": fmt.Sprintf("user-%d", i%1000), "order": fmt.Sprintf("order-number-%09d", i)},
		CreatedAt:       base.Add(time.Duration(i) * time.Millisecond),
	}
	return uuid.Must(uuid.NewV7()), s
}

// memoryPerRun is what the doc comment of index states, in bytes.
const memoryPerRun = 400

func TestIndexMemory(t *testing.T) {
	const runs = 100_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	x, base := newIndex(), time.Now()
	for i := range runs {
		id, s := typical(i, base)
		x.set(id, s)
		s.Status = contracts.StatusSucceeded // as a run goes on
		x.set(id, s)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := float64(after.HeapAlloc-before.HeapAlloc) / runs
	t.Logf("%.0f bytes per run", per)
	if per > memoryPerRun {
		t.Errorf("the index takes %.0f bytes per run, want at most %d", per, memoryPerRun)
	}
	runtime.KeepAlive(x)
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
