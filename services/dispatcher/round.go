package dispatcher

import (
	"context"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// settleRound makes sure that retention does not remove a run whose next round
// is about to begin on its log's end. False says that it is removing the run.
func (d *Dispatcher) settleRound(ctx context.Context, at runlog.Head) (stays bool, err error) {
	subject := contracts.KVSubject(contracts.BucketRuns, contracts.RoundKey(at.RunID, at.Sequence))
	redrive := contracts.RoundRedrive + " " + time.Now().UTC().Format(time.RFC3339)
	there, err := jsutil.Claim(ctx, d.js, contracts.StreamRuns, subject, redrive)
	switch {
	case err != nil || there.Sequence == 0:
		return err == nil, err
	case string(there.Data) == contracts.RoundRemoval:
		d.logger.Warn("run is being removed, its redrive is dropped", "run_id", at.RunID, "status", at.Status)
		return false, nil
	}
	// Settled before, by a delivery that got no further. With the time of now, for
	// retention takes one for lost that is old.
	return true, jsutil.Put(ctx, d.js, subject, redrive, there.Sequence)
}
