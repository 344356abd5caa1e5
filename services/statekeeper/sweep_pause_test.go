package statekeeper

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// A sweep that an outage held up is not a long sweep: the next one comes soon.
func TestSweepPauseAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var rounds []time.Duration // before each
		last := time.Now()
		s := &sweeper{api: &api{folding: folding{logger: slog.New(slog.DiscardHandler)}}, interval: sweepInterval}
		s.acting = func(context.Context) (bool, error) {
			rounds = append(rounds, time.Since(last))
			defer func() { last = time.Now() }()
			switch len(rounds) {
			case 2:
				time.Sleep(5 * time.Second)
				return false, errors.New("no answer")
			case 4: // answered at last
				time.Sleep(5 * time.Second)
			case 6:
				cancel()
			}
			return false, nil
		}
		if err := s.run(ctx); err != nil {
			t.Fatal(err)
		}
		for i, pause := range rounds {
			if pause > 2*sweepInterval {
				t.Errorf("sweep %d came after %s", i+1, pause)
			}
		}
	})
}
