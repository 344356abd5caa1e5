package worker

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// deliver hands the work message to a worker: whatever the lease says, for it
// does not exclude. What follows is take and claim, step by step.
func (w *world) deliver(h *process) {
	m := w.work
	m.delivered++
	w.spawn(h, func() step {
		switch {
		case h.held != nil && h.held.lost:
			w.nak(m, 0)
			return nil
		case h.held != nil:
			h.held.msg = m
			return nil
		}
		at := w.head()
		if m.headSeq > 0 && m.delivered == 1 {
			at = m.queued.Head() // what the message carries: it may be old
		}
		return w.decide(h, m, at, 0)
	})
}

// decide is one turn of claim's loop.
func (w *world) decide(h *process, m *message, at contracts.Head, gone uint64) step {
	return func() step {
		now := w.now.Add(h.skew)
		wk := &work{delivery: &jsutil.Delivery{}, submission: w.sub, queued: m.queued}
		act := decide(at, wk.startBy(at), now, gone == at.Epoch && gone > 0)
		switch act {
		case actDrop:
			w.ack(m)
			return nil
		case actWait:
			w.nak(m, at.NotBefore.Sub(now))
			return nil
		case actAsk:
			return w.ask(h, m, at)
		}
		if at.Status.Held() && (gone != at.Epoch || gone == 0) {
			w.t.Fatalf("invariant 8: %s goes on with epoch %d of %s without having asked\n%s", h.id, at.Epoch, at.WorkerID, w)
		}
		if act == actStart {
			if h.starting > 0 || h.held != nil {
				return nil
			}
			h.starting = at.Epoch + 1
		}
		e, err := h.real.claimEvent(wk, at, act, now)
		if err != nil {
			w.t.Fatalf("a decision that the log does not allow: %v\n%s", err, w)
		}
		epoch := uint64(0)
		if act == actStart {
			epoch = e.Epoch
		}
		return w.send(at, e, h.id, epoch, func(err error) step {
			if act == actStart {
				h.starting = 0
			}
			switch {
			case errors.Is(err, jsutil.ErrConflict):
				return w.decide(h, m, w.head(), gone)
			case err != nil:
				w.nak(m, time.Second)
			case act == actStart:
				if at.Status.Held() {
					w.takeovers++
				}
				h.held = &holding{at: e.Head(), epoch: e.Epoch, msg: m}
			default:
				w.ack(m)
			}
			return nil
		})
	}
}

// ask is the question to the holder: alive, it answers what is so; frozen or
// dead it counts as gone, in the end.
func (w *world) ask(h *process, m *message, at contracts.Head) step {
	return func() step {
		for _, other := range w.workers {
			if other.id == at.WorkerID && !other.frozen && other.holds(at.Epoch) {
				return nil // left alone
			}
		}
		return w.decide(h, m, at, at.Epoch)
	}
}

// act lets an attempt write something: what its writer does with an event.
func (w *world) act(h *process, draft func(at contracts.Head) (contracts.Draft, bool)) {
	held := h.held
	held.busy = true
	var try func() step
	try = func() step {
		if held.lost {
			return w.drop(h, held)
		}
		d, ok := draft(held.at)
		if !ok {
			held.busy = false
			return nil
		}
		e := w.next(held.at, d, w.now.Add(h.skew))
		var then func(error) step
		then = func(err error) step {
			switch {
			case err == nil:
				held.at, held.busy = e.Head(), false
				return w.answer(h, held)
			case !errors.Is(err, jsutil.ErrConflict): // the same again, for what became of it is not known
				return w.send(held.at, e, h.id, held.epoch, then)
			}
			if last := w.head(); goesOn(held.at, last) {
				held.at = last
				return try
			}
			w.zombies++
			return w.drop(h, held)
		}
		return w.send(held.at, e, h.id, held.epoch, then)
	}
	w.spawn(h, try)
}

// drop is the end of an attempt whose lease is lost: nothing is written or answered.
func (w *world) drop(h *process, held *holding) step {
	held.lost = true
	return func() step {
		if h.held == held {
			h.held = nil
		}
		return nil
	}
}

