package dispatcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// redrive starts a new round of a run that ended badly. Delivered again before
// the round began, it only publishes the work again; delivered again after the
// round has ended badly as well, it does nothing.
func (d *Dispatcher) redrive(ctx context.Context, m *jsutil.Delivery, runID string, cmd contracts.RedriveCommand) error {
	last, err := d.log.LastFromLeader(ctx, runID)
	switch {
	case errors.Is(err, jsutil.ErrNotFound):
		d.logger.Warn("redrive of a run that does not exist is dropped", "run_id", runID)
		return nil
	case err != nil:
		return err
	case last.Status == contracts.StatusCancelling:
		// Whoever cancels a run and redrives it wants both, and the first takes a moment.
		return notYet{delay: backoff(m.Delivered, maxOddDelay), reason: "run is being cancelled"}
	}
	p, ok := requeuedOf(last)
	waiting := ok && p.Reason == contracts.RequeueRedrive
	if !waiting && !last.Status.Redrivable() {
		d.logger.Warn("run cannot be redriven, the command is dropped", "run_id", runID, "status", last.Status)
		return nil
	}
	// Before the round begins: until then retention may remove what it is made of.
	work, follows, err := d.workOf(ctx, last)
	if err != nil {
		return err
	}
	if waiting {
		return d.queueAgain(ctx, last.Head(), work)
	}
	// No two commands have the same, and each has it at every delivery.
	id := contracts.RunIDFromInbox(m.Sequence, m.Stored)
	if done, err := d.carriedOut(ctx, last, m.Stored, id); err != nil || done {
		return err
	}
	// Retention claims the same before it purges: only one of us goes on.
	round := contracts.KVSubject(contracts.BucketRuns, contracts.RoundKey(runID, last.Sequence))
	switch holder, err := jsutil.Claim(ctx, d.js, contracts.StreamRuns, round, contracts.RoundRedrive); {
	case err != nil:
		return err
	case holder != contracts.RoundRedrive:
		d.logger.Warn("run is being removed, its redrive is dropped", "run_id", runID, "status", last.Status)
		return nil
	}
	last, err = d.append(ctx, last.Head(), runID, contracts.Draft{
		Type: contracts.TypeRequeued, FromStart: cmd.FromStart,
		Payload: contracts.Requeued{Reason: contracts.RequeueRedrive, By: cmd.By, FromStart: cmd.FromStart, CommandID: id, Follows: follows},
	})
	if err != nil {
		return err
	}
	d.logger.Info("run is redriven", "run_id", runID, "from_start", cmd.FromStart)
	return d.queueAgain(ctx, last.Head(), work)
}

// requeuedOf returns the payload of a run.requeued, if the event is one.
func requeuedOf(e runlog.Entry) (p contracts.Requeued, ok bool) {
	return p, e.Type == contracts.TypeRequeued && json.Unmarshal(e.Payload, &p) == nil
}

// commandOf returns which redrive or signal the event carries out, "" if none.
func commandOf(e runlog.Entry) string {
	var p struct {
		CommandID string `json:"command_id"`
	}
	if e.Type != contracts.TypeRequeued && e.Type != contracts.TypeSignalled || json.Unmarshal(e.Payload, &p) != nil {
		return ""
	}
	return p.CommandID
}

// clockSkew is more than the clocks of two servers of the broker differ by. One
// gives a command its time, another one the events that follow from it.
const clockSkew = time.Minute

// carriedOut reports whether a command that was stored at some time is in the
// log of the run, which ends with last, already. It reads what came
// into the log since, be the whole as long as it may. (The delivery count would not tell a first
// delivery from a later one, for a broker that was killed counts anew.)
func (d *Dispatcher) carriedOut(ctx context.Context, last runlog.Entry, stored time.Time, commandID string) (bool, error) {
	from, err := d.log.SequenceSince(ctx, last.RunID, stored.Add(-clockSkew))
	if err != nil {
		return false, jsutil.Ignoring(jsutil.ErrNotFound, err)
	}
	seen := uint64(0)
	for e, err := range d.log.Scan(ctx, last.RunID, from) {
		if err != nil && !errors.Is(err, runlog.ErrMalformed) {
			return false, fmt.Errorf("look for the command in the log: %w", err)
		}
		if commandOf(e) == commandID {
			return true, nil
		}
		seen = e.Sequence
	}
	if seen < last.Sequence {
		return false, fmt.Errorf("look for the command in the log: %w: a replica lags", jsutil.ErrUnavailable)
	}
	return false, nil
}

// queueAgain publishes the work message of a new round, or of a run that need
// not wait any more.
//
// The message from before may still be there: a worker appends the
// terminal event before it acks, and one that was frozen between the two acks
// whenever it wakes up. That ack must not take the new round's message away, so
// the old one gives way to a message with a sequence of its own, unless a
// worker has begun with it meanwhile.
func (d *Dispatcher) queueAgain(ctx context.Context, at runlog.Head, work *nats.Msg) error {
	if err := d.publish(ctx, work); !errors.Is(err, jsutil.ErrPresent) {
		return err
	}
	if err := d.removeWork(ctx, at); err != nil {
		return err
	}
	return jsutil.Ignoring(jsutil.ErrPresent, d.publish(ctx, work))
}
