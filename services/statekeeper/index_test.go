package statekeeper

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
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

// Bounds, in bytes, of what the doc comment of index states.
const memoryPerPlainRun, memoryPerRun, memoryPerLiveRun = 150, 300, 500

func TestIndexMemory(t *testing.T) {
	const runs = 100_000
	for name, c := range map[string]struct {
		on   []contracts.Status // as a run goes on
		most float64
	}{
		"kept":    {[]contracts.Status{contracts.StatusRunning, contracts.StatusSucceeded}, memoryPerRun},
		"waiting": {[]contracts.Status{contracts.StatusPending}, memoryPerLiveRun},
		"plain":   {[]contracts.Status{contracts.StatusRunning, contracts.StatusSucceeded}, memoryPerPlainRun},
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		x, base := newIndex(), time.Now()
		for i := range runs {
			id, s := typical(i, base)
			if name == "plain" {
				s.ConversationID, s.Metadata = "", nil
			}
			for _, s.Status = range c.on {
				x.set(id, s, 0)
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
			x.set(id, contracts.StatusRecord{}, 0)
			delete(m, id)
		default:
			ids = append(ids, id)
			x.set(id, s, 0)
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
		x.set(id, contracts.StatusRecord{}, 0)
	}
	n := len(x.created) + len(x.details) + len(x.kindOf) + len(x.live) + len(x.held) + x.ordered.Len() + x.queues.Len()
	if most := 7 * len(contracts.Statuses()); n != 0 || len(x.kinds) > most {
		t.Errorf("an emptied index keeps %d runs, %d details, %d kinds, %d live runs, %d workers, %d and %d places; it has room for %d kinds, want at most %d",
			len(x.created), len(x.details), len(x.kindOf), len(x.live), len(x.held), x.ordered.Len(), x.queues.Len(), len(x.kinds), most)
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

// TestIndexHasNoPointers holds what makes collections short: of a run that has
// ended, without details, nothing in the index is followed.
func TestIndexHasNoPointers(t *testing.T) {
	t.Parallel()
	var plain func(reflect.Type) bool
	plain = func(of reflect.Type) bool {
		switch of.Kind() {
		case reflect.Struct:
			for i := range of.NumField() {
				if !plain(of.Field(i).Type) {
					return false
				}
			}
			return true
		case reflect.Array:
			return plain(of.Elem())
		default:
			return of.Kind() >= reflect.Bool && of.Kind() <= reflect.Complex128
		}
	}
	x := newIndex()
	for _, kept := range []reflect.Type{reflect.TypeFor[indexed](), reflect.TypeOf(x.created).Key(), reflect.TypeOf(x.created).Elem()} {
		if !plain(kept) {
			t.Errorf("%s has pointers", kept)
		}
	}
	id, s := typical(1, time.Now())
	s.Status, s.ConversationID, s.Metadata = contracts.StatusSucceeded, "", nil
	if x.set(id, s, 0); len(x.details)+len(x.live) != 0 {
		t.Error("a plain run that has ended has details")
	}
}

// TestIndexDetails looks for runs by texts that are easily taken for others.
func TestIndexDetails(t *testing.T) {
	t.Parallel()
	x := newIndex()
	long := strings.Repeat("x", 300)
	texts := []string{"", "a", "b", "ab", "\x01a", "\x00", "a\x01b", long, long + "\x01a"}
	type run struct{ conversation, key, value string }
	runs := map[string]run{}
	for _, c := range texts {
		for _, k := range texts {
			for _, v := range texts {
				id := uuid.Must(uuid.NewV7())
				runs[id.String()] = run{c, k, v}
				x.set(id, contracts.StatusRecord{
					Position: contracts.Position{Status: contracts.StatusSucceeded}, CreatedAt: time.Now(),
					ConversationID: c, Metadata: map[string]string{k: v, "other" + k: "a"},
				}, 0)
			}
		}
	}
	for _, q := range runs {
		ids, _, _ := x.find(contracts.ListRequest{ConversationID: q.conversation, Metadata: map[string]string{q.key: q.value}}, newest(), len(runs))
		want := 1
		if q.conversation == "" {
			want = len(texts) // no filter
		}
		for _, id := range ids {
			if r := runs[id]; r.key != q.key || r.value != q.value || q.conversation != "" && r != q {
				t.Fatalf("%q: found %q", q, r)
			}
		}
		if len(ids) != want {
			t.Fatalf("%q: %d runs, want %d", q, len(ids), want)
		}
	}
}

// TestIndexTagsCollide looks for a conversation that has another one's tags.
func TestIndexTagsCollide(t *testing.T) {
	t.Parallel()
	x := newIndex()
	seen := map[uint64]string{}
	for i := 0; ; i++ { // some dozens do, by the birthday paradox
		name := fmt.Sprintf("conversation-%d", i)
		twin, found := seen[x.tags(name, nil)]
		seen[x.tags(name, nil)] = name
		if !found {
			continue
		}
		for _, c := range []string{name, twin} {
			x.set(uuid.New(), contracts.StatusRecord{Position: contracts.Position{Status: contracts.StatusFailed}, CreatedAt: time.Now(), ConversationID: c}, 0)
		}
		if ids, _, _ := x.find(contracts.ListRequest{ConversationID: name}, newest(), 9); len(ids) != 1 {
			t.Errorf("%d runs of %s, want 1: that of %s has the same tags", len(ids), name, twin)
		}
		return
	}
}

// TestIndexMakesFreshRecords: what the index makes of a run that waits leads to the
// same record as what is stored.
func TestIndexMakesFreshRecords(t *testing.T) {
	t.Parallel()
	with := func(change func(*contracts.Draft, *contracts.Submission)) contracts.Draft {
		var s contracts.Submission
		d := queued(s)
		change(&d, &s)
		if d.Type == contracts.TypeScheduled {
			d.Payload = contracts.Scheduled{NotBefore: d.NotBefore, Submission: s}
		} else {
			d.Payload = contracts.Queued{Submission: s}
		}
		return d
	}
	for name, c := range map[string]struct {
		draft contracts.Draft
		on    []contracts.Draft // before what is told to the index
		at    time.Time
		fresh bool
		under string // another key than its own
	}{
		"plain": {with(func(*contracts.Draft, *contracts.Submission) {}), nil, time.Now(), true, ""},
		"details": {with(func(_ *contracts.Draft, s *contracts.Submission) {
			s.ConversationID, s.Metadata = "c", map[string]string{"a": "<b>"}
		}), nil, time.Now(), true, ""},
		"scheduled": {with(func(d *contracts.Draft, s *contracts.Submission) {
			d.Type, d.Priority, d.NotBefore = contracts.TypeScheduled, contracts.PriorityHigh, time.Now().Add(time.Hour).UTC()
		}), nil, time.Now(), true, ""},
		"key":          {with(func(_ *contracts.Draft, s *contracts.Submission) { s.IdempotencyKey = "k" }), nil, time.Now(), false, ""},
		"begun":        {with(func(*contracts.Draft, *contracts.Submission) {}), []contracts.Draft{started("w-1", "")}, time.Now(), false, ""},
		"ended":        {with(func(*contracts.Draft, *contracts.Submission) {}), []contracts.Draft{started("w-1", ""), succeeded()}, time.Now(), false, ""},
		"ages to come": {with(func(*contracts.Draft, *contracts.Submission) {}), nil, time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC), false, ""},
		"another's":    {with(func(*contracts.Draft, *contracts.Submission) {}), nil, time.Now(), false, contracts.NewRunID()},
	} {
		runID := contracts.NewRunID()
		var rec contracts.StatusRecord
		var head contracts.Head
		project := func(rec contracts.StatusRecord, d contracts.Draft) contracts.StatusRecord {
			e, err := contracts.Next(head, runID, d, c.at)
			if err == nil {
				head = e.Head()
				rec, err = contracts.Project(rec, e, 10*e.Seq)
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return rec
		}
		for _, d := range append([]contracts.Draft{c.draft}, c.on...) {
			rec = project(rec, d)
		}
		data, err := contracts.Encode(rec)
		if err != nil {
			t.Fatal(err)
		}
		summary, err := contracts.DecodeSummary(data)
		if err != nil {
			t.Fatal(err)
		}
		x := newIndex()
		key := cmp.Or(c.under, runID)
		x.set(uuid.MustParse(key), summary, 7)
		there := x.fresh(key)
		if (there.revision == 7) != c.fresh {
			t.Errorf("%s: fresh is %+v, want one: %v", name, there, c.fresh)
		}
		if !c.fresh {
			continue
		}
		before := head
		next := contracts.Draft{Type: contracts.TypeCancelled, Payload: contracts.Cancelled{}}
		want := project(decodeStored(jsutil.Stored{Subject: statusSubject(runID), Data: data}).rec, next)
		head = before
		if got := project(there.rec, next); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: leads to %+v, want %+v", name, got, want)
		}
	}
}

func BenchmarkIndexSet(b *testing.B) {
	x, base := newIndex(), time.Now()
	for i := 0; b.Loop(); i++ {
		id, s := typical(i, base)
		x.set(id, s, 0)
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
		}, 0)
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
		return cmp.Compare(x.live[a].priority, x.live[b].priority)
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
		x.set(id, contracts.StatusRecord{}, 0)
	}
	if n := x.queues.Len(); n != 0 {
		t.Errorf("%d runs live on", n)
	}
}
