package statekeeper

import (
	"sync"

	"longhaul/pkg/metrics"
)

// Stats are counts of what an instance has done since its start.
type Stats = metrics.StatekeeperStats

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
