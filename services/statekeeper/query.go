package statekeeper

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"time"
	"unique"

	"github.com/google/uuid"

	"longhaul/pkg/contracts"
)

// position is a place in the order of runs: just at the run with this creation
// time and id, whether or not there is one.
type position struct {
	created int64 // UnixNano
	id      uuid.UUID
}

// newest is the position before every run.
func newest() position { return position{math.MaxInt64, uuid.Max} }

// scanChunk is how many runs are looked at under one hold of the lock, so that
// a search for something rare among millions does not hold up the feed.
const scanChunk = 20_000

// find lists up to limit runs that match q, newest first, beginning after the
// position from. Creation times are from q.CreatedAfter, inclusive, to
// q.CreatedBefore, exclusive. last is the position of the last one looked at; more says
// that there are runs behind it.
func (x *index) find(q contracts.ListRequest, from position, limit int) (ids []string, last position, more bool) {
	if before := q.CreatedBefore; !before.IsZero() && before.UnixNano() < from.created {
		from = position{created: before.UnixNano()}
	}
	last = from
	match := x.matcher(q)
	for {
		seen := 0
		more = false
		x.mu.RLock()
		x.ordered.Descend(indexed{created: last.created, id: last.id}, func(r indexed) bool {
			at := position{r.created, r.id}
			if at == last {
				return true
			}
			if q.CreatedAfter.After(time.Unix(0, r.created)) {
				return false
			}
			if len(ids) == limit || seen == scanChunk {
				more = true
				return false
			}
			seen++
			last = at
			if match(r) {
				ids = append(ids, r.id.String())
			}
			return true
		})
		x.mu.RUnlock()
		if !more || len(ids) == limit {
			return ids, last, more
		}
	}
}

// matcher turns the filters of q into a test, for those who hold the lock.
func (x *index) matcher(q contracts.ListRequest) func(indexed) bool {
	statuses := make([]text, len(q.Status))
	for i, s := range q.Status {
		statuses[i] = unique.Make(string(s))
	}
	agent, tags := unique.Make(q.AgentKey), x.tags(q.ConversationID, q.Metadata)
	return func(r indexed) bool {
		of := x.kinds[r.kind]
		if len(statuses) > 0 && !slices.Contains(statuses, of.status) || q.AgentKey != "" && of.agent != agent || r.tags&tags != tags {
			return false
		}
		return tags == 0 || says(x.details[r.id], q)
	}
}

// says reports whether a run's details are those that q asks for.
func says(encoded string, q contracts.ListRequest) bool {
	d := decodeDetails(encoded)
	for k, v := range q.Metadata {
		if have, ok := d.Metadata[k]; !ok || have != v {
			return false
		}
	}
	return q.ConversationID == "" || q.ConversationID == d.Conversation
}

// decodeDetails decodes what the index has encoded, which may be nothing.
func decodeDetails(encoded string) (d details) {
	_ = json.Unmarshal([]byte(encoded), &d)
	return d
}

// A cursor is the position of the last run that a page looked at, so that runs
// which come or go meanwhile shift nothing. To callers it is opaque.
//
// Form: base64url of version 1, creation time (8 bytes, big endian, UnixNano), run id (16).
const (
	cursorVersion = 1
	cursorLength  = 1 + 8 + 16
)

func (p position) cursor() string {
	b := binary.BigEndian.AppendUint64([]byte{cursorVersion}, uint64(p.created))
	return base64.RawURLEncoding.EncodeToString(append(b, p.id[:]...))
}

// parseCursor is the inverse of cursor.
func parseCursor(s string) (position, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != cursorLength || b[0] != cursorVersion {
		return position{}, errors.New("must be the cursor of the page before, unchanged, or be left out for the first page")
	}
	return position{int64(binary.BigEndian.Uint64(b[1:9])), uuid.UUID(b[9:])}, nil
}
