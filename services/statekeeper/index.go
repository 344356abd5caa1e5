package statekeeper

import (
	"bytes"
	"cmp"
	"math"
	"sync"
	"time"
	"unique"

	"github.com/google/uuid"
	"github.com/tidwall/btree"

	"longhaul/pkg/contracts"
)

// index knows every run well enough to filter and order a list, and nothing
// else: what a list shows is read from the bucket. Its methods may be called
// from several goroutines.
//
// Memory: 280 bytes of heap per run, 400 while it waits, measured at 100,000 runs
// with two metadata entries each, one of them different in every run.
// TestIndexMemory holds them below 400 and 500. Listing takes milliseconds:
// TestHundredThousandRuns.
type index struct {
	mu      sync.RWMutex
	byID    map[uuid.UUID]*indexed
	ordered *btree.BTreeG[*indexed] // oldest first
	counts  map[class]int
	held    map[text]map[uuid.UUID]uint64 // by worker, the run.started of each run that it holds
	live    *btree.BTreeG[*liveRun]       // by queue, in the order of their last events
}

// text is a string that many runs share.
type text = unique.Handle[string]

// class is what runs are counted by.
type class struct{ agent, status text }

// indexed is one run. It belongs to the index's lock.
type indexed struct {
	id      uuid.UUID
	created int64 // UnixNano
	ended   int64 // UnixNano; 0 if it has not
	class
	conv text
	meta []tag
	// worker holds the run since the log sequence started; none if that is 0.
	worker  text
	started uint64
	live    *liveRun // nil if it has ended
}

// tag is one entry of a run's metadata. Many a value is one run's alone.
type tag struct {
	key   text
	value string
}

func newIndex() *index {
	return &index{
		byID: make(map[uuid.UUID]*indexed),
		// The index has its own lock.
		ordered: btree.NewBTreeGOptions(older, btree.Options{NoLocks: true}),
		counts:  make(map[class]int),
		held:    make(map[text]map[uuid.UUID]uint64),
		live:    btree.NewBTreeGOptions(behind, btree.Options{NoLocks: true}),
	}
}

// older orders runs by creation, and by id where that is the same.
func older(a, b *indexed) bool {
	if a.created != b.created {
		return a.created < b.created
	}
	return bytes.Compare(a.id[:], b.id[:]) < 0
}