// answer ends the attempt if its last event says so, and then disposes of the message.
func (w *world) answer(h *process, held *holding) step {
	at := held.at
	if !at.Status.Terminal() && at.Status != contracts.StatusPending {
		return nil
	}
	h.held = nil
	return func() step {
		if at.Status == contracts.StatusPending {
			w.nak(held.msg, at.NotBefore.Sub(w.now.Add(h.skew)))
		} else {
			w.ack(held.msg)
		}
		return nil
	}
}

// ending is what an attempt's last event may be.
func (w *world) ending(h *process, kind string) func(contracts.Head) (contracts.Draft, bool) {
	return func(at contracts.Head) (contracts.Draft, bool) {
		now := w.now.Add(h.skew)
		switch {
		case at.Status == contracts.StatusCancelling:
			return contracts.Draft{Type: contracts.TypeCancelled}, true
		case kind == "fail" && at.Attempt < at.MaxAttempts:
			w.retries++
			delay := backoff(2, 300*time.Second, at.Attempt, rapid.Float64Range(0, 0.99).Draw(w.t, "jitter"))
			return contracts.Draft{Type: contracts.TypeRetrying, NotBefore: now.Add(delay), Payload: contracts.Retrying{RetryAt: now.Add(delay)}}, true
		case kind == "fail":
			return contracts.Draft{Type: contracts.TypeFailed, Payload: contracts.Failed{Attempts: at.Attempt}}, true
		case kind == "drain":
			w.refunds++
			return contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueShutdown}}, true
		case kind == "sleep":
			w.refunds++
			until := now.Add(30 * time.Second)
			return contracts.Draft{Type: contracts.TypeSleeping, NotBefore: until, Payload: contracts.Sleeping{WakeAt: until}}, true
		case kind == "time out":
			return contracts.Draft{Type: contracts.TypeTimedOut}, true
		}
		return contracts.Draft{Type: contracts.TypeSucceeded}, true
	}
}

// report is an event or a checkpoint of an agent.
func (h *process) report(kind string) func(contracts.Head) (contracts.Draft, bool) {
	held := h.held
	var ref *contracts.CheckpointRef
	if kind == "checkpoint" {
		n := held.checkpoint + 1
		if held.at.Checkpoint != nil {
			n = max(n, held.at.Checkpoint.N+1)
		}
		held.checkpoint = n
		ref = &contracts.CheckpointRef{N: n, Epoch: held.epoch, Revision: 100*held.epoch + n}
	}
	return func(at contracts.Head) (contracts.Draft, bool) {
		if ref != nil {
			return contracts.Draft{Type: contracts.TypeCheckpoint, Checkpoint: ref}, true
		}
		return contracts.Draft{Type: contracts.TypeDelta, Payload: json.RawMessage(`{"text":"x"}`)}, true
	}
}

// cancelHere is the holder's part of a cancel.
func cancelHere(at contracts.Head) (contracts.Draft, bool) {
	return contracts.Draft{Type: contracts.TypeCancelRequested}, at.Status == contracts.StatusRunning
}

// submit is a dispatcher with the submission, perhaps not the first one.
func (w *world) submit() step {
	d := contracts.Draft{Type: contracts.TypeQueued, AgentKey: "a", Priority: contracts.PriorityNormal, MaxAttempts: w.sub.MaxAttempts, Payload: contracts.Queued{Submission: w.sub}}
	if w.sub.NotBefore.After(w.now) {
		d.Type, d.NotBefore = contracts.TypeScheduled, w.sub.NotBefore
	}
	e := w.next(contracts.Head{}, d, w.now)
	return w.send(contracts.Head{}, e, "dispatcher", 0, func(err error) step {
		if err != nil && !errors.Is(err, jsutil.ErrConflict) {
			return nil // delivered again, some time
		}
		return w.advance
	})
}

// queued is the event that a work message repeats.
func (w *world) queued() (contracts.Event, bool) {
	for _, e := range w.log {
		if e.Type == contracts.TypeQueued {
			return e.Event, true
		}
	}
	if len(w.log) == 0 {
		return contracts.Event{}, false
	}
	// Cancelled before its time and then redriven.
	return w.next(contracts.Head{}, contracts.Draft{Type: contracts.TypeQueued, AgentKey: "a", Priority: contracts.PriorityNormal,
		MaxAttempts: w.sub.MaxAttempts, Payload: contracts.Queued{Submission: w.sub}}, w.log[0].Time), true
}

