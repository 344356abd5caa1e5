package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// maxTurns is how many runs of a conversation are written down. One that is
// taken in again must find itself among them: as many others may come into the
// conversation in the seconds that this takes.
const maxTurns = 256

// join gives a run its turn in its conversation, behind all that have theirs,
// and returns the run before it. The turns are one key, written by
// compare-and-set: whatever dispatchers do at once, there is one order, and a
// run that is taken in again has the turn that it had.
func (d *Dispatcher) join(ctx context.Context, sub contracts.Submission) (follows string, faults contracts.Faults, err error) {
	subject := contracts.KVSubject(contracts.BucketRuns, contracts.ConversationKey(sub.ConversationID))
	for range maxLooks {
		there, err := jsutil.GetFromLeader(ctx, d.nc, contracts.StreamRuns, jsutil.GetRequest{LastFor: subject})
		if err != nil && !errors.Is(err, jsutil.ErrNotFound) {
			return "", nil, fmt.Errorf("look up a conversation: %w", err)
		}
		runs := strings.Fields(string(there.Data))
		turn := slices.Index(runs, sub.RunID)
		if turn < 0 {
			turn = len(runs)
			if turn > 0 && sub.OnConflict == contracts.OnConflictReject {
				if ended, _, err := d.ended(ctx, runs[turn-1]); err != nil || !ended {
					return "", contracts.Faults{{Field: "on_conflict", Message: "run " + runs[turn-1] + " of the conversation has not ended"}}, err
				}
			}
			runs = append(runs, sub.RunID)
			put := strings.Join(runs[max(0, len(runs)-maxTurns):], " ")
			err = d.publish(ctx, &nats.Msg{Subject: subject, Data: []byte(put)}, jetstream.WithExpectLastSequencePerSubject(there.Sequence))
			if errors.Is(err, jsutil.ErrConflict) {
				continue
			} else if err != nil {
				return "", nil, err
			}
		}
		if turn == 0 {
			return "", nil, nil
		}
		if sub.OnConflict == contracts.OnConflictInterrupt {
			err = d.interrupt(ctx, runs[:turn], sub.RunID)
		}
		return runs[turn-1], nil, err
	}
	return "", nil, fmt.Errorf("join a conversation: %w, %d times", jsutil.ErrConflict, maxLooks)
}

// interrupt cancels what of a conversation has not ended. A run begins only when
// those before it have ended: so one that has begun is the first to ask about.
func (d *Dispatcher) interrupt(ctx context.Context, runs []string, by string) error {
	for _, id := range slices.Backward(runs) {
		ended, begun, err := d.ended(ctx, id)
		if err == nil && !ended {
			body := `{"reason":"its conversation goes on with run ` + by + `"}`
			err = d.publish(ctx, &nats.Msg{Subject: contracts.CancelSubject(id), Data: []byte(body)})
		}
		if err != nil || begun {
			return err
		}
	}
	return nil
}

// ended reports whether a run has ended and whether it was ever begun. One that
// has no log has its turn, and its run.queued is about to come.
func (d *Dispatcher) ended(ctx context.Context, runID string) (ended, begun bool, err error) {
	last, err := d.log.LastFromLeader(ctx, runID)
	if errors.Is(err, jsutil.ErrNotFound) {
		return false, false, nil
	}
	return last.Status.Terminal(), last.Epoch > 0, err
}