// set puts a run in, or in another state; s need hold no more than
// contracts.DecodeSummary reads. One without a valid status takes it out.
func (x *index) set(id uuid.UUID, s contracts.StatusRecord) {
	r := &indexed{
		id: id, created: s.CreatedAt.UnixNano(), conv: unique.Make(s.ConversationID),
		class: class{unique.Make(s.AgentKey), unique.Make(string(s.Status))}, meta: tags(s.Metadata),
	}
	if s.Status.Held() {
		r.worker, r.started = unique.Make(s.WorkerID), s.StartedSequence
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.remove(id)
	if !s.Status.Valid() {
		return
	}
	if s.Status.Terminal() {
		r.ended = s.FinishedAt.UnixNano()
	} else if contracts.CheckAgentKey(s.AgentKey) == nil && s.Priority.Valid() { // else a stranger wrote it, and the audit finds that
		r.live = &liveRun{
			id:     id,
			queue:  queue{r.agent.Value(), contracts.Priority(unique.Make(string(s.Priority)).Value())}, // texts that are shared
			status: contracts.Status(r.status.Value()), sequence: s.LogSequence, notBefore: s.NotBefore, seen: time.Now(),
		}
		x.live.Set(r.live)
	}
	x.byID[id] = r
	x.ordered.Set(r)
	x.counts[r.class]++
	if r.started > 0 {
		if x.held[r.worker] == nil {
			x.held[r.worker] = make(map[uuid.UUID]uint64)
		}
		x.held[r.worker][id] = r.started
	}
}

func tags(metadata map[string]string) []tag {
	list := make([]tag, 0, len(metadata))
	for k, v := range metadata {
		list = append(list, tag{unique.Make(k), v})
	}
	return list
}

// remove takes a run out.
func (x *index) remove(id uuid.UUID) {
	r := x.byID[id]
	if r == nil {
		return
	}
	delete(x.byID, id)
	x.ordered.Delete(r)
	if r.live != nil {
		x.live.Delete(r.live)
	}
	if x.counts[r.class]--; x.counts[r.class] == 0 {
		delete(x.counts, r.class)
	}
	if r.started == 0 {
		return
	}
	if delete(x.held[r.worker], id); len(x.held[r.worker]) == 0 {
		delete(x.held, r.worker)
	}
}

// stats counts the runs, none of a nil index.
func (x *index) stats() contracts.StatsResponse {
	if x == nil {
		return contracts.StatsResponse{}
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	r := contracts.StatsResponse{
		Total: len(x.byID), ByStatus: make(map[contracts.Status]int), ByAgent: make(map[string]map[contracts.Status]int),
	}
	for c, n := range x.counts {
		agent, status := c.agent.Value(), contracts.Status(c.status.Value())
		if r.ByAgent[agent] == nil {
			r.ByAgent[agent] = make(map[contracts.Status]int)
		}
		r.ByAgent[agent][status] = n
		r.ByStatus[status] += n
	}
	return r
}

// heldRun is a run that a worker holds, as far as the index knows, and where
// the run.started by which it does stands in the log.
type heldRun struct {
	runID   string
	started uint64
}

// heldBy lists the runs that a worker holds.
func (x *index) heldBy(workerID string) []heldRun {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var held []heldRun
	for id, started := range x.held[unique.Make(workerID)] {
		held = append(held, heldRun{id.String(), started})
	}
	return held
}

// workers lists the workers that hold runs.
func (x *index) workers() []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	ids := make([]string, 0, len(x.held))
	for w := range x.held {
		ids = append(ids, w.Value())
	}
	return ids
}

// liveRun is what the sweeper wants to know of a run that has not ended.
type liveRun struct {
	id uuid.UUID
	queue
	status    contracts.Status
	sequence  uint64    // of its last event, as far as is known
	notBefore time.Time // of its next start
	seen      time.Time // when the index learned this, by our own clock
}

// queue is where a run waits, or did.
type queue struct {
	agent    string
	priority contracts.Priority
}

// work is where its work message stands.
func (r liveRun) work() string { return contracts.WorkSubject(r.agent, r.priority, r.id.String()) }

// behind orders live runs as the index has them.
func behind(a, b *liveRun) bool {
	return cmp.Or(
		cmp.Compare(a.agent, b.agent),
		cmp.Compare(a.priority, b.priority),
		cmp.Compare(a.sequence, b.sequence),
		bytes.Compare(a.id[:], b.id[:]),
	) < 0
}

// quiet lists live runs of which the index has learned nothing for the
// duration, from one on, at most limit.
func (x *index) quiet(d time.Duration, from liveRun, limit int) (runs []liveRun) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	before := time.Now().Add(-d)
	x.live.Ascend(&from, func(r *liveRun) bool {
		if r.seen.Before(before) {
			runs = append(runs, *r)
		}
		return len(runs) < limit
	})
	return runs
}

// due lists of each queue the first runs that could begin and of which the
// index has learned nothing for the duration, at most limit and none that is
// settled: if some have been handed to a worker, they are the ones.
func (x *index) due(d time.Duration, limit int, settled func(*liveRun) bool) (runs []liveRun) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	now := time.Now()
	from := liveRun{}
	for {
		var q queue
		room := limit
		x.live.Ascend(&from, func(r *liveRun) bool {
			q = cmp.Or(q, r.queue)
			if r.queue == q && r.status == contracts.StatusPending && r.notBefore.Before(now) && now.Sub(r.seen) >= d && !settled(r) {
				runs = append(runs, *r)
				room--
			}
			return r.queue == q && room > 0
		})
		if q == (queue{}) {
			return runs
		}
		from = liveRun{queue: q, sequence: math.MaxUint64} // behind all of it
	}
}

// expired lists runs that ended before the time given for their status, at most limit.
func (x *index) expired(before map[contracts.Status]time.Time, limit int) (ids []string) {
	ended, latest := make(map[text]int64), int64(0)
	for status, t := range before {
		ended[unique.Make(string(status))] = t.UnixNano()
		latest = max(latest, t.UnixNano())
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	x.ordered.Scan(func(r *indexed) bool {
		if r.ended != 0 && r.ended < ended[r.status] {
			ids = append(ids, r.id.String())
		}
		return r.created < latest && len(ids) < limit
	})
	return ids
}
