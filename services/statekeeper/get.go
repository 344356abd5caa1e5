package statekeeper

import (
	"context"
	"errors"
	"fmt"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// get answers endpoint get: the stored record, carried on by what the log holds
// beyond it.
func (a *api) get(ctx context.Context, data []byte) (any, error) {
	q, f := contracts.DecodeGet(data)
	if f != nil {
		return nil, badRequest(f)
	}
	return a.lookup(ctx, q.RunID)
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
