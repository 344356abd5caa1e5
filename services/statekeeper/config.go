package statekeeper

import (
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"longhaul/pkg/jsutil"
)

// Config is everything an operator may choose. The zero value works.
type Config struct {
	// Topology is what Run creates on the broker where it is missing.
	Topology jsutil.TopologyOptions
	// Window is how long a change of a run's status may wait for further events
	// of that run, so that a short run costs one write. Default 30 ms. A run's
	// end is written at once.
	Window time.Duration
	// PingInterval is how often a worker that holds runs is asked whether it
	// lives. Default 300 ms.
	PingInterval time.Duration
	// TakeoverGrace is how long a worker must be gone before its leases are given
	// back (DESIGN "takeover_grace"). Three times that if its connection stands
	// but it does not answer. Default 1 s.
	TakeoverGrace time.Duration
	// Version is what the NATS micro service reports, in the form of semver.org.
	// Default 0.1.0.
	Version string
	// Logger takes the log lines. Default slog.Default.
	Logger *slog.Logger
}

// version is the form that NATS micro asks for, less the rarer suffixes.
var version = regexp.MustCompile(`^\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?$`)

// withDefaults returns c with every zero value filled in.
func (c Config) withDefaults() Config {
	if c.Window == 0 {
		c.Window = 30 * time.Millisecond
	}
	if c.PingInterval == 0 {
		c.PingInterval = 300 * time.Millisecond
	}
	if c.TakeoverGrace == 0 {
		c.TakeoverGrace = time.Second
	}
	if c.Version == "" {
		c.Version = "0.1.0"
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// check reports all faults of a config whose defaults are filled in.
func (c Config) check() error {
	var faults []error
	fault := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(c.Topology.Replicas >= 0 && c.Topology.Replicas <= 5, "topology replicas must be 0 to 5, not %d", c.Topology.Replicas)
	fault(c.Window > 0 && c.Window <= time.Second, "window must be above 0 and at most 1s, not %s", c.Window)
	fault(c.PingInterval >= 10*time.Millisecond, "ping interval must be at least 10ms, not %s", c.PingInterval)
	fault(c.TakeoverGrace >= c.PingInterval, "takeover grace must be at least the ping interval (%s), not %s", c.PingInterval, c.TakeoverGrace)
	fault(version.MatchString(c.Version), "version must look like 1.2.3, not %q", c.Version)
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("statekeeper config: %w", errors.Join(faults...))
}
