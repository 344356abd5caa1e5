package statekeeper

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
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
// Memory: 120 bytes of heap per run that has ended, 230 with a conversation and two
// metadata entries, one of them different in every run; 410 while such a one waits
// (TestIndexMemory, at 100,000 runs). Listing takes milliseconds: TestHundredThousandRuns.
// There is no pointer in what is kept of each run that has ended: where there were
// seven, a collection of garbage followed a million runs for a third of a second every few
// seconds, and the slowest lists and gets took twice as long for it (docs/benchmarks.md).
type index struct {
	mu      sync.RWMutex
	created map[uuid.UUID]int64           // where a run stands in ordered
	ordered *btree.BTreeG[indexed]        // oldest first
	details map[uuid.UUID]string          // see detailsOf; of runs that have any
	kinds   []kind                        // by indexed.kind
	kindOf  map[class]uint32              // of those that have runs
	unused  []uint32                      // kinds that have none
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
	kind    uint32
	conv    uint32 // a hash of the conversation's id; 0 if there is none
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
// contracts.DecodeSummary reads. One without a valid status takes it out.
func (x *index) set(id uuid.UUID, s contracts.StatusRecord) {
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
		x.setLive(id, c, s)
	}
	if d := detailsOf(s); d != "" {
		x.details[id] = d
		r.conv = x.hash(s.ConversationID)
	}
	r.kind = x.count(c)
	x.created[id] = r.created
	x.ordered.Set(r)
}

// count counts a run in, and returns its kind.
func (x *index) count(c class) uint32 {
	k, known := x.kindOf[c]
	if !known {
		if n := len(x.unused); n > 0 {
			k, x.unused = x.unused[n-1], x.unused[:n-1]
		} else {
			k = uint32(len(x.kinds))
			x.kinds = append(x.kinds, kind{})
		}
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
		*k = kind{}
		x.unused = append(x.unused, r.kind)
	}
	if l := x.live[id]; l != nil {
		delete(x.live, id)
		x.queues.Delete(l)
		if delete(x.held[l.worker], id); len(x.held[l.worker]) == 0 {
			delete(x.held, l.worker)
		}
	}
}

// detailsOf is the conversation and the metadata of a run in one string, "" if it
// has neither: each text behind its length, the conversation first.
func detailsOf(s contracts.StatusRecord) string {
	if s.ConversationID == "" && len(s.Metadata) == 0 {
		return ""
	}
	b := appendText(nil, s.ConversationID)
	for k, v := range s.Metadata {
		b = appendText(appendText(b, k), v)
	}
	return string(b)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// hash is what indexed has of a conversation.
func (x *index) hash(conversation string) uint32 {
	if conversation == "" {
		return 0
	}
	return uint32(maphash.String(x.seed, conversation)) | 1
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
