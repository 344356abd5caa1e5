package statekeeper

import (
	"bytes"
	"cmp"
	"math"
	"time"
	"unique"

	"github.com/google/uuid"

	"longhaul/pkg/contracts"
)

// liveRun is what sweeper, watchdog and projector want to know of a run that has
// not ended.
type liveRun struct {
	id uuid.UUID
	queue
	status    contracts.Status
	sequence  uint64    // of its last event, as far as is known
	notBefore time.Time // of its next start
	seen      time.Time // when the index learned this, by our own clock
	worker    text      // holds it; none if nobody does
	// revision is that of its record, if that is no more than run.queued or
	// run.scheduled makes it and can be made again (fresh); else 0.
	revision uint64
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

// setLive puts in what is of interest of a run that has not ended.
func (x *index) setLive(id uuid.UUID, c class, s contracts.StatusRecord, revision uint64) {
	l := &liveRun{
		id:     id,
		queue:  queue{c.agent.Value(), contracts.Priority(unique.Make(string(s.Priority)).Value())}, // texts that are shared
		status: contracts.Status(c.status.Value()), sequence: s.LogSequence, notBefore: s.NotBefore, seen: time.Now(),
	}
	if s.Seq == 1 && s.RunID == id.String() && s.IdempotencyKey == "" && time.Unix(0, s.CreatedAt.UnixNano()).Equal(s.CreatedAt) {
		l.revision = revision
	}
	x.live[id] = l
	if contracts.CheckAgentKey(s.AgentKey) == nil && s.Priority.Valid() { // else a stranger wrote it, and the audit finds that
		x.queues.Set(l)
	}
	if s.Status.Held() && s.StartedSequence > 0 {
		l.worker = unique.Make(s.WorkerID)
		if x.held[l.worker] == nil {
			x.held[l.worker] = make(map[uuid.UUID]uint64)
		}
		x.held[l.worker][id] = s.StartedSequence
	}
}

// fresh makes the record of a run of which nothing is stored but that it waits,
// as far as the next event does not bring it anyway: where many wait, to read the
// record of each one that is begun takes a tenth of all that a run costs. The
// zero value is of one that has gone on, or is not known.
func (x *index) fresh(runID string) (there stored) {
	if x == nil {
		return there
	}
	id, _ := uuid.Parse(runID)
	x.mu.RLock()
	defer x.mu.RUnlock()
	if l := x.live[id]; l != nil && l.revision > 0 {
		d := decodeDetails(x.details[id])
		there.revision, there.rec = l.revision, contracts.StatusRecord{
			RunID: runID, Position: contracts.Position{AgentKey: l.agent, Priority: l.priority, Status: l.status, NotBefore: l.notBefore},
			ConversationID: d.Conversation, Metadata: d.Metadata, CreatedAt: time.Unix(0, x.created[id]).UTC(), Seq: 1, LogSequence: l.sequence,
		}
	}
	return there
}

// quiet lists live runs of which the index has learned nothing for the
// duration, from one on, at most limit.
func (x *index) quiet(d time.Duration, from liveRun, limit int) (runs []liveRun) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	before := time.Now().Add(-d)
	x.queues.Ascend(&from, func(r *liveRun) bool {
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
		x.queues.Ascend(&from, func(r *liveRun) bool {
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
