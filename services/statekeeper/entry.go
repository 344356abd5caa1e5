package statekeeper

import (
	"container/list"
	"time"

	"longhaul/pkg/contracts"
)

// entry is what the projector knows of one run. It belongs to the session's
// goroutine. Its life: folded events make it dirty; dirty and due it is written;
// while a write is under way none other is sent, so that events pile up in rec
// and the next write takes them all; stored and not dirty it is idle.
type entry struct {
	rec contracts.StatusRecord
	// revision is that of the stored record, which the next write is compared with.
	revision uint64
	// confirmed is the log sequence of the record that is known to be stored:
	// events up to it need not be delivered again.
	confirmed uint64
	// dirty says that rec holds events that no write has been sent with.
	dirty bool
	// due is when a dirty entry shall be written.
	due time.Time
	// flight is the log sequence of the write under way, 0 if there is none.
	flight uint64
	// idle is the entry's place among those that may be forgotten, else nil.
	idle *list.Element
}

// cache holds the entries of live runs, the idle ones up to a limit.
type cache struct {
	limit   int
	entries map[string]*entry
	idle    list.List // of run ids, the longest idle last
}

func newCache(limit int) *cache { return &cache{limit: limit, entries: make(map[string]*entry)} }

func (c *cache) get(runID string) (*entry, bool) {
	e, ok := c.entries[runID]
	return e, ok
}

func (c *cache) put(runID string, e *entry) { c.entries[runID] = e }

// busy takes e off the idle ones.
func (c *cache) busy(e *entry) {
	if e.idle != nil {
		c.idle.Remove(e.idle)
		e.idle = nil
	}
}

// rest says that e is stored as it is. That of an ended run is forgotten at
// once: hardly anything follows. Past the limit the longest idle one is.
func (c *cache) rest(e *entry) {
	if e.rec.Status.Terminal() {
		c.busy(e)
		delete(c.entries, e.rec.RunID)
		return
	}
	if e.idle == nil {
		e.idle = c.idle.PushFront(e.rec.RunID)
	} else {
		c.idle.MoveToFront(e.idle)
	}
	if c.idle.Len() > c.limit {
		last := c.idle.Back()
		delete(c.entries, c.idle.Remove(last).(string))
	}
}
