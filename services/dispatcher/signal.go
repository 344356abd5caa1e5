package dispatcher

import (
	"context"
	"errors"
	"fmt"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// signal writes a signal into its run's log, once, and lets the run go on if it
// waits for it. It is written only while nobody holds the run, and after its
// first start: a holder then knows all signals that there are from its start to
// its end, so that none can come between its looking for one and its going to
// wait. Until then the signal stays in the inbox.
func (d *Dispatcher) signal(ctx context.Context, m *jsutil.Delivery, runID string, cmd contracts.SignalCommand) error {
	last, err := d.log.LastFromLeader(ctx, runID)
	switch {
	case errors.Is(err, jsutil.ErrNotFound):
		return d.awaitSubmit(ctx, m, runID)
	case err != nil:
		return err
	case last.Status.Terminal() || last.Status == contracts.StatusCancelling:
		d.logger.Warn("run has ended or is being cancelled, its signal is dropped", "run_id", runID, "status", last.Status, "signal", cmd.Name)
		return nil
	case last.Status != contracts.StatusPending || last.Epoch == 0:
		return notYet{delay: backoff(m.Delivered, maxDelay), reason: "run is " + string(last.Status)}
	}
	id := contracts.RunIDFromInbox(m.Sequence, m.Stored)
	done, err := d.carriedOut(ctx, last, m.Stored, id)
	if err != nil || done && commandOf(last) != id {
		return err
	}
	waited := done || last.WaitsFor != "" // if it is written, perhaps nobody got further
	if !done {
		p := contracts.Signalled{Name: cmd.Name, Payload: cmd.Payload, By: cmd.By, CommandID: id}
		if last, err = d.append(ctx, last.Head(), runID, p.Draft(last.Event.Head())); err != nil {
			return err
		}
		d.logger.Info("run is signalled", "run_id", runID, "signal", cmd.Name, "waits_for", last.WaitsFor)
	}
	if !waited || last.WaitsFor != "" {
		return nil
	}
	// Its work message lies there until the deadline. To give that back would not
	// do: the broker may forget it, and an answer to the old message may come late.
	work, _, err := d.workOf(ctx, last)
	if err != nil {
		return fmt.Errorf("let the run go on: %w", err)
	}
	return d.queueAgain(ctx, last.Head(), work)
}
