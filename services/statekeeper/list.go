package statekeeper

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	"github.com/google/uuid"

	"longhaul/pkg/contracts"
)

// frameRoom is what a page takes beside its records, the cursor included.
const frameRoom = 64

// list answers endpoint list: runs found in the index, shown from the bucket.
func (a *api) list(ctx context.Context, data []byte) (any, error) {
	q, from, f := decodeList(data)
	if f != nil {
		return nil, badRequest(f)
	}
	x, err := a.ready()
	if err != nil {
		return nil, err
	}
	room := int(a.nc.MaxPayload()) - headerRoom - frameRoom
	// A contracts.ListResponse, whose records are shown as they are stored: to
	// encode them anew takes a fifth of the time.
	var response struct {
		Runs   []json.RawMessage `json:"runs"`
		Cursor string            `json:"cursor,omitempty"`
	}
	response.Runs = []json.RawMessage{}
	var end contracts.StatusRecord
	for {
		ids, last, more := x.find(q, from, q.Limit-len(response.Runs))
		found, err := a.records.page(ctx, ids)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			there := found[id]
			if there.rec.RunID == "" || len(q.Status) > 0 && !slices.Contains(q.Status, there.rec.Status) {
				continue // gone, or moved on a moment ago, or no record of this run
			}
			if room -= len(there.data) + 1; room < 0 && len(response.Runs) > 0 {
				// The answer is as large as the broker carries: a short page.
				response.Cursor = position{end.CreatedAt.UnixNano(), uuid.MustParse(end.RunID)}.cursor()
				return response, nil
			}
			response.Runs, end = append(response.Runs, there.data), there.rec
		}
		from = last
		switch {
		case !more:
			return response, nil
		case len(response.Runs) == q.Limit:
			response.Cursor = last.cursor()
			return response, nil
		}
	}
}

// decodeList reads and judges a request, with the limit filled in.
func decodeList(data []byte) (contracts.ListRequest, position, contracts.Faults) {
	q, f := contracts.DecodeList(data)
	q.Limit = cmp.Or(q.Limit, contracts.DefaultListLimit)
	from := newest()
	if q.Cursor != "" {
		var err error
		if from, err = parseCursor(q.Cursor); err != nil {
			f = append(f, contracts.Fault{Field: "cursor", Message: err.Error()})
		}
	}
	return q, from, f
}
