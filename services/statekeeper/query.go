package statekeeper

import (
	"math"
	"time"

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
func newest() position {
	p := position{created: math.MaxInt64}
	for i := range p.id {
		p.id[i] = 0xff
	}
	return p
}

// scanChunk is how many runs are looked at under one hold of the lock, so that
// a search for something rare among millions does not hold up the feed.
const scanChunk = 20_000

// find lists up to limit runs that match q, newest first, beginning after the
// position from. Creation times are from q.CreatedAfter, inclusive, to
// q.CreatedBefore, exclusive. last is the position of the last one looked at; more says
// that there are runs behind it.
func (x *index) find(q contracts.ListRequest, from position, limit int) (ids []uuid.UUID, last position, more bool) {
	if before := q.CreatedBefore; !before.IsZero() && before.UnixNano() < from.created {
		from = position{created: before.UnixNano()}
	}
	last = from
	for {
		var seen int
		seen, more = 0, false
		x.mu.RLock()
		match, possible := x.compile(q)
		if possible {
			pivot := &indexed{created: last.created, id: last.id}
			x.ordered.Descend(pivot, func(r *indexed) bool {
				if r.created == last.created && r.id == last.id {
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
				last = position{r.created, r.id}
				if match(r) {
					ids = append(ids, r.id)
				}
				return true
			})
		}
		x.mu.RUnlock()
		if !more || len(ids) == limit {
			return ids, last, more
		}
	}
}

// compile turns the filters of q into a test; possible is false if one asks
// for a string that no run has. The index's lock must be held while the test is used.
func (x *index) compile(q contracts.ListRequest) (match func(*indexed) bool, possible bool) {
	var wanted [statusCount]bool
	for _, s := range q.Status {
		if code, ok := codeOf(s); ok {
			wanted[code] = true
		}
	}
	possible = true
	look := func(text string) *symbol {
		if text == "" {
			return nil
		}
		s, ok := x.symbols.find(text)
		possible = possible && ok
		return s
	}
	agent, conv := look(q.AgentKey), look(q.ConversationID)
	tags := make([]tag, 0, len(q.Metadata))
	for k, v := range q.Metadata {
		tags = append(tags, tag{look(k), look(v)})
	}
	return func(r *indexed) bool {
		return (len(q.Status) == 0 || wanted[r.status]) && (agent == nil || r.agent == agent) &&
			(conv == nil || r.conv == conv) && r.has(tags)
	}, possible
}

// has reports whether the run has all the tags.
func (r *indexed) has(tags []tag) bool {
	for _, t := range tags {
		found := false
		for _, have := range r.meta {
			if have == t {
				found = true
				break
			}
		}
		if !found {
			return false
		}
	}
	return true
}
