package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"longhaul/pkg/contracts"
)

// ErrSleeping is the cause with which an agent's context ends when Sleep has
// put its run to sleep.
var ErrSleeping = errors.New("run sleeps")

// SleepInPlace is the longest that Sleep keeps a worker's slot.
const SleepInPlace = 2 * time.Second

// longestWait is as good as for ever, and can be counted in nanoseconds by
// everything between here and the broker.
const longestWait = 100 * 365 * 24 * time.Hour

// Sleep returns nil when d is over since the run first came to the sleep of
// this name. That moment is remembered like a step, under a name of the same
// kind: neither a crash nor a retry makes it longer.
//
// For more than SleepInPlace it holds no worker: it ends the attempt, and the
// agent returns the error that it gets, as it would any other. When it is time
// the agent is called again, as the same attempt, which is not charged and has
// its whole timeout anew, and then Sleep returns nil. Once the run was put to
// sleep it makes no difference what the agent returns. Of sleeps in parallel
// those that have not begun by then begin when the run is awake again.
func Sleep(ctx context.Context, run *Run, name string, d time.Duration) error {
	wakeAt, err := Step(ctx, run, name, func(context.Context) (time.Time, error) { return time.Now().Add(min(d, longestWait)).UTC(), nil })
	if err != nil {
		return err
	}
	rest := time.Until(wakeAt)
	if rest > SleepInPlace {
		run.host.Sleep(contracts.Sleeping{Name: name, WakeAt: wakeAt})
		return fmt.Errorf("sleep %q: %w", name, ErrSleeping)
	}
	if err := wait(ctx, rest); err != nil {
		return fmt.Errorf("sleep %q: %w", name, err)
	}
	return nil
}
