package dispatcher

import (
	"context"
	"fmt"
	"strings"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// maxLooks bounds how often one delivery looks at a log again after losing a
// race about it. A holder that streams events can win many in a row.
const maxLooks = 10

// errContested ends a delivery that has lost that many; the message comes again.
var errContested = fmt.Errorf("%w, %d times", jsutil.ErrConflict, maxLooks)

// commands carries out cancels and redrives. They have a consumer of their
// own, so that a backlog of submissions never delays a cancel. Two commands
// about one run are carried out in any order.
type commands struct {
	handler
	lane          *lane
	holderTimeout time.Duration
}

func (c *commands) handle(ctx context.Context, m *jsutil.Delivery) {
	c.lane.run(func() {
		ctx, cancel := context.WithTimeout(ctx, stepTimeout)
		defer cancel()
		runID, err := contracts.RunIDOfSubject(m.Subject)
		if err != nil {
			err = fmt.Errorf("%w: %w", errMalformed, err)
		} else {
			err = c.carryOut(ctx, m, runID)
		}
		c.finish(m, err, "run_id", runID)
	})
}

func (c *commands) carryOut(ctx context.Context, m *jsutil.Delivery, runID string) error {
	if len(m.Data) > contracts.MaxCommand {
		return fmt.Errorf("%w: %d bytes, at most %d", errMalformed, len(m.Data), contracts.MaxCommand)
	}
	if strings.HasSuffix(m.Subject, ".cancel") {
		cmd, faults := contracts.DecodeCancel(m.Data)
		if len(faults) > 0 {
			return fmt.Errorf("%w: %w", errMalformed, faults)
		}
		return c.cancel(ctx, m, runID, cmd)
	}
	cmd, faults := contracts.DecodeRedrive(m.Data)
	if len(faults) > 0 {
		return fmt.Errorf("%w: %w", errMalformed, faults)
	}
	return c.redrive(ctx, m, runID, cmd)
}
