package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"time"

	"pgregory.net/rapid"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// world is a run, its log with compare-and-set, its work message, workers,
// dispatchers and a clock, all in memory. Whatever anybody does falls into
// steps; between any two of them somebody else may come, the clock go on, or
// whoever was at it die. What decides is the real thing: contracts.Next and
// Apply, decide, claimEvent, goesOn, backoff, contracts.Project.
type world struct {
	t     *rapid.T
	now   time.Time // the broker's
	runID string
	sub   contracts.Submission

	log      []entryOf
	work     *message
	procs    []*proc
	workers  []*process
	commands []string // cancel and redrive, not yet carried out
	cancels  int      // carried out

	record contracts.StatusRecord
	calm   bool // the faults are over
	// trust in the checks: how often something was at stake
	takeovers, zombies, refunds, retries int
}

// entryOf is an event and who wrote it: the epoch that he believed in, 0 for
// one who holds nothing.
type entryOf struct {
	contracts.Event
	writer string
	epoch  uint64
	at     time.Time
}

// message is the work message; a new one is another.
type message struct {
	queued    contracts.Event
	headSeq   int // the log's length that it carries in its header, 0 for none
	visible   time.Time
	delivered int
}

// step is what somebody does next; nil is nothing more. proc is one who is at
// something: a dispatcher, or a worker's process.
type (
	step func() step
	proc struct {
		host *process // nil for a dispatcher
		next step
	}
)

// process is a worker.
type process struct {
	id       string
	real     *Worker // for claimEvent
	skew     time.Duration
	frozen   bool
	held     *holding
	starting uint64 // the epoch whose run.started is under way
}

// holding is an attempt: what its writer knows.
type holding struct {
	at         contracts.Head
	epoch      uint64
	checkpoint uint64
	busy       bool // an append is under way
	msg        *message
	lost       bool
}

// holds is the answer to the question of a worker that was handed the run.
func (h *process) holds(epoch uint64) bool {
	return h.starting == epoch || h.held != nil && h.held.epoch == epoch && !h.held.lost
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, now: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC), runID: "0198c0de-7a11-7abc-8def-0123456789ab"}
	w.sub = contracts.Submission{
		RunID: w.runID, AgentKey: "a", Priority: contracts.PriorityNormal, MaxAttempts: rapid.IntRange(1, 4).Draw(t, "max_attempts"), TimeoutSeconds: 300,
	}
	for _, id := range []string{"w-1", "w-2", "w-3"} {
		h := &process{id: id, real: &Worker{cfg: Config{WorkerID: id}}}
		h.skew = time.Duration(rapid.IntRange(-1, 1).Draw(t, "skew")) * 5 * time.Second
		w.workers = append(w.workers, h)
	}
	if delay := rapid.IntRange(0, 1).Draw(t, "delayed"); delay > 0 {
		w.sub.NotBefore = w.now.Add(time.Minute)
	}
	if rapid.IntRange(0, 3).Draw(t, "start timeout") == 0 {
		w.sub.StartTimeoutSeconds = 90
	}
	return w
}

// pick draws a number below n, each as likely as any other: rapid's own numbers
// are small, most of them, and a bad world is not.
func (w *world) pick(n int, label string) int {
	return rapid.Custom(func(t *rapid.T) int {
		v := 0
		for range bits.Len(uint(n)) + 2 {
			if v *= 2; rapid.Bool().Draw(t, "bit") {
				v++
			}
		}
		return v % n
	}).Draw(w.t, label)
}

func oneOf[T any](w *world, label string, all []T) T { return all[w.pick(len(all), label)] }

// head is where the log ends.
func (w *world) head() contracts.Head {
	if len(w.log) == 0 {
		return contracts.Head{}
	}
	return w.log[len(w.log)-1].Head()
}

// commit is the broker's compare-and-set. Whatever gets in is checked at once.
func (w *world) commit(at contracts.Head, e contracts.Event, writer string, epoch uint64) error {
	if int(at.Seq) != len(w.log) {
		return jsutil.ErrConflict
	}
	w.log = append(w.log, entryOf{Event: e, writer: writer, epoch: epoch, at: w.now})
	w.judge()
	return nil
}

