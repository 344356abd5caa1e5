package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

const (
	// maxTurns is how many runs of a conversation are written down.
	maxTurns = 256
	// appearWithin is how long who has a turn may be without a log: his dispatcher died,
	// and another one goes on with him. It is more than stepTimeout, within which
	// a dispatcher that gives a turn appends or gives up.
	appearWithin = time.Minute
)

// join gives a run its turn in its conversation, behind all that have theirs,
// and returns the run before it, if it is of one. The turns are one key, written by
// compare-and-set: whatever dispatchers do at once, there is one order, and a
// run that is taken in again has the turn that it had. All but the last are
// queued: so none that is dropped as too old asks for his turn again, and what
// a run follows has a log, or had one.
func (d *Dispatcher) join(ctx context.Context, sub contracts.Submission) (follows string, faults contracts.Faults, err error) {
	if sub.ConversationID == "" {
		return "", nil, nil
	}
	subject := contracts.KVSubject(contracts.BucketRuns, contracts.ConversationKey(sub.ConversationID))
	for range maxLooks {
		there, err := jsutil.GetFromLeader(ctx, d.nc, contracts.StreamRuns, jsutil.GetRequest{LastFor: subject})
		if err != nil && !errors.Is(err, jsutil.ErrNotFound) {
			return "", nil, fmt.Errorf("look up a conversation: %w", err)
		}
		before := strings.Fields(string(there.Data))
		turn := slices.Index(before, sub.RunID)
		if turn >= 0 {
			before = before[:turn]
		}
		before, live, err := d.settled(ctx, before, time.Since(there.Time) < appearWithin)
		if live && turn < 0 && sub.OnConflict == contracts.OnConflictReject {
			return "", contracts.Faults{{Field: "on_conflict", Message: "run " + before[len(before)-1] + " of the conversation has not ended"}}, nil
		}
		if err == nil && turn < 0 {
			put := strings.Join(append(before[max(0, len(before)+1-maxTurns):], sub.RunID), " ")
			err = d.publish(ctx, &nats.Msg{Subject: subject, Data: []byte(put)}, jetstream.WithExpectLastSequencePerSubject(there.Sequence))
			if errors.Is(err, jsutil.ErrConflict) {
				continue
			}
		}
		if err == nil && live && sub.OnConflict == contracts.OnConflictInterrupt {
			err = d.interrupt(ctx, before, sub.RunID)
		}
		if err != nil || len(before) == 0 {
			return "", nil, err
		}
		return before[len(before)-1], nil, nil
	}
	return "", nil, fmt.Errorf("join a conversation: %w, %d times", jsutil.ErrConflict, maxLooks)
}

// settled leaves out the last of some runs as far as they can't be followed: those that
// ended and never began, for they may not know whom they followed, and those
// that were removed. The very last one, if it is young, is about to be queued, or
// the leader that does not know of it is a new one that is behind.
// Live says that the one which is left as the last has not ended.
func (d *Dispatcher) settled(ctx context.Context, runs []string, young bool) (_ []string, live bool, err error) {
	for ; len(runs) > 0; runs = runs[:len(runs)-1] {
		last, err := d.log.LastFromLeader(ctx, runs[len(runs)-1])
		coming := errors.Is(err, jsutil.ErrNotFound) || err == nil && last.Status == contracts.StatusScheduled
		switch {
		case coming && young:
			return runs, true, fmt.Errorf("%w: the run before it, %s, is not queued yet", jsutil.ErrUnavailable, runs[len(runs)-1])
		case !coming && (err != nil || !last.Status.Terminal() || last.Epoch > 0):
			return runs, err == nil && !last.Status.Terminal(), err
		}
		young = false
	}
	return nil, false, nil
}

// interrupt cancels what of a conversation has not ended. A run begins only when
// those before it have ended: so one that has begun is the first to ask about.
func (d *Dispatcher) interrupt(ctx context.Context, runs []string, by string) error {
	for _, id := range slices.Backward(runs) {
		last, err := d.log.LastFromLeader(ctx, id)
		if err == nil && !last.Status.Terminal() {
			body := `{"reason":"its conversation goes on with run ` + by + `"}`
			err = d.publish(ctx, &nats.Msg{Subject: contracts.CancelSubject(id), Data: []byte(body)})
		}
		if err != nil && !errors.Is(err, jsutil.ErrNotFound) || last.Epoch > 0 {
			return err
		}
	}
	return nil
}
