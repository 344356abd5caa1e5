package agent

import (
	"math"
	"sync"

	"longhaul/pkg/contracts"
)

// Usage is what a run spends: tokens and money.
type Usage = contracts.Usage

// spending adds up what a run spends.
type spending struct {
	mu    sync.Mutex
	total Usage
}

// maxUsage bounds what is added at once, so that no sum overflows.
const maxUsage = 1 << 50

// AddUsage adds to what the run has spent, over all of its attempts. The sum
// is in the status record, in `usage` of run.succeeded unless the agent's
// Result has its own, and in every event that is written from now on. With the
// next of those it is safe; a crash before loses it. What is added within a
// step comes with the step's own event at the latest: it is counted once if the
// step is executed once, and never left out. A step that is executed again, for
// its result was lost behind an event of its own, has spent it again.
// Nonsense (a cost below 0, or one that is no number) is logged and not added.
func (r *Run) AddUsage(u Usage) {
	if !(u.Cost >= 0) || u.Cost > maxUsage || max(u.InputTokens, u.OutputTokens) > maxUsage || math.IsInf(u.Cost, 0) {
		r.log().Error("usage is out of bounds, not added", "input_tokens", u.InputTokens, "output_tokens", u.OutputTokens, "cost", u.Cost)
		return
	}
	r.spent.mu.Lock()
	defer r.spent.mu.Unlock()
	r.spent.total = r.spent.total.Add(u)
}

// Usage returns what the run has spent so far, earlier attempts included.
func (r *Run) Usage() Usage {
	r.spent.mu.Lock()
	defer r.spent.mu.Unlock()
	return r.spent.total
}
