package statekeeper

import (
	"sync"

	"longhaul/pkg/metrics"
)

// Stats are counts of what an instance has done since its start; none falls.
// What it does in the place of another one that died is in its own.
type Stats struct { // metrics.StatekeeperStats has the same fields
	// Of the projector.
	Events    int64 `json:"events"`    // folded
	Writes    int64 `json:"writes"`    // records sent to be stored
	Conflicts int64 `json:"conflicts"` // of those, refused because another stood there
	Rebuilt   int64 `json:"rebuilt"`   // records made anew from the log
	Poison    int64 `json:"poison"`    // events that could not be decoded
	// Of the watchdog.
	Takeovers int64 `json:"takeovers"` // leases of dead workers given back
	// Of the sweeper.
	Requeued int64 `json:"requeued"` // runs that a dispatcher was asked to queue again
	Released int64 `json:"released"` // leases given back that nobody had begun to use
	Repaired int64 `json:"repaired"` // records that said something else than the log
	Orphans  int64 `json:"orphans"`  // checkpoints removed that no log names
	Expired  int64 `json:"expired"`  // runs removed
	Trimmed  int64 `json:"trimmed"`  // checkpoints removed that were more than are kept
}

// Stats returns what the instance has done so far. It may be called by any
// goroutine, before Run and after it too.
func (s *Statekeeper) Stats() Stats { return s.api.counters.stats() }

// counters are Stats in the making. Several goroutines may count.
type counters struct {
	meters *metrics.Statekeeper // which reads them, and counts more
	mu     sync.Mutex
	Stats
}

func (c *counters) add(field *int64, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*field += n
}

func (c *counters) stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Stats
}
