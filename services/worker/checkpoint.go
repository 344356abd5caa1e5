package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/internal/sabotage"
	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// pauseUnavailable is the pause before something is tried again that the
// broker did not answer; it is out for a moment, and the attempt goes on.
const pauseUnavailable = 200 * time.Millisecond

// Checkpoint implements agent.Host: the state goes into bucket runs under this
// epoch's own key, then state.checkpoint names it. A crash between the two
// leaves an orphan that no log knows, and the checkpoint before it stands.
func (h host) Checkpoint(ctx context.Context, state contracts.State) error {
	if h.finishing.Load() {
		return errEnded
	}
	size := len(state.Data)
	if limit := h.worker.payloadLimit(); size > limit {
		return agent.Permanent(fmt.Errorf("state of %d bytes is above the limit of %d, the broker's max_payload of %d less %d: "+
			"keep what is large elsewhere, in a file or an object store, and its name in the state, or have max_payload raised",
			size, limit, h.worker.nc.MaxPayload(), envelopeRoom))
	}
	h.checkpointMu.Lock()
	defer h.checkpointMu.Unlock()
	if h.lost() {
		// Nothing could name it. And the event of the one before, whose outcome
		// nobody waited for, may stand in the log: what it names must stay.
		return agent.ErrLeaseLost
	}
	at := h.writer.head()
	n := uint64(1)
	if at.Checkpoint != nil {
		n = at.Checkpoint.N + 1
	}
	m := &nats.Msg{Subject: contracts.KVSubject(contracts.BucketRuns, contracts.CheckpointKey(at.RunID, at.Epoch, n)), Data: state.Data}
	payload := contracts.Checkpointed{N: n, Size: size}
	inline := size <= contracts.MaxInlineState
	switch {
	case state.Binary:
		m.Header = nats.Header{contracts.HeaderContentType: {contracts.ContentTypeBinary}}
		if inline {
			payload.Binary = state.Data
		}
	case inline:
		payload.State = state.Data
	}
	revision, err := h.worker.put(ctx, m)
	if err != nil {
		return fmt.Errorf("store checkpoint %d: %w", n, err)
	}
	ref := contracts.CheckpointRef{N: n, Epoch: at.Epoch, Revision: revision}
	return h.writer.commit(ctx, func(contracts.Head) (contracts.Draft, error) {
		return contracts.Draft{Type: contracts.TypeCheckpoint, Checkpoint: &ref, Payload: payload}, nil
	})
}

// put stores an entry of a bucket and returns its revision. It tries again
// while the broker is out, until ctx ends.
func (w *Worker) put(ctx context.Context, m *nats.Msg) (uint64, error) {
	for {
		ack, err := w.js.PublishMsg(ctx, m)
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
		jsutil.Sleep(ctx, pauseUnavailable)
	}
}

// resume reads the state that an attempt begins with: before its start, so that
// a broker that cannot give it charges no attempt. One that has gone changes the
// decision; if a holder is still saving, the append will find that out.
func (w *Worker) resume(ctx context.Context, at runlog.Head) (*contracts.State, action, error) {
	ref := at.Checkpoint
	if ref == nil || sabotage.Broken(sabotage.Checkpoint) {
		return nil, actStart, nil
	}
	key := contracts.CheckpointKey(at.RunID, ref.Epoch, ref.N)
	which := jsutil.GetRequest{Seq: ref.Revision, NextFor: contracts.KVSubject(contracts.BucketRuns, key)}
	m, err := jsutil.Get(ctx, w.nc, contracts.StreamRuns, which)
	if err == nil && m.Sequence == ref.Revision {
		return &contracts.State{Data: m.Data, Binary: m.Header.Get(contracts.HeaderContentType) == contracts.ContentTypeBinary}, actStart, nil
	}
	if err == nil || errors.Is(err, jsutil.ErrNotFound) { // by a replica that may lag
		m, err = jsutil.GetFromLeader(ctx, w.nc, contracts.StreamRuns, which)
		if errors.Is(err, jsutil.ErrNotFound) || err == nil && m.Sequence != ref.Revision {
			return nil, actLost, nil
		}
	}
	return nil, actStart, fmt.Errorf("load checkpoint %d, key %s revision %d: %w", ref.N, key, ref.Revision, cmp.Or(err, jsutil.ErrUnavailable))
}

// envelopeRoom is what an event's envelope and the headers of a message may
// take, in bytes, of the broker's max_payload.
const envelopeRoom = 4 << 10

// payloadLimit is the largest payload or state, in bytes: what the broker takes
// in one message less envelopeRoom.
func (w *Worker) payloadLimit() int { return int(w.nc.MaxPayload()) - envelopeRoom }
