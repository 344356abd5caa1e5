package statekeeper

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/tidwall/btree"

	"longhaul/pkg/contracts"
)

// index knows every run well enough to filter and order a list, and nothing
// else: what a list shows is read from the bucket. Its methods may be called
// from several goroutines.
//
// Memory: 275 bytes of heap per run, measured at 100,000 runs with two metadata
// entries each, one of them different in every run. TestIndexMemory holds it
// below 400. Listing them takes milliseconds: TestHundredThousandRuns.
type index struct {
	mu      sync.RWMutex
	byID    map[uuid.UUID]*indexed
	ordered *btree.BTreeG[*indexed] // oldest first
	symbols symbols
	byAgent map[*symbol]*[statusCount]int
	holders map[*symbol]int // runs held, by worker
}

// indexed is one run. It belongs to the index's lock.
type indexed struct {
	id      uuid.UUID
	status  statusCode
	created int64 // UnixNano
	epoch   uint64
	agent   *symbol
	worker  *symbol // nil unless the run is held
	conv    *symbol
	meta    []tag
}

// tag is one entry of a run's metadata.
type tag struct{ key, value *symbol }

// statusCode is a status as its place in contracts.Statuses.
type statusCode uint8

// statusCount is the number of statuses; TestStatusCodes holds it to contracts.
const statusCount = 9

func codeOf(s contracts.Status) (statusCode, bool) {
	i := slices.Index(contracts.Statuses(), s)
	return statusCode(max(i, 0)), i >= 0
}

func newIndex() *index {
	return &index{
		byID: make(map[uuid.UUID]*indexed),
		// The index has its own lock.
		ordered: btree.NewBTreeGOptions(older, btree.Options{NoLocks: true}),
		byAgent: make(map[*symbol]*[statusCount]int),
		holders: make(map[*symbol]int),
	}
}

// older orders runs by creation, and by id where that is the same.
func older(a, b *indexed) bool {
	if a.created != b.created {
		return a.created < b.created
	}
	return bytes.Compare(a.id[:], b.id[:]) < 0
}

// summary is the part of a status record that the index keeps.
type summary struct {
	AgentKey       string            `json:"agent_key"`
	Status         contracts.Status  `json:"status"`
	Epoch          uint64            `json:"epoch"`
	WorkerID       string            `json:"worker_id"`
	ConversationID string            `json:"conversation_id"`
	Metadata       map[string]string `json:"metadata"`
	CreatedAt      time.Time         `json:"created_at"`
}

// set puts a run in, or in another state. A record with an unknown status, as
// only somebody's hand writes one, takes it out.
func (x *index) set(id uuid.UUID, s summary) {
	code, ok := codeOf(s.Status)
	x.mu.Lock()
	defer x.mu.Unlock()
	old := x.byID[id]
	if !ok {
		x.remove(old)
		return
	}
	r := &indexed{id: id, status: code, created: s.CreatedAt.UnixNano(), epoch: s.Epoch}
	r.agent, r.conv = x.symbols.take(s.AgentKey), x.symbols.take(s.ConversationID)
	if s.Status.Held() {
		r.worker = x.symbols.take(s.WorkerID)
	}
	if len(s.Metadata) > 0 {
		r.meta = make([]tag, 0, len(s.Metadata))
		for k, v := range s.Metadata {
			r.meta = append(r.meta, tag{x.symbols.take(k), x.symbols.take(v)})
		}
	}
	x.remove(old)
	x.byID[id] = r
	x.ordered.Set(r)
	x.count(r, 1)
}

// delete takes a run out.
func (x *index) delete(id uuid.UUID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.remove(x.byID[id])
}

func (x *index) remove(r *indexed) {
	if r == nil {
		return
	}
	delete(x.byID, r.id)
	x.ordered.Delete(r)
	x.count(r, -1)
	x.symbols.drop(r.agent)
	x.symbols.drop(r.conv)
	x.symbols.drop(r.worker)
	for _, t := range r.meta {
		x.symbols.drop(t.key)
		x.symbols.drop(t.value)
	}
}

func (x *index) count(r *indexed, by int) {
	n := x.byAgent[r.agent]
	if n == nil {
		n = new([statusCount]int)
		x.byAgent[r.agent] = n
	}
	n[r.status] += by
	if *n == [statusCount]int{} {
		delete(x.byAgent, r.agent)
	}
	if r.worker == nil {
		return
	}
	if x.holders[r.worker] += by; x.holders[r.worker] == 0 {
		delete(x.holders, r.worker)
	}
}

// stats counts the runs.
func (x *index) stats() contracts.StatsResponse {
	x.mu.RLock()
	defer x.mu.RUnlock()
	r := contracts.StatsResponse{
		Total: len(x.byID), ByStatus: make(map[contracts.Status]int), ByAgent: make(map[string]map[contracts.Status]int),
	}
	statuses := contracts.Statuses()
	for agent, counts := range x.byAgent {
		by := make(map[contracts.Status]int)
		for code, n := range counts {
			if n > 0 {
				by[statuses[code]] = n
				r.ByStatus[statuses[code]] += n
			}
		}
		r.ByAgent[agent.string()] = by
	}
	return r
}

// heldRun is a run that a worker holds, as far as the index knows.
type heldRun struct {
	runID string
	epoch uint64
}

// heldBy lists the runs that a worker holds, the oldest first. It looks at
// every run, which is a few milliseconds for 100,000.
func (x *index) heldBy(workerID string) []heldRun {
	x.mu.RLock()
	defer x.mu.RUnlock()
	worker, ok := x.symbols.find(workerID)
	if !ok || x.holders[worker] == 0 {
		return nil
	}
	held := make([]heldRun, 0, x.holders[worker])
	x.ordered.Scan(func(r *indexed) bool {
		if r.worker == worker {
			held = append(held, heldRun{r.id.String(), r.epoch})
		}
		return true
	})
	return held
}

// workers lists the workers that hold runs.
func (x *index) workers() []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	ids := make([]string, 0, len(x.holders))
	for w := range x.holders {
		ids = append(ids, w.text)
	}
	return ids
}
