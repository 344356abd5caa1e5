package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// Checkpoint is a state that a run has saved.
type Checkpoint struct {
	contracts.CheckpointRef
	Time time.Time `json:"time"`
	Size int       `json:"size"` // bytes of State or Binary
	// State is the state, or Binary if the agent saved bytes that are no JSON.
	State  json.RawMessage `json:"state,omitempty"`
	Binary []byte          `json:"binary,omitempty"`
}

// Checkpoints yields the checkpoints of a run in the order in which they were
// saved: those that its log names and that are still stored, the newest 50 if
// statekeeper is not told otherwise. It reads the whole log, and costs one
// request for each.
func (c *Client) Checkpoints(ctx context.Context, runID string) iter.Seq2[Checkpoint, error] {
	return func(yield func(Checkpoint, error) bool) {
		fail := func(err error) { yield(Checkpoint{}, fmt.Errorf("checkpoints of run %s: %w", runID, err)) }
		if err := checkRunID(runID); err != nil {
			fail(err)
			return
		}
		stored, err := c.checkpointKeys(ctx, runID)
		if err != nil {
			fail(err)
			return
		}
		for e, err := range c.log.Read(ctx, runID, 1) { // their states are opened one by one
			if err != nil {
				fail(err)
				return
			}
			if e.Type != contracts.TypeCheckpoint || e.Checkpoint == nil || stored[checkpointSubject(runID, *e.Checkpoint)] == 0 {
				continue // of many that were saved few are left
			}
			cp, err := c.readCheckpoint(ctx, e)
			if errors.Is(err, ErrNotFound) {
				continue // deleted since
			}
			if err != nil {
				fail(err)
				return
			}
			if !yield(cp, nil) {
				return
			}
		}
	}
}

// LatestCheckpoint returns the checkpoint that the run would resume from;
// ErrNotFound if there is none.
func (c *Client) LatestCheckpoint(ctx context.Context, runID string) (Checkpoint, error) {
	e, err := c.Head(ctx, runID)
	if err == nil && e.Checkpoint == nil {
		err = ErrNotFound
	}
	if err != nil {
		return Checkpoint{}, fmt.Errorf("latest checkpoint of run %s: %w", runID, err)
	}
	cp, err := c.readCheckpoint(ctx, e)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("latest checkpoint of run %s: %w", runID, err)
	}
	return cp, nil
}

// NextCheckpoint returns the number that the run's next checkpoint will have.
func (c *Client) NextCheckpoint(ctx context.Context, runID string) (uint64, error) {
	e, err := c.Head(ctx, runID)
	if err != nil {
		return 0, fmt.Errorf("next checkpoint of run %s: %w", runID, err)
	}
	if e.Checkpoint == nil {
		return 1, nil
	}
	return e.Checkpoint.N + 1, nil
}

// DeleteCheckpoints deletes the stored states of a run's checkpoints and
// returns how many there were. The log goes on naming them. A run that has not
// ended, or is redriven, has then nothing to resume from: the caller decides
// whether that is meant.
func (c *Client) DeleteCheckpoints(ctx context.Context, runID string) (int, error) {
	if err := checkRunID(runID); err != nil {
		return 0, err
	}
	// The client library's Purge does not tell how many it purged.
	req, err := json.Marshal(map[string]string{
		"filter": contracts.KVSubject(contracts.BucketRuns, "checkpoint."+runID+".>"),
	})
	if err != nil {
		return 0, fmt.Errorf("delete the checkpoints of run %s: %w", runID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	msg, err := c.nc.RequestWithContext(ctx, "$JS.API.STREAM.PURGE."+contracts.StreamRuns, req)
	if err != nil {
		return 0, fmt.Errorf("delete the checkpoints of run %s: %w", runID, jsutil.Translate(err))
	}
	var resp struct {
		Error  *jetstream.APIError `json:"error"`
		Purged int                 `json:"purged"`
	}
	if err := json.Unmarshal(msg.Data, &resp); err != nil {
		return 0, fmt.Errorf("delete the checkpoints of run %s: decode the answer: %w", runID, err)
	}
	if resp.Error != nil {
		return 0, fmt.Errorf("delete the checkpoints of run %s: %w", runID, jsutil.Translate(resp.Error))
	}
	return resp.Purged, nil
}

// checkpointKeys lists the subjects of what is stored of a run's checkpoints.
func (c *Client) checkpointKeys(ctx context.Context, runID string) (map[string]uint64, error) {
	stream, err := c.js.Stream(ctx, contracts.StreamRuns)
	if err != nil {
		return nil, jsutil.Translate(err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(contracts.KVSubject(contracts.BucketRuns, "checkpoint."+runID+".>")))
	if err != nil {
		return nil, jsutil.Translate(err)
	}
	return info.State.Subjects, nil
}

func checkpointSubject(runID string, ref contracts.CheckpointRef) string {
	return contracts.KVSubject(contracts.BucketRuns, contracts.CheckpointKey(runID, ref.Epoch, ref.N))
}

// readCheckpoint reads the state that the head carried by e names.
func (c *Client) readCheckpoint(ctx context.Context, e runlog.Entry) (Checkpoint, error) {
	ref := *e.Checkpoint
	m, err := jsutil.Get(ctx, c.nc, contracts.StreamRuns, jsutil.GetRequest{Seq: ref.Revision, NextFor: checkpointSubject(e.RunID, ref)})
	if err == nil && m.Sequence != ref.Revision { // written again by hand
		err = ErrNotFound
	}
	var saved time.Time
	if err == nil {
		saved, err = time.Parse(time.RFC3339Nano, m.Header.Get(jetstream.TimeStampHeaer))
	}
	if err != nil {
		return Checkpoint{}, fmt.Errorf("read checkpoint %d: %w", ref.N, err)
	}
	cp := Checkpoint{CheckpointRef: ref, Time: saved, Size: len(m.Data)}
	if m.Header.Get(contracts.HeaderContentType) == contracts.ContentTypeBinary {
		cp.Binary = m.Data
	} else {
		cp.State = m.Data
	}
	return c.openedState(e.RunID, cp)
}