// advance does what is next for a run that has not begun.
func (w *world) advance() step {
	at := w.head()
	switch {
	case at.Status == contracts.StatusScheduled && !w.now.Before(at.NotBefore):
		e := w.next(at, contracts.Draft{Type: contracts.TypeQueued, Payload: contracts.Queued{Submission: w.sub}}, w.now)
		return w.send(at, e, "dispatcher", 0, func(err error) step {
			if err != nil {
				return nil
			}
			return w.advance
		})
	case at.Status == contracts.StatusPending:
		return func() step { return w.offer(at) }
	}
	return nil
}

func (w *world) offer(at contracts.Head) step {
	queued, ok := w.queued()
	if !ok {
		return nil
	}
	headSeq := 0
	if at.Seq == queued.Seq {
		headSeq = int(at.Seq)
	}
	w.put(queued, headSeq)
	return nil
}

// cancel carries a cancel out, look by look.
func (w *world) cancel(asked uint64) step {
	return func() step {
		at := w.head()
		write := func(kind contracts.EventType) step {
			return w.send(at, w.next(at, contracts.Draft{Type: kind}, w.now), "dispatcher", 0, func(error) step { return w.cancel(asked) })
		}
		switch {
		case at.Seq == 0:
			return nil // waits for its submission
		case at.Status.Terminal(), at.Status == contracts.StatusCancelling:
			w.cancels++
			w.commands = w.commands[:0]
			if at.Status == contracts.StatusCancelled {
				return w.clean(at)
			}
			return nil
		case at.Status == contracts.StatusRunning && asked != at.Epoch:
			for _, h := range w.workers {
				if h.id == at.WorkerID && !h.frozen && h.held != nil && !h.held.busy && !h.held.lost {
					w.act(h, cancelHere)
				}
			}
			return w.cancel(at.Epoch)
		case at.Status == contracts.StatusRunning:
			return write(contracts.TypeCancelRequested)
		}
		return write(contracts.TypeCancelled)
	}
}

// clean removes the work message of a cancelled run, if it is of that round.
func (w *world) clean(ended contracts.Head) step {
	m := w.work
	return func() step {
		if w.head().Seq != ended.Seq {
			return nil
		}
		return func() step {
			if m != nil {
				w.ack(m)
			}
			return nil
		}
	}
}

// redrive begins a new round of a run that ended badly.
func (w *world) redrive(fromStart bool) step {
	at := w.head()
	d := contracts.Draft{Type: contracts.TypeRequeued, FromStart: fromStart, Payload: contracts.Requeued{Reason: contracts.RequeueRedrive, FromStart: fromStart}}
	if !at.Status.Redrivable() {
		if _, err := contracts.Next(at, w.runID, d, w.now); err == nil && (at.Status.Terminal() || at.Seq == 0) {
			w.t.Fatalf("invariant 2: a redrive may follow %q\n%s", at.Status, w)
		}
		return nil
	}
	return w.send(at, w.next(at, d, w.now), "dispatcher", 0, func(err error) step {
		if err != nil {
			return nil
		}
		old := w.work
		return func() step { // the old round's message gives way to one of its own
			if head := w.head(); old != nil && head.Seq == at.Seq+1 {
				w.ack(old)
			}
			return func() step { return w.offer(w.head()) }
		}
	})
}

// sweep makes lost work again.
func (w *world) sweep() step {
	at := w.head()
	switch {
	case w.work != nil || at.Seq == 0 || at.Status.Terminal():
		return nil
	case at.Status == contracts.StatusScheduled:
		return w.advance
	case at.Status == contracts.StatusPending && w.log[len(w.log)-1].Type != contracts.TypeRequeued:
		e := w.next(at, contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueWorkLost}}, w.now)
		return w.send(at, e, "dispatcher", 0, func(err error) step {
			if err != nil {
				return nil
			}
			return func() step { return w.offer(e.Head()) }
		})
	}
	return func() step { return w.offer(at) }
}

// kill ends a worker's process, and all that it was at.
func (w *world) kill(h *process) {
	h.held, h.starting, h.frozen = nil, 0, false
	w.forget(func(p *proc) bool { return p.host == h })
}

