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

// lookup reads record and log of a run, the record first: it then claims no
// more than the log.
func (a *api) lookup(ctx context.Context, runID string) (contracts.GetResponse, error) {
	var response contracts.GetResponse
	there, err := a.records.get(ctx, runID)
	if err != nil {
		return response, err
	}
	rec := there.rec
	last, err := a.log.LastFromLeader(ctx, runID)
	switch {
	case errors.Is(err, jsutil.ErrNotFound) && rec.RunID != "":
		return contracts.GetResponse{Run: rec}, nil // the log has expired before the record
	case errors.Is(err, jsutil.ErrNotFound):
		return response, &apiError{code: 404, text: fmt.Sprintf("run %s is unknown: never submitted, not yet accepted, or expired", runID)}
	case errors.Is(err, runlog.ErrMalformed):
		if rec, err = a.between(ctx, contracts.StatusRecord{}, runID, 0); err == nil && rec.RunID == "" {
			err = &apiError{code: 500, text: fmt.Sprintf("the log of run %s holds no event that can be read", runID)}
		}
		return contracts.GetResponse{Run: rec}, err
	case err != nil:
		return response, err
	}
	if beyond(rec, last) {
		rec = contracts.StatusRecord{}
	}
	if rec, _, err = a.carry(ctx, rec, last); err != nil {
		return response, err
	}
	response.Run = a.project(rec, last)
	response.Run.Position = last.Position // the log's word, whoever wrote the record
	if last.Type.Terminal() {
		response.Result = last.Payload
	}
	return response, nil
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