// next makes an event; that it may not be made is a decision gone wrong.
func (w *world) next(at contracts.Head, d contracts.Draft, now time.Time) contracts.Event {
	e, err := contracts.Next(at, w.runID, d, now)
	if err != nil {
		w.t.Fatalf("a decision that the log does not allow: %v\n%s", err, w)
	}
	return e
}

// spawn lets somebody begin with s.
func (w *world) spawn(h *process, s step) { w.procs = append(w.procs, &proc{h, s}) }

// run does one step of one proc.
func (w *world) run(p *proc) {
	if p.next = p.next(); p.next == nil {
		w.procs = slices.DeleteFunc(w.procs, func(q *proc) bool { return q == p })
	}
}

// able are the procs that can do their next step.
func (w *world) able() (all []*proc) {
	for _, p := range w.procs {
		if p.host == nil || !p.host.frozen {
			all = append(all, p)
		}
	}
	return all
}

// send appends e in two steps: it is stored or refused, and the answer comes,
// or is lost; then the log is asked, and what is not there is sent again, or
// given up as unknown.
func (w *world) send(at contracts.Head, e contracts.Event, writer string, epoch uint64, then func(error) step) step {
	return func() step {
		err := w.commit(at, e, writer, epoch)
		if err != nil && sameEvent(w.log[at.Seq].Event, e) {
			err = nil // a conflict with itself
		}
		lost := !w.calm && w.pick(8, "answer lost") == 7
		if !lost {
			return then(err)
		}
		return func() step {
			if w.pick(4, "given up") == 3 {
				return then(errors.New("outcome unknown"))
			}
			switch {
			case len(w.log) <= int(at.Seq):
				return w.send(at, e, writer, epoch, then)
			case sameEvent(w.log[at.Seq].Event, e):
				return then(nil)
			}
			return then(jsutil.ErrConflict)
		}
	}
}

func sameEvent(a, b contracts.Event) bool {
	x, errA := contracts.Encode(a)
	y, errB := contracts.Encode(b)
	return errA == nil && errB == nil && string(x) == string(y)
}

// put publishes the work message: one at a time.
func (w *world) put(queued contracts.Event, headSeq int) {
	if w.work == nil {
		w.work = &message{queued: queued, headSeq: headSeq, visible: w.now}
	}
}

// ack removes the message that was delivered, whoever holds it now; not a newer one.
func (w *world) ack(m *message) {
	if w.work == m {
		w.work = nil
	}
}

func (w *world) nak(m *message, delay time.Duration) {
	if w.work == m {
		m.visible = w.now.Add(delay)
	}
}

// project folds an event into the record: the next one, or one that it has.
func (w *world) project(i int) {
	if i >= len(w.log) {
		return
	}
	e := w.log[i].Event
	rec, err := contracts.Project(w.record, e, uint64(i+1))
	switch {
	case int(e.Seq) > int(w.record.Seq)+1:
		if err == nil {
			w.t.Fatalf("the projection takes event %d behind %d", e.Seq, w.record.Seq)
		}
	case err != nil:
		w.t.Fatalf("project event %d: %v", e.Seq, err)
	case e.Seq <= w.record.Seq && rec.Seq != w.record.Seq:
		w.t.Fatalf("the projection goes back from %d to %d", w.record.Seq, rec.Seq)
	}
	w.record = rec
}

// String is the log, and who wrote what.
func (w *world) String() string {
	s := ""
	for _, e := range w.log {
		s += fmt.Sprintf("%s %3d %-20s %-10s epoch %d attempt %d of %d by %s in its epoch %d\n",
			e.at.Format("15:04:05"), e.Seq, e.Type, e.Status, e.Epoch, e.Attempt, e.MaxAttempts, e.writer, e.epoch)
	}
	return s
}

func bodyOf[T any](e contracts.Event) (v T) {
	_ = json.Unmarshal(e.Payload, &v) // made by the same code a moment ago
	return v
}