func (w *world) forget(these func(*proc) bool) {
	var rest []*proc
	for _, p := range w.procs {
		if !these(p) {
			rest = append(rest, p)
		}
	}
	w.procs = rest
}

// happen is one thing that happens.
func (w *world) happen() {
	h := w.workers[w.pick(len(w.workers), "worker")]
	idle := h.held != nil && !h.frozen && !h.held.busy && !h.held.lost
	switch what := w.pick(100, "what"); {
	case what < 45:
		if able := w.able(); len(able) > 0 {
			w.run(able[w.pick(len(able), "who")])
		}
	case what < 55:
		if w.work != nil && !w.work.visible.After(w.now) && !h.frozen {
			w.deliver(h)
		}
	case what < 58: // the lease is no guard: delivered before its time
		if w.work != nil && !h.frozen {
			w.deliver(h)
		}
	case what < 66:
		if idle {
			w.act(h, h.report(oneOf(w, "report", []string{"delta", "checkpoint"})))
		}
	case what < 71:
		if idle {
			w.act(h, w.ending(h, oneOf(w, "ending", []string{"succeed", "fail", "fail", "fail", "drain", "drain", "sleep", "time out"})))
		}
	case what < 76:
		w.spawn(nil, w.submit)
	case what < 77:
		w.spawn(nil, w.cancel(0))
	case what < 80:
		fromStart := rapid.Bool().Draw(w.t, "from start")
		w.spawn(nil, func() step { return w.redrive(fromStart) })
	case what < 82:
		w.spawn(nil, w.sweep)
	case what < 84:
		w.spawn(nil, w.advance)
	case what < 87:
		w.kill(h)
	case what < 89:
		w.forget(func(p *proc) bool { return p.host == nil })
	case what < 92:
		h.frozen = !h.frozen
	case what < 93:
		w.work = nil // by hand, or a forged ack
	case what < 95:
		w.project(w.pick(int(w.record.Seq)+2, "project"))
	default:
		w.now = w.now.Add(time.Duration(oneOf(w, "clock", []int{1, 10, 1000, 30000, 100000})) * time.Millisecond)
	}
}

// heal ends the faults, and lets everybody do his part until nothing is left to do.
func (w *world) heal() {
	w.calm = true
	for _, h := range w.workers {
		h.frozen = false
	}
	w.spawn(nil, w.submit)
	for round := range 200 {
		for len(w.procs) > 0 {
			w.run(w.procs[0])
		}
		for _, h := range w.workers {
			if h.held != nil && h.held.lost {
				h.held = nil
			} else if h.held != nil {
				h.held.busy = false // its step went with its process, if it had one
				w.act(h, w.ending(h, "succeed"))
			}
		}
		if head := w.head(); head.Status.Terminal() && len(w.procs) == 0 {
			return
		}
		w.spawn(nil, w.advance)
		w.spawn(nil, w.sweep)
		if w.work != nil && !w.work.visible.After(w.now) {
			w.deliver(w.workers[round%len(w.workers)])
		}
		w.now = w.now.Add(time.Second)
		if round > 100 {
			w.now = w.now.Add(time.Minute)
		}
	}
}

// TestSimulation has workers, dispatchers and a bad world at one run, in any
// order, with the real decisions and without a broker. The invariants are
// checked behind each event. What is found is shrunk, and comes with its log.
func TestSimulation(t *testing.T) {
	var events, takeovers, zombies, refunds, retries int
	for range 40 {
		rapid.Check(t, func(rt *rapid.T) {
			w := newWorld(rt)
			w.spawn(nil, w.submit)
			for range 20 + w.pick(400, "length") {
				w.happen()
			}
			w.heal()
			w.judgeEnd()
			events += len(w.log)
			takeovers, zombies, refunds, retries = takeovers+w.takeovers, zombies+w.zombies, refunds+w.refunds, retries+w.retries
		})
	}
	t.Logf("%d events, %d takeovers, %d fenced zombies, %d uncharged attempts, %d retries", events, takeovers, zombies, refunds, retries)
	for what, n := range map[string]int{"takeovers": takeovers, "fenced zombies": zombies, "uncharged attempts": refunds, "retries": retries} {
		if n < 100 {
			t.Errorf("only %d %s: the simulation does not try what it is for", n, what)
		}
	}
}
