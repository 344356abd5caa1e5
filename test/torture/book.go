package main

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"sync"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
)

// book is what the harness knows of the runs while it goes on, to have
// something to aim at. It judges nothing: that is the checker's, by the dump.
type book struct {
	mu   sync.Mutex
	runs map[string]*entry
	ids  []string // in the order of their first event
	live int
}

// entry is one run.
type entry struct {
	head  contracts.Head
	token string // of its newest lease
}

func newBook() *book { return &book{runs: map[string]*entry{}} }

// follow writes down every event until ctx ends.
func (b *book) follow(ctx context.Context, c *client.Client) {
	for e, err := range c.FollowAll(ctx, "") {
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			continue // an event that is none: the checker will see it
		}
		b.add(e.Event)
	}
}

func (b *book) add(e contracts.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.runs[e.RunID]
	if r == nil {
		r = &entry{}
		b.runs[e.RunID] = r
		b.ids = append(b.ids, e.RunID)
	}
	was := r.head.Seq > 0 && !r.head.Status.Terminal()
	r.head = e.Head()
	is := !r.head.Status.Terminal()
	if is && !was {
		b.live++
	} else if was && !is {
		b.live--
	}
	if e.Type == contracts.TypeStarted {
		var p contracts.Started
		if json.Unmarshal(e.Payload, &p) == nil {
			r.token = p.LeaseToken
		}
	}
}

// living is how many runs have not ended.
func (b *book) living() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.live
}

// counts says how many runs are known and how many of them live.
func (b *book) counts() (all, live int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.ids), b.live
}

// head is where a run was last seen.
func (b *book) head(id string) contracts.Head {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.runs[id]; r != nil {
		return r.head
	}
	return contracts.Head{}
}

// any returns one of the newest runs that suit, by chance; false if none does.
func (b *book) any(rng *rand.Rand, ok func(contracts.Head) bool) (contracts.Head, string, bool) {
	const newest = 400 // looked at: more would cost as much as the runs themselves
	b.mu.Lock()
	defer b.mu.Unlock()
	var fit []*entry
	for _, id := range b.ids[max(0, len(b.ids)-newest):] {
		if r := b.runs[id]; ok(r.head) {
			fit = append(fit, r)
		}
	}
	if len(fit) == 0 {
		return contracts.Head{}, "", false
	}
	r := fit[rng.IntN(len(fit))]
	return r.head, r.token, true
}

// leases are those of a worker, by run.
func (b *book) leases(worker string) map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := map[string]string{}
	for id, r := range b.runs {
		if r.head.Status.Held() && r.head.WorkerID == worker {
			all[id] = r.token
		}
	}
	return all
}

// alive suits a run that has not ended.
func alive(h contracts.Head) bool { return !h.Status.Terminal() }

// anyRun suits every run.
func anyRun(contracts.Head) bool { return true }

// begun suits a run that a worker has ever begun.
func begun(h contracts.Head) bool { return h.Epoch > 0 }

// heldRun suits a run that a worker holds.
func heldRun(h contracts.Head) bool { return h.Status.Held() }
