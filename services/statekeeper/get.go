package statekeeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// get answers endpoint get: the stored record, carried on by what the log holds
// beyond it.
func (a *api) get(ctx context.Context, data []byte) (any, error) {
	var q contracts.GetRequest
	f := decodeRequest(data, map[string]any{"run_id": &q.RunID})
	if f == nil {
		if err := contracts.CheckRunID(q.RunID); err != nil {
			f = contracts.Faults{{Field: "run_id", Message: err.Error()}}
		}
	}
	if f != nil {
		return nil, badRequest(f)
	}
	response, err := a.lookup(ctx, q.RunID)
	if err != nil {
		return nil, err
	}
	return response, a.fit(response)
}

// lookup reads record and log of a run.
func (a *api) lookup(ctx context.Context, runID string) (contracts.GetResponse, error) {
	there, err := a.records.get(ctx, runID)
	if err != nil {
		return contracts.GetResponse{}, err
	}
	last, err := a.log.Last(ctx, runID)
	if err == nil && there.valid && there.rec.Seq > last.Seq {
		// A replica that lags, or a record that somebody wrote by hand.
		last, err = a.log.LastFromLeader(ctx, runID)
		there.valid = there.rec.Seq <= last.Seq
	}
	switch {
	case errors.Is(err, jsutil.ErrNotFound) && there.valid:
		return contracts.GetResponse{Run: there.rec}, nil // the log has expired before the record
	case errors.Is(err, jsutil.ErrNotFound):
		return contracts.GetResponse{}, &apiError{code: 404, text: fmt.Sprintf("run %s is unknown: never submitted, not yet accepted, or expired", runID)}
	case err != nil && !errors.Is(err, runlog.ErrMalformed):
		return contracts.GetResponse{}, err
	}
	rec := there.rec
	if !there.valid {
		rec = contracts.StatusRecord{}
	}
	if rec.Seq < last.Seq || err != nil {
		if rec, err = a.catchUp(ctx, runID, rec, &last); err != nil {
			return contracts.GetResponse{}, err
		}
	}
	response := contracts.GetResponse{Run: rec}
	if last.Seq == rec.Seq {
		response.Run.Position = last.Position // the log's word, whoever wrote the record
		if last.Type.Terminal() {
			response.Result = last.Payload
		}
	}
	return response, nil
}

// catchUp folds what the log holds beyond rec, and sets last to the last of it.
func (a *api) catchUp(ctx context.Context, runID string, rec contracts.StatusRecord, last *runlog.Entry) (contracts.StatusRecord, error) {
	project := func(rec contracts.StatusRecord, e contracts.Event, sequence uint64) contracts.StatusRecord {
		*last = runlog.Entry{Event: e, Sequence: sequence}
		rec, err := contracts.Project(rec, e, sequence)
		if err != nil {
			a.logger.Warn("an event's payload cannot be read", "run_id", runID, "error", err)
		}
		return rec
	}
	if last.Seq == rec.Seq+1 {
		return project(rec, last.Event, last.Sequence), nil
	}
	rec, err := foldLog(a.log.Read(ctx, runID, rec.Seq+1), rec, 0, project)
	if err == nil && rec.Seq == 0 {
		return rec, &apiError{code: 500, text: fmt.Sprintf("the log of run %s holds no event that can be read", runID)}
	}
	return rec, err
}

// fit refuses an answer that the broker would not carry, and sends the record
// without the result in its place.
func (a *api) fit(r contracts.GetResponse) error {
	if len(r.Result) < int(a.nc.MaxPayload())/2 {
		return nil // no record is larger than the other half
	}
	data, err := contracts.Encode(r)
	if err != nil || int64(len(data)) < a.nc.MaxPayload()-headerRoom {
		return err
	}
	size := len(r.Result)
	r.Result = nil
	if data, err = json.Marshal(r); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	return &apiError{code: 413, body: data, text: fmt.Sprintf(
		"the result has %d bytes and does not fit into an answer; it is the payload of the last event on %s. The run without it is in the body",
		size, contracts.EventsSubject(r.Run.RunID))}
}

// headerRoom is what an answer's headers may take.
const headerRoom = 4 << 10
