package cluster

import (
	"context"
	"fmt"
	"time"
)

// poll is the pause between two looks at a condition.
const poll = 5 * time.Millisecond

// WaitFor polls until ok, and says what it waited for if that never comes.
func WaitFor(ctx context.Context, patience time.Duration, what string, ok func() bool) error {
	begun := time.Now()
	for !ok() {
		if time.Since(begun) > patience {
			return fmt.Errorf("waited %s in vain for %s", patience, what)
		}
		if err := Sleep(ctx, poll); err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
	}
	return nil
}

// Sleep returns an error, the context's cause, if ctx ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
