package worker

import (
	"time"

	"longhaul/pkg/contracts"
)

// judge checks the invariants on the whole log, by rules of its own: nothing of
// contracts but the names of types. It is called after each append.
func (w *world) judge() {
	var (
		epoch           uint64
		starts, refunds int
		ended           contracts.EventType
		checkpoint      *contracts.CheckpointRef
		notBefore       time.Time
		holder          string
		accepted        bool
		fail            = func(format string, args ...any) { w.t.Helper(); w.t.Fatalf(format+"\n%s", append(args, w)...) }
	)
	for i, e := range w.log {
		if e.Seq != uint64(i+1) { // invariant 6
			fail("invariant 6: event %d at place %d", e.Seq, i+1)
		}
		if ended != "" { // invariants 1 and 2
			if e.Type != contracts.TypeRequeued || ended == contracts.TypeSucceeded || ended == contracts.TypeRejected {
				fail("invariant 2: %s after %s", e.Type, ended)
			}
			starts, refunds, ended = 0, 0, ""
			if bodyOf[contracts.Requeued](e.Event).FromStart {
				checkpoint = nil
			}
		}
		switch e.Type {
		case contracts.TypeStarted:
			starts++
			if e.Epoch != epoch+1 { // invariant 4
				fail("invariant 4: epoch %d after %d", e.Epoch, epoch)
			}
			epoch, holder = e.Epoch, e.WorkerID
			if from := bodyOf[contracts.Started](e.Event).ResumedFrom; !sameRef(from, checkpoint) { // invariant 7
				fail("invariant 7: epoch %d resumes from %v, the newest is %v", e.Epoch, from, checkpoint)
			}
			if early := notBefore.Sub(e.at); early > 5*time.Second { // invariant 9; a clock may be ahead as much
				fail("invariant 9: epoch %d begins %s too early", e.Epoch, early)
			}
		case contracts.TypeRequeued:
			if bodyOf[contracts.Requeued](e.Event).Reason == contracts.RequeueShutdown {
				refunds++
			}
		case contracts.TypeSleeping:
			refunds++
		case contracts.TypeQueued:
			if accepted && i > 1 {
				fail("invariant 3: accepted twice")
			}
			accepted = true
			if notBefore.Sub(e.at) > 5*time.Second {
				fail("invariant 9: queued too early")
			}
		case contracts.TypeCheckpoint:
			if checkpoint != nil && e.Checkpoint.N <= checkpoint.N {
				fail("invariant 7: checkpoint %v after %v", e.Checkpoint, checkpoint)
			}
			checkpoint = e.Checkpoint
		}
		if e.epoch > 0 && (e.epoch != epoch || e.Epoch != epoch || e.writer != holder) {
			fail("invariant 5: %s was written by %s in its epoch %d, and epoch %d is %s's", e.Type, e.writer, e.epoch, epoch, holder)
		}
		if !sameRef(e.Checkpoint, checkpoint) {
			fail("invariant 7: %s names %v, the newest is %v", e.Type, e.Checkpoint, checkpoint)
		}
		if e.Epoch != epoch || e.Attempt != starts-refunds || e.Attempt > e.MaxAttempts || e.MaxAttempts != w.sub.MaxAttempts { // invariants 4 and 8
			fail("invariant 4: %s says epoch %d, attempt %d of %d; there were %d starts, %d of them not charged", e.Type, e.Epoch, e.Attempt, e.MaxAttempts, starts, refunds)
		}
		if notBefore = e.NotBefore; e.Type.Terminal() {
			ended = e.Type
		}
	}
}

func sameRef(a, b *contracts.CheckpointRef) bool {
	return (a == nil) == (b == nil) && (a == nil || *a == *b)
}

// judgeEnd checks what has to hold when all is over: the round has ended, and
// the projection is the fold of the log.
func (w *world) judgeEnd() {
	last := w.log[len(w.log)-1]
	if !last.Type.Terminal() {
		w.t.Fatalf("invariant 1: the run has not ended\n%s", w)
	}
	for i := range w.log {
		w.project(i)
	}
	rec := w.record
	if rec.Status != last.Status || rec.Epoch != last.Epoch || rec.Attempt != last.Attempt || rec.WorkerID != last.WorkerID ||
		!sameRef(rec.Checkpoint, last.Checkpoint) || rec.Seq != last.Seq || rec.LogSequence != uint64(len(w.log)) ||
		!rec.FinishedAt.Equal(last.Time) || !rec.CreatedAt.Equal(w.log[0].Time) {
		w.t.Fatalf("the record is %+v\n%s", rec, w)
	}
	started := time.Time{}
	for _, e := range w.log {
		if e.Type == contracts.TypeStarted {
			started = e.Time
		}
	}
	if !rec.StartedAt.Equal(started) {
		w.t.Fatalf("the record says started at %v\n%s", rec.StartedAt, w)
	}
}
