package dispatcher

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// maxClaimTries bounds the races about one key that are lost in one go.
const maxClaimTries = 5

// claim takes an idempotency key for a run and returns the run that holds it:
// the given one, or the one that was first. A run that claims again, because
// its submission is delivered again, is told that it holds the key.
func (b *broker) claim(ctx context.Context, key, runID string) (holder string, err error) {
	subject := contracts.KVSubject(contracts.BucketRuns, contracts.IdempotencyKey(key))
	var at uint64 // the entry that the claim replaces: none, or the mark of a deleted one
	for range maxClaimTries {
		err = b.publish(ctx, &nats.Msg{Subject: subject, Data: []byte(runID)}, jetstream.WithExpectLastSequencePerSubject(at))
		if err == nil {
			return runID, nil
		}
		if !errors.Is(err, jsutil.ErrConflict) {
			break
		}
		entry, lookErr := b.last(ctx, contracts.StreamRuns, subject)
		switch {
		case errors.Is(lookErr, jsutil.ErrNotFound): // removed meanwhile, with its run
			at = 0
		case lookErr != nil:
			return "", fmt.Errorf("look up an idempotency key: %w", lookErr)
		case !deleted(entry):
			return string(entry.Data), nil
		default:
			at = entry.Sequence
		}
	}
	return "", fmt.Errorf("claim an idempotency key: %w", err)
}
