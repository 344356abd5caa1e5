// Package bench is what `make bench` and `longhaul bench` have in common: the
// floor, which is the work on JetStream that no engine can do without, a load
// of runs for the bench's own agent, latencies and medians.
//
// It measures; it starts no broker and no service.
package bench
