package statekeeper

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"longhaul/pkg/contracts"
)

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
	page := page{room: int(a.nc.MaxPayload()) - headerRoom}
	for {
		ids, last, more := x.find(q, from, q.Limit-page.runs)
		found, err := a.records.raw(ctx, ids)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			m := found[statusSubject(id)]
			rec, err := contracts.DecodeSummary(m.Data)
			if m.Header.Get(kvOperation) != "" || err != nil || rec.RunID != id || len(q.Status) > 0 && !slices.Contains(q.Status, rec.Status) {
				continue // gone, or moved on a moment ago
			}
			if !page.add(m.Data) {
				// The answer is as large as the broker carries: a short page.
				return page.encode(from.cursor()), nil
			}
			from = position{rec.CreatedAt.UnixNano(), uuid.MustParse(id)}
		}
		from = last
		switch {
		case !more:
			return page.encode(""), nil
		case page.runs == q.Limit:
			return page.encode(last.cursor()), nil
		}
	}
}

// page is a contracts.ListResponse in the making. Its records are shown as they
// are stored: to encode them anew would take a fifth of the time.
type page struct {
	list []byte // of records, a comma before each
	runs int
	room int // bytes
}

// add adds an encoded record, if there is room for it. There is for the first.
func (p *page) add(record []byte) bool {
	if p.room -= len(record) + 1; p.room < 0 && p.runs > 0 {
		return false
	}
	p.list = append(append(p.list, ','), record...)
	p.runs++
	return true
}

func (p *page) encode(cursor string) encoded {
	data := append([]byte(`{"runs":[`), p.list[min(1, len(p.list)):]...)
	data = append(data, ']')
	if cursor != "" {
		data = fmt.Appendf(data, `,"cursor":%q`, cursor)
	}
	return append(data, '}')
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
