package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/semaphore"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// Bounds of what waits for the log, per attempt.
const (
	maxWaiting     = 4 << 20 // bytes of payload; more make the agent wait
	minWeight      = maxWaiting / 256
	maxMergedDelta = 64 << 10 // bytes of text in one merged delta
)

// errEnded says that the round is over: nothing follows a terminal event.
var errEnded = errors.New("the run has ended")

// writer is an attempt's hand in the run log. It appends one event at a time;
// what arrives meanwhile waits in a bounded queue, and waiting text deltas are
// merged, so that a slow disk costs latency and never a backlog.
//
// There is no goroutine of its own: whoever finds the writer idle drains the
// queue, a caller that waits for its event anyway in its own goroutine.
type writer struct {
	ctx   context.Context //nolint:containedctx // ends when nothing may be written any more: lease lost, worker gone
	runs  *runlog.Log
	runID string
	// cancelRequested is called when the log turns out to hold somebody else's
	// run.cancel_requested; fenced when it holds another epoch or an end.
	cancelRequested func(last runlog.Entry)
	fenced          func()
	usage           func() agent.Usage // what the run has spent by now

	// room is shared by what waits, the oldest first: maxWaiting bytes, of which
	// each entry takes minWeight at least, and one that is larger takes all.
	room *semaphore.Weighted

	mu     sync.Mutex
	queue  []*entry
	busy   bool        // somebody drains
	closed error       // why nothing more is taken
	at     runlog.Head // written by the one who drains, under mu
}

// entry is one event to be, made when its turn has come.
type entry struct {
	weight int64
	build  func(head contracts.Head) (contracts.Draft, error)
	delta  *strings.Builder // set: an assistant.delta that may still grow
	done   chan error       // set: somebody waits
}

func newWriter(ctx context.Context, runs *runlog.Log, at runlog.Head) *writer {
	return &writer{ctx: ctx, runs: runs, runID: at.RunID, at: at, room: semaphore.NewWeighted(maxWaiting)}
}

