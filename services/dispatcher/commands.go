package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// takeCommands takes what is asked about runs that exist, until ctx ends, and
// returns when all that it took is answered: cancels and redrives, or the
// broker's word that a run is due. Their handling has the context work.
func (d *Dispatcher) takeCommands(ctx, work context.Context, stream, consumer string) {
	l, t := newLane(), newTurns()
	d.take(ctx, stream, consumer, func(m *jsutil.Delivery) {
		runID, err := contracts.RunIDOfSubject(m.Subject)
		if err != nil {
			d.finish(m, "", fmt.Errorf("%w: %w", errMalformed, err))
			return
		}
		first, err := t.enter(runID, m)
		if err != nil {
			d.finish(m, runID, err)
		}
		if first {
			l.run(func() {
				// What is put off holds done back: what comes behind it must see it in the inbox.
				done, all := uint64(0), true
				for ; m != nil; m = t.next(runID) {
					if all = d.turn(work, m, runID, done) && all; all {
						done = max(done, m.Sequence)
					}
				}
			})
		}
	})
	l.wg.Wait()
}

// turns has the messages about one run, or one conversation, handled one after the other, in the
// order of their coming, in one place of a lane. Runs do not wait for one another.
type turns struct {
	mu      sync.Mutex
	waiting map[string][]*jsutil.Delivery // by each id about which one is handled
	n       int                           // how many wait, at most inFlight
}

func newTurns() *turns { return &turns{waiting: make(map[string][]*jsutil.Delivery)} }

// enter reports whether m is to be handled now. If not, it waits for its turn,
// or the error says that it has to come again.
func (t *turns) enter(id string, m *jsutil.Delivery) (first bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	behind, busy := t.waiting[id]
	switch {
	case !busy:
		t.waiting[id] = nil
		return true, nil
	case t.n == inFlight:
		return false, notYet{delay: backoff(m.Delivered, submitWait), reason: "too many wait for their turn"}
	}
	t.n++
	t.waiting[id] = append(behind, m)
	return false, nil
}

// next returns who comes after the one that was handled, nil if nobody does.
func (t *turns) next(id string) *jsutil.Delivery {
	t.mu.Lock()
	defer t.mu.Unlock()
	behind := t.waiting[id]
	if len(behind) == 0 {
		delete(t.waiting, id)
		return nil
	}
	t.n--
	t.waiting[id] = behind[1:]
	return behind[0]
}

// turn handles m, in bounded time, and answers it. All about its run up to the
// sequence done is done with; it reports whether m is too.
func (d *Dispatcher) turn(ctx context.Context, m *jsutil.Delivery, runID string, done uint64) bool {
	err := bounded(ctx, func(ctx context.Context) error { return d.carryOut(ctx, m, runID, done) })
	d.finish(m, runID, err)
	return err == nil
}

func (d *Dispatcher) carryOut(ctx context.Context, m *jsutil.Delivery, runID string, done uint64) error {
	if m.Subject == contracts.ScheduleDueSubject(runID) {
		return d.due(ctx, m, runID)
	}
	switch m.Subject {
	case contracts.CancelSubject(runID):
		cmd, faults := contracts.DecodeCancel(m.Data)
		if err := d.after(ctx, m, faults, done, contracts.RedriveSubject(runID)); err != nil {
			return err
		}
		return d.cancel(ctx, m, runID, cmd)
	case contracts.SignalSubject(runID):
		cmd, faults := contracts.DecodeSignal(m.Data)
		// In their order, and not into the end of the round before.
		if err := d.after(ctx, m, faults, done, m.Subject, contracts.RedriveSubject(runID)); err != nil {
			return err
		}
		return d.signal(ctx, m, runID, cmd)
	}
	cmd, faults := contracts.DecodeRedrive(m.Data)
	if err := d.after(ctx, m, faults, done, contracts.CancelSubject(runID)); err != nil {
		return err
	}
	return d.redrive(ctx, m, runID, cmd)
}

// after returns nil if m is a good command, and puts it off while one on another
// subject, sent before it and about the same run, is not done with: that may be
// in another dispatcher's hands, or have to come again. The inbox shows it, for a
// command leaves it when it is acked. (Of what was acked here a moment ago, which
// is below done, the broker may not know yet.) Among cancels, and among redrives,
// the order makes no difference.
func (d *Dispatcher) after(ctx context.Context, m *jsutil.Delivery, faults contracts.Faults, done uint64, others ...string) error {
	if len(faults) > 0 {
		return fmt.Errorf("%w: %w", errMalformed, faults)
	}
	for _, subject := range others {
		oldest, err := jsutil.GetFromLeader(ctx, d.nc, contracts.StreamInbox, jsutil.GetRequest{Seq: done + 1, NextFor: subject})
		switch {
		case errors.Is(err, jsutil.ErrNotFound):
		case err != nil:
			return err
		case oldest.Sequence < m.Sequence:
			return notYet{delay: backoff(m.Delivered, submitWait), reason: "an older command about the run is not done"}
		}
	}
	return nil
}
