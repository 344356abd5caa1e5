package dispatcher

import (
	"context"
	"fmt"
	"strings"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// takeCommands takes what is asked about runs that exist, until ctx ends, and
// returns when all that it took is answered: cancels and redrives, or the
// broker's word that a run is due. Their handling has the context work. Two
// commands about one run are carried out in any order.
func (d *Dispatcher) takeCommands(ctx, work context.Context, stream, consumer string) {
	l := newLane()
	d.take(ctx, stream, consumer, func(m *jsutil.Delivery) {
		runID, err := contracts.RunIDOfSubject(m.Subject)
		d.aside(work, l, m, runID, func(ctx context.Context) error {
			if err != nil {
				return fmt.Errorf("%w: %w", errMalformed, err)
			}
			return d.carryOut(ctx, m, runID)
		})
	})
	l.wg.Wait()
}

func (d *Dispatcher) carryOut(ctx context.Context, m *jsutil.Delivery, runID string) error {
	if m.Subject == contracts.ScheduleDueSubject(runID) {
		return d.due(ctx, m, runID)
	}
	var faults contracts.Faults
	if strings.HasSuffix(m.Subject, ".cancel") {
		var cmd contracts.CancelCommand
		if cmd, faults = contracts.DecodeCancel(m.Data); len(faults) == 0 {
			return d.cancel(ctx, m, runID, cmd)
		}
	} else {
		var cmd contracts.RedriveCommand
		if cmd, faults = contracts.DecodeRedrive(m.Data); len(faults) == 0 {
			return d.redrive(ctx, m, runID, cmd)
		}
	}
	return fmt.Errorf("%w: %w", errMalformed, faults)
}
