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

// claim takes an idempotency key for a run and returns the run that holds it:
// the given one, or the one that was first. A run that claims again, because
// its submission is delivered again, is told that it holds the key.
func (d *Dispatcher) claim(ctx context.Context, key, runID string) (holder string, err error) {
	subject := contracts.KVSubject(contracts.BucketRuns, contracts.IdempotencyKey(key))
	put := func(over uint64) error {
		return d.publish(ctx, &nats.Msg{Subject: subject, Data: []byte(runID)}, jetstream.WithExpectLastSequencePerSubject(over))
	}
	if err = put(0); !errors.Is(err, jsutil.ErrConflict) {
		return runID, err
	}
	entry, err := jsutil.GetFromLeader(ctx, d.nc, contracts.StreamRuns, jsutil.GetRequest{LastFor: subject})
	switch {
	case err != nil: // if there is none, it was removed a moment ago
		return "", fmt.Errorf("look up an idempotency key: %w", err)
	case deleted(entry):
		return runID, put(entry.Sequence)
	case string(entry.Data) == runID:
		return runID, nil
	}
	holder = string(entry.Data)
	last, err := d.log.LastFromLeader(ctx, holder)
	switch {
	case err == nil && last.Type == contracts.TypeRejected:
		// When it claimed the key nothing spoke against it, and then something did.
		return runID, put(entry.Sequence)
	case err != nil && !errors.Is(err, jsutil.ErrNotFound):
		return "", err
	}
	return holder, nil
}

// deleted reports whether m is a bucket's mark of a deleted key. Nothing else
// in our buckets is empty.
func deleted(m jsutil.Stored) bool { return len(m.Data) == 0 }

// publish stores m and waits until it is stored.
func (d *Dispatcher) publish(ctx context.Context, m *nats.Msg, opts ...jetstream.PublishOpt) error {
	_, err := d.js.PublishMsg(ctx, m, opts...)
	return translate("publish on "+m.Subject, err)
}

// translate is jsutil.Translate, with what was being done.
func translate(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, jsutil.Translate(err))
}
