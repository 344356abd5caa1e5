package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/internal/sabotage"
	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// pauseUnavailable is the pause before something is tried again that the
// broker did not answer; it is out for a moment, and the attempt goes on.
const pauseUnavailable = 200 * time.Millisecond

// Checkpoint implements agent.Host: the state goes into bucket runs under this
// epoch's own key, then state.checkpoint names it. A crash between the two
// leaves an orphan that no log knows, and the checkpoint before it stands.
func (h host) Checkpoint(ctx context.Context, state json.RawMessage) error {
	if limit := h.worker.payloadLimit(); len(state) > limit {
		return agent.Permanent(fmt.Errorf("state of %d bytes is above the limit of %d: keep large data elsewhere and its name in the state", len(state), limit))
	}
	h.checkpointMu.Lock()
	defer h.checkpointMu.Unlock()
	at := h.writer.head()
	// Never a number again: the event of a checkpoint that failed may stand in
	// the log after all, and what it names must stay.
	n := h.checkpointN + 1
	if at.Checkpoint != nil {
		n = max(n, at.Checkpoint.N+1)
	}
	h.checkpointN = n
	key := contracts.CheckpointKey(at.RunID, at.Epoch, n)
	revision, err := h.worker.putKey(ctx, contracts.BucketRuns, key, state)
	if err != nil {
		return fmt.Errorf("store checkpoint %d: %w", n, err)
	}
	payload := contracts.Checkpointed{N: n, Size: len(state)}
	if len(state) <= contracts.MaxInlineState {
		payload.State = state
	}
	ref := contracts.CheckpointRef{N: n, Epoch: at.Epoch, Revision: revision}
	return h.writer.commit(ctx, func(contracts.Head) (contracts.Draft, error) {
		return contracts.Draft{Type: contracts.TypeCheckpoint, Checkpoint: &ref, Payload: payload}, nil
	})
}

// putKey writes one entry of a bucket and returns its revision. It tries again
// while the broker is out, until ctx ends.
func (w *Worker) putKey(ctx context.Context, bucket, key string, value []byte) (uint64, error) {
	for {
		ack, err := w.js.PublishMsg(ctx, &nats.Msg{Subject: contracts.KVSubject(bucket, key), Data: value})
		if err == nil {
			return ack.Sequence, nil
		}
		err = jsutil.Translate(err)
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		if !errors.Is(err, jsutil.ErrUnavailable) {
			return 0, err
		}
		pause(ctx, pauseUnavailable)
	}
}

// pause waits, but not beyond the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// loadCheckpoint reads the state that ref names.
func (w *Worker) loadCheckpoint(ctx context.Context, runID string, ref contracts.CheckpointRef) (json.RawMessage, error) {
	if sabotage.Broken(sabotage.Checkpoint) {
		return nil, nil
	}
	kv, err := w.js.KeyValue(ctx, contracts.BucketRuns)
	if err != nil {
		return nil, fmt.Errorf("load checkpoint %d: %w", ref.N, jsutil.Translate(err))
	}
	key := contracts.CheckpointKey(runID, ref.Epoch, ref.N)
	entry, err := kv.GetRevision(ctx, key, ref.Revision)
	if err != nil {
		return nil, fmt.Errorf("load checkpoint %d, key %s revision %d: %w", ref.N, key, ref.Revision, jsutil.Translate(err))
	}
	return entry.Value(), nil
}

// payloadLimit is the largest payload or state, in bytes: what the broker takes
// in one message less the envelope and headers.
func (w *Worker) payloadLimit() int {
	const envelope = 4 << 10
	return int(w.nc.MaxPayload()) - envelope
}
