package statekeeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// release gives back the leases of all runs that a dead worker holds, each
// once per epoch: given says which were. The log is asked about every one, for
// the index may lag; that also paces it, to some thousand a second.
func (w *watchdog) release(ctx context.Context, logger *slog.Logger, workerID string, given map[heldRun]bool) {
	x := w.feed.current()
	if x == nil {
		return
	}
	count := 0
	connected := w.connected.Load()
	for _, run := range x.heldBy(workerID) {
		if given[run] {
			continue
		}
		if ctx.Err() != nil || w.connected.Load() != connected {
			return
		}
		done, err := w.releaseRun(ctx, workerID, run)
		if errors.Is(err, jsutil.ErrUnavailable) {
			logger.Warn("cannot look at the runs of a dead worker, trying again", "run_id", run.runID, "error", err)
			return
		}
		if err != nil {
			logger.Error("cannot give a dead worker's lease back, it will run out", "run_id", run.runID, "error", err)
		}
		given[run] = true
		if done {
			count++
		}
	}
	if count > 0 {
		w.released.Add(int64(count))
		logger.Warn("worker does not answer, gave its leases back", "runs", count)
	}
}

// releaseRun gives back the lease of one run, if the log says that the worker
// holds it still.
func (w *watchdog) releaseRun(ctx context.Context, workerID string, run heldRun) (bool, error) {
	last, err := w.log.Last(ctx, run.runID)
	if errors.Is(err, jsutil.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !last.Status.Held() || last.WorkerID != workerID {
		return false, nil
	}
	token, err := w.leaseToken(ctx, last)
	if err != nil || token == "" {
		return false, err
	}
	if err := jsutil.ReleaseToken(w.nc, token); err != nil {
		return false, err
	}
	return true, nil
}

// leaseToken finds the run.started of the epoch of last, and the lease token in
// it. Nobody keeps the tokens at hand: they are needed only when a worker dies.
func (w *watchdog) leaseToken(ctx context.Context, last runlog.Entry) (string, error) {
	started := last
	if last.Type != contracts.TypeStarted {
		for e, err := range w.log.Read(ctx, last.RunID, 1) {
			switch {
			case errors.Is(err, runlog.ErrMalformed), errors.Is(err, runlog.ErrGap):
				continue
			case err != nil:
				return "", err
			}
			if e.Type == contracts.TypeStarted {
				started = e
			}
			if e.Epoch == last.Epoch {
				break
			}
		}
	}
	if started.Type != contracts.TypeStarted || started.Epoch != last.Epoch {
		return "", fmt.Errorf("the log holds no run.started of epoch %d", last.Epoch)
	}
	var payload contracts.Started
	if err := json.Unmarshal(started.Payload, &payload); err != nil {
		return "", fmt.Errorf("decode the payload of run.started of epoch %d: %w", last.Epoch, err)
	}
	return payload.LeaseToken, nil
}
