// Package builtin holds the agents that come with the worker: echo, count and
// flaky, small enough to be read as examples and exact enough to test the
// engine with, and exec, which runs any program as an agent.
//
// What they do is fixed by their own code and by the worker's configuration.
// Nothing in a submission names a program, a path or a host.
package builtin

import "longhaul/pkg/agent"

// All returns the agents that need no configuration: Echo, Count and Flaky.
func All() []agent.Agent { return []agent.Agent{Echo(), Count(), Flaky()} }

// Named returns the agent of All with the given key.
func Named(key string) (agent.Agent, bool) {
	for _, a := range All() {
		if a.Key == key {
			return a, true
		}
	}
	return agent.Agent{}, false
}