// head is the last position that this writer knows to be committed.
func (w *writer) head() runlog.Head {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

// emit queues an event. It waits for room, or until ctx ends.
func (w *writer) emit(ctx context.Context, d contracts.Draft) error {
	payload, _ := d.Payload.(json.RawMessage)
	first, err := w.enqueue(ctx, &entry{weight: int64(len(payload)), build: func(contracts.Head) (contracts.Draft, error) { return d, nil }})
	if first {
		go w.drain(nil)
	}
	return err
}

// delta queues a piece of text, in the same event as the piece before it if
// that still waits.
func (w *writer) delta(ctx context.Context, text string) error {
	w.mu.Lock()
	if n := len(w.queue); w.closed == nil && n > 0 {
		if last := w.queue[n-1].delta; last != nil && last.Len()+len(text) <= maxMergedDelta {
			last.WriteString(text)
			w.mu.Unlock()
			return nil
		}
	}
	w.mu.Unlock()
	b := new(strings.Builder)
	b.WriteString(text)
	first, err := w.enqueue(ctx, &entry{weight: maxMergedDelta, delta: b, build: func(contracts.Head) (contracts.Draft, error) {
		// Off the queue by now, so nobody writes to b any more.
		return contracts.Draft{Type: contracts.TypeDelta, Payload: contracts.Delta{Text: b.String()}}, nil
	}})
	if first {
		go w.drain(nil)
	}
	return err
}

// commit queues an event behind all that waits and returns when it is in the
// log. build is given the head that it will follow, and again a newer one if
// somebody else's event came first.
func (w *writer) commit(ctx context.Context, build func(head contracts.Head) (contracts.Draft, error)) error {
	en := &entry{build: build, done: make(chan error, 1)}
	first, err := w.enqueue(ctx, en)
	if err != nil {
		return err
	}
	if first {
		w.drain(en)
	}
	return <-en.done
}

// close refuses everything from now on, for the given reason.
func (w *writer) close(reason error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = cmp.Or(w.closed, reason)
}

// enqueue reports whether the caller has to see to the draining.
func (w *writer) enqueue(ctx context.Context, en *entry) (bool, error) {
	en.weight = min(max(en.weight, minWeight), maxWaiting)
	// A lost lease ends the wait too: what waits ahead is let go then.
	if !w.room.TryAcquire(en.weight) && w.room.Acquire(ctx, en.weight) != nil {
		return false, context.Cause(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed != nil {
		w.room.Release(en.weight)
		return false, w.closed
	}
	w.queue = append(w.queue, en)
	first := !w.busy
	w.busy = true
	return first, nil
}

// drain appends what is queued, one by one, until nothing waits. Behind own, if
// that is not nil, somebody else goes on: its owner waits for that event alone,
// and others may queue theirs as fast as they go.
func (w *writer) drain(own *entry) {
	var en *entry // the one before
	for {
		w.mu.Lock()
		if len(w.queue) == 0 {
			w.busy = false
			w.mu.Unlock()
			return
		}
		if own != nil && en == own {
			w.mu.Unlock()
			go w.drain(nil)
			return
		}
		en = w.queue[0]
		w.queue[0] = nil
		w.queue = w.queue[1:]
		closed := w.closed
		w.mu.Unlock()

		err := closed
		if err == nil {
			err = w.append(en)
		}
		w.room.Release(en.weight)
		if en.done != nil {
			en.done <- err
		}
	}
}

// append brings one entry into the log. Only the drainer calls it.
func (w *writer) append(en *entry) error {
	for w.ctx.Err() == nil {
		at := w.head()
		d, err := en.build(at.Head)
		if err != nil {
			return err
		}
		d.Usage = w.usage()
		e, err := contracts.Next(at.Head, w.runID, d, time.Now())
		if err != nil {
			return err
		}
		next, err := w.runs.Append(w.ctx, at, e)
		for errors.Is(err, jsutil.ErrUnavailable) && w.ctx.Err() == nil {
			// The same event again: what became of the last one may be unknown.
			jsutil.Sleep(w.ctx, pauseUnavailable)
			next, err = w.runs.Append(w.ctx, at, e)
		}
		if err == nil {
			w.advance(next)
			if e.Type.Terminal() || e.Status == contracts.StatusPending {
				w.close(errEnded) // the round, or at least the attempt, is over
			}
			return nil
		}
		if errors.Is(err, jsutil.ErrConflict) {
			err = w.rebase(at)
		}
		if err != nil && w.ctx.Err() == nil {
			return err
		}
	}
	w.close(agent.ErrLeaseLost)
	return agent.ErrLeaseLost
}

// rebase looks at who came first. The dispatcher may have written
// run.cancel_requested for a holder that it could not reach; then we go on
// behind that. Anything else means that the run is not ours any more.
func (w *writer) rebase(at runlog.Head) error {
	last, err := w.runs.LastFromLeader(w.ctx, w.runID)
	for errors.Is(err, jsutil.ErrUnavailable) && w.ctx.Err() == nil {
		last, err = w.runs.LastFromLeader(w.ctx, w.runID)
	}
	if err == nil && goesOn(at.Head, last.Event.Head()) {
		w.advance(last.Head())
		w.cancelRequested(last)
		return nil
	}
	w.close(agent.ErrLeaseLost)
	w.fenced()
	if err != nil {
		return fmt.Errorf("%w: %w", agent.ErrLeaseLost, err)
	}
	return agent.ErrLeaseLost
}

func (w *writer) advance(at runlog.Head) {
	w.mu.Lock()
	w.at = at
	w.mu.Unlock()
}

// host is the agent's side of an attempt (agent.Host).
type host struct{ *attempt }

// Emit implements agent.Host.
func (h host) Emit(ctx context.Context, t contracts.EventType, v contracts.Visibility, payload json.RawMessage) error {
	if h.finishing.Load() { // by what the agent has left behind
		return errEnded
	}
	if limit := h.worker.payloadLimit(); len(payload) > limit {
		return agent.Permanent(fmt.Errorf("payload of %d bytes is above the limit of %d", len(payload), limit))
	}
	return h.writer.emit(ctx, contracts.Draft{Type: t, Visibility: v, Payload: payload})
}

// Delta implements agent.Host.
func (h host) Delta(ctx context.Context, text string) error {
	if h.finishing.Load() {
		return errEnded
	}
	for len(text) > maxMergedDelta {
		cut := maxMergedDelta
		for cut > maxMergedDelta-utf8.UTFMax && !utf8.RuneStart(text[cut]) {
			cut-- // not within a character
		}
		if err := h.writer.delta(ctx, text[:cut]); err != nil {
			return err
		}
		text = text[cut:]
	}
	return h.writer.delta(ctx, text)
}
