package statekeeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// maxRelease bounds the leases that are given back between two pings: the worker
// may be back.
const maxRelease = 1000

// releaseAgain is after how many graces a lease is given back once more if the
// dead worker still holds the run: the message may have gone to a request for
// work that a frozen worker left behind, or to another that died with it.
const releaseAgain = 10

// release gives back the leases of the runs that a dead worker holds, each once
// in a while as long as it holds them. The log is asked about every one, for the index may lag;
// that also paces it, to some thousand a second.
func (w *watchdog) release(ctx context.Context, worker *watched, reconnects uint64) {
	logger := w.logger.With("worker_id", worker.id)
	looked, count := 0, 0
	for _, run := range w.feed.current().heldBy(worker.id) {
		if at, given := worker.given[run]; given && time.Since(at) < releaseAgain*w.grace {
			continue
		}
		if looked++; looked > maxRelease || ctx.Err() != nil || !w.stands(reconnects) {
			break
		}
		done, err := w.releaseRun(ctx, worker.id, run)
		if errors.Is(err, jsutil.ErrUnavailable) {
			logger.Warn("cannot look at the runs of a dead worker, trying again", "run_id", run.runID, "error", err)
			break
		}
		if err != nil {
			logger.Error("cannot give a dead worker's lease back, it will run out", "run_id", run.runID, "error", err)
		}
		worker.given[run] = time.Now()
		if done {
			count++
		}
	}
	if count > 0 {
		w.counters.add(&w.counters.Takeovers, int64(count))
		logger.Warn("worker does not answer, gave its leases back", "runs", count)
	}
}

// releaseRun gives back the lease of one run, if the log says that the worker
// holds it still. Nobody keeps the lease tokens at hand: they are needed only
// when a worker dies.
func (w *watchdog) releaseRun(ctx context.Context, workerID string, run heldRun) (bool, error) {
	last, err := w.log.Last(ctx, run.runID)
	if err != nil || !last.Status.Held() || last.WorkerID != workerID {
		return false, jsutil.Ignoring(jsutil.ErrNotFound, err)
	}
	started, err := w.log.Next(ctx, run.runID, run.started)
	if err != nil || started.Type != contracts.TypeStarted || started.Epoch != last.Epoch {
		return false, err // without one the index lags: the run has begun again
	}
	var payload contracts.Started
	if err := json.Unmarshal(started.Payload, &payload); err != nil {
		return false, fmt.Errorf("decode the payload of run.started of epoch %d: %w", last.Epoch, err)
	}
	if payload.LeaseToken == "" {
		return false, nil
	}
	return true, jsutil.ReleaseToken(w.nc, payload.LeaseToken)
}
