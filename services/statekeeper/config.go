package statekeeper

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// Config is everything an operator may choose. The zero value works.
type Config struct {
	// Topology is what Run creates on the broker where it is missing.
	Topology jsutil.TopologyOptions
	// Version is what the NATS micro service reports, in the form of semver.org.
	// Default 0.1.0.
	Version string
	// Retention is how long a run is kept after its end. Default 7 days.
	Retention time.Duration
	// RetentionFor is that of runs that ended with some status, where it differs.
	RetentionFor map[contracts.Status]time.Duration
	// CheckpointHistory is how many checkpoints of a run are kept, the newest.
	// Default 50.
	CheckpointHistory int
	// Metrics is where the instance's metrics are registered; nil for nowhere. It
	// holds one instance.
	Metrics prometheus.Registerer
	// Logger takes the log lines. Default slog.Default.
	Logger *slog.Logger
}

// defaultHistory is enough to look back by, and bounds what a run of many steps
// leaves: 50 MiB at the largest states that a broker takes by default.
const defaultHistory = 50

// version is the form that NATS micro asks for, less the rarer suffixes.
var version = regexp.MustCompile(`^\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?$`)

// withDefaults returns c with every zero value filled in.
func (c Config) withDefaults() Config {
	c.Version = cmp.Or(c.Version, "0.1.0")
	c.Retention = cmp.Or(c.Retention, 7*24*time.Hour)
	c.CheckpointHistory = cmp.Or(c.CheckpointHistory, defaultHistory)
	c.Logger = cmp.Or(c.Logger, slog.Default())
	return c
}

// check reports all faults of a config whose defaults are filled in.
func (c Config) check() error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(c.Topology.Replicas < 0 || c.Topology.Replicas > 5, "topology replicas must be 0 to 5, not %d", c.Topology.Replicas)
	fault(!version.MatchString(c.Version), "version must look like 1.2.3, not %q", c.Version)
	fault(c.Retention < 0, "retention must not be negative, as %s is", c.Retention)
	fault(c.CheckpointHistory < 0, "checkpoint history must be at least 1, not %d", c.CheckpointHistory)
	for _, status := range slices.Sorted(maps.Keys(c.RetentionFor)) {
		d := c.RetentionFor[status]
		fault(!status.Terminal(), "retention for %q: is no status that a run ends with", status)
		fault(status.Terminal() && d <= 0, "retention for %s: must be more than 0, not %s", status, d)
	}
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("statekeeper config: %w", errors.Join(faults...))
}
