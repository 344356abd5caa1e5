package statekeeper

import (
	"bytes"
	"encoding/json"
	"hash/maphash"
	"slices"
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
// Memory: 140 bytes of heap per run that has ended, 280 with a conversation and two
// metadata entries, one of them different in every run; 480 while such a one waits
// (TestIndexMemory, at 100,000 runs). Listing takes milliseconds: TestHundredThousandRuns.
// In what is kept of a run that has ended there is one pointer if it has details, else
// none: where there were seven, a collection of garbage followed a million runs for a third
// of a second every few seconds, and the slowest lists and gets took twice as long for it.
type index struct {
	mu      sync.RWMutex
	created map[uuid.UUID]int64           // where a run stands in ordered
	ordered *btree.BTreeG[indexed]        // oldest first
	details map[uuid.UUID]string          // encoded, of runs that have any
	kinds   []kind                        // by indexed.kind
	kindOf  map[class]uint32              // of those that have runs
	live    map[uuid.UUID]*liveRun        // those that have not ended
	queues  *btree.BTreeG[*liveRun]       // by queue, in the order of their last events
	held    map[text]map[uuid.UUID]uint64 // by worker, the run.started of each run that it holds
	seed    maphash.Seed
}

// text is a string that many runs share.
type text = unique.Handle[string]

// class is what runs are counted by.
type class struct{ agent, status text }

// kind is a class, and how many runs are of it.
type kind struct {
	class
	runs int
}

// indexed is one run.
type indexed struct {
	created int64 // UnixNano
	ended   int64 // UnixNano; 0 if it has not
	id      uuid.UUID
	tags    uint64 // of its conversation and metadata: see index.tags
	kind    uint32
}

func newIndex() *index {
	// The index has its own lock.
	noLocks := btree.Options{NoLocks: true}
	return &index{
		created: make(map[uuid.UUID]int64), ordered: btree.NewBTreeGOptions(older, noLocks), details: make(map[uuid.UUID]string),
		kindOf: make(map[class]uint32), live: make(map[uuid.UUID]*liveRun), queues: btree.NewBTreeGOptions(behind, noLocks),
		held: make(map[text]map[uuid.UUID]uint64), seed: maphash.MakeSeed(),
	}
}

// older orders runs by creation, and by id where that is the same.
func older(a, b indexed) bool {
	if a.created != b.created {
		return a.created < b.created
	}
	return bytes.Compare(a.id[:], b.id[:]) < 0
}

// set puts a run in, or in another state; s need hold no more than
// contracts.DecodeSummary reads, and is stored at revision. One without a valid
// status takes it out.
func (x *index) set(id uuid.UUID, s contracts.StatusRecord, revision uint64) {
	r := indexed{id: id, created: s.CreatedAt.UnixNano()}
	c := class{unique.Make(s.AgentKey), unique.Make(string(s.Status))}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.remove(id)
	if !s.Status.Valid() {
		return
	}
	if s.Status.Terminal() {
		r.ended = s.FinishedAt.UnixNano()
	} else {
		x.setLive(id, c, s, revision)
	}
	if r.tags = x.tags(s.ConversationID, s.Metadata); r.tags != 0 {
		d, _ := json.Marshal(details{s.ConversationID, s.Metadata}) // texts always can be encoded
		x.details[id] = string(d)
	}
	r.kind = x.count(c)
	x.created[id] = r.created
	x.ordered.Set(r)
}

// count counts a run in, and returns its kind.
func (x *index) count(c class) uint32 {
	k, known := x.kindOf[c]
	if !known {
		at := slices.IndexFunc(x.kinds, func(k kind) bool { return k.runs == 0 })
		if at < 0 {
			at, x.kinds = len(x.kinds), append(x.kinds, kind{})
		}
		k = uint32(at)
		x.kindOf[c], x.kinds[k].class = k, c
	}
	x.kinds[k].runs++
	return k
}

// remove takes a run out.
func (x *index) remove(id uuid.UUID) {
	created, known := x.created[id]
	if !known {
		return
	}
	delete(x.created, id)
	delete(x.details, id)
	r, _ := x.ordered.Delete(indexed{created: created, id: id})
	k := &x.kinds[r.kind]
	if k.runs--; k.runs == 0 {
		delete(x.kindOf, k.class)
	}
	if l := x.live[id]; l != nil {
		delete(x.live, id)
		x.queues.Delete(l)
		if delete(x.held[l.worker], id); len(x.held[l.worker]) == 0 {
			delete(x.held, l.worker)
		}
	}
}

// details are what a run may have beside, encoded in the index: one text of one run.
type details struct {
	Conversation string            `json:"c,omitempty"`
	Metadata     map[string]string `json:"m,omitempty"`
}

// tags are some bits for the conversation and for each entry of the metadata,
// all of which a run has set that has these: most of the others need no look at
// their details.
func (x *index) tags(conversation string, metadata map[string]string) (tags uint64) {
	tag := func(key, value string) {
		h := maphash.Comparable(x.seed, [2]string{key, value})
		tags |= 1<<(h%64) | 1<<(h/64%64)
	}
	if conversation != "" {
		tag("", conversation)
	}
	for k, v := range metadata {
		tag(k, v)
	}
	return tags
}

// stats counts the runs, none of a nil index.
func (x *index) stats() contracts.StatsResponse {
	if x == nil {
		return contracts.StatsResponse{}
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	r := contracts.StatsResponse{
		Total: len(x.created), ByStatus: make(map[contracts.Status]int), ByAgent: make(map[string]map[contracts.Status]int),
	}
	for c, k := range x.kindOf {
		agent, status, n := c.agent.Value(), contracts.Status(c.status.Value()), x.kinds[k].runs
		if r.ByAgent[agent] == nil {
			r.ByAgent[agent] = make(map[contracts.Status]int)
		}
		r.ByAgent[agent][status] = n
		r.ByStatus[status] += n
	}
	return r
}

// expired lists runs that ended before the time given for their status, at most limit.
func (x *index) expired(before map[contracts.Status]time.Time, limit int) (ids []string) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	ended, latest := make([]int64, len(x.kinds)), int64(0)
	for c, k := range x.kindOf {
		if t, ok := before[contracts.Status(c.status.Value())]; ok {
			ended[k] = t.UnixNano()
			latest = max(latest, t.UnixNano())
		}
	}
	x.ordered.Scan(func(r indexed) bool {
		if r.ended != 0 && r.ended < ended[r.kind] {
			ids = append(ids, r.id.String())
		}
		return r.created < latest && len(ids) < limit
	})
	return ids
}
