package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"longhaul/internal/bench"
)

// measurement is one figure that is measured in rounds.
type measurement struct {
	name string
	// of is the measurement that it is held against, empty for none.
	of string
	// part of the whole that it costs to measure one: how many runs of a round
	// it takes, 1 for all.
	part float64
	do   func(ctx context.Context, s *stage, n int) (sample, error)
}

// group is a set of measurements whose rounds alternate on one stage.
type group struct {
	name  string
	stage stageConfig
	all   []measurement
}

// The names that others refer to.
const (
	ideal64 = "ideal run, 64 at a time"
	ideal16 = "ideal run, 16 at a time"
	ours64  = "longhaul, 64 slots"
)

func ideal(concurrency, payload int) func(context.Context, *stage, int) (sample, error) {
	return func(ctx context.Context, s *stage, n int) (sample, error) {
		return s.idealRuns(ctx, n, concurrency, payload)
	}
}

func ours(workers, slots int, job bench.Job, payload int) func(context.Context, *stage, int) (sample, error) {
	return func(ctx context.Context, s *stage, n int) (sample, error) {
		return s.hosted(ctx, workers, slots, n, job, payload)
	}
}

// endToEnd is the pair that counts most.
func endToEnd(part float64) []measurement {
	return []measurement{
		{ideal64, "", part, ideal(64, smallJob)},
		{ours64, ideal64, part, ours(1, 64, bench.Job{}, smallJob)},
	}
}

func publish(part float64) measurement {
	return measurement{"publish", ideal64, part, func(ctx context.Context, s *stage, n int) (sample, error) { return s.publishFloor(ctx, n) }}
}

func consume(part float64) measurement {
	return measurement{"consume and ack", ideal64, part, func(ctx context.Context, s *stage, n int) (sample, error) { return s.consumeFloor(ctx, n) }}
}

// dear is the floor and ours where a write costs much.
func dear(part float64) []measurement {
	return append([]measurement{publish(part), consume(part), {ideal16, ideal64, part, ideal(16, smallJob)}}, endToEnd(part)...)
}

// groups are all that is measured in rounds, in the order in which it is.
func groups() []group {
	plain := stageConfig{name: "one replica", replicas: 1}
	synced := stageConfig{name: "one replica, every write synced", sync: true, replicas: 1}
	three := stageConfig{name: "three replicas", replicas: 3}
	safest := stageConfig{name: "three replicas, every write synced", sync: true, replicas: 3}
	return []group{
		{"end-to-end", plain, endToEnd(1)},
		{"floor", plain, []measurement{
			publish(2), consume(2),
			{ideal16, ideal64, 1, ideal(16, smallJob)},
			{ideal64, "", 1, ideal(64, smallJob)},
			{"the same, each state confirmed before the next", ideal64, 1, func(ctx context.Context, s *stage, n int) (sample, error) {
				return s.execute(ctx, order{Do: "execute", N: n, Concurrency: 64, Payload: smallJob, InTurn: true})
			}},
			{"longhaul, 16 slots", ideal16, 1, ours(1, 16, bench.Job{}, smallJob)},
		}},
		{"parts", plain, []measurement{
			{ideal64, "", 1, ideal(64, smallJob)},
			{"submit only", ideal64, 1, func(ctx context.Context, s *stage, n int) (sample, error) { return s.submitOnly(ctx, n) }},
			{"execute only, of a backlog", ideal64, 1, func(ctx context.Context, s *stage, n int) (sample, error) { return s.executeOnly(ctx, n, 64) }},
		}},
		{"bare", plain, bares()},
		{"workers", plain, []measurement{
			{"1 worker process of 64 slots", "", 0.5, ours(1, 64, bench.Job{}, smallJob)},
			{"2 worker processes of 64 slots", "1 worker process of 64 slots", 0.5, ours(2, 64, bench.Job{}, smallJob)},
			{"4 worker processes of 64 slots", "1 worker process of 64 slots", 0.5, ours(4, 64, bench.Job{}, smallJob)},
		}},
		{"payloads", plain, payloads()},
		{"events", plain, []measurement{
			{"no event", "", 0.25, ours(1, 64, bench.Job{}, smallJob)},
			{"10 events", "no event", 0.1, ours(1, 64, bench.Job{Events: 10}, smallJob)},
			{"1,000 events", "no event", 0.004, ours(1, 64, bench.Job{Events: 1000}, smallJob)},
			{"10 checkpoints of 1 KB", "no event", 0.05, ours(1, 64, bench.Job{Checkpoints: 10}, smallJob)},
		}},
		{"latency", plain, []measurement{
			{"plain queue, at rest", "", 0.05, func(ctx context.Context, s *stage, n int) (sample, error) { return s.rawAtRest(ctx, n) }},
			{"bare path, at rest", "", 0.05, func(ctx context.Context, s *stage, n int) (sample, error) { return s.bareAtRest(ctx, n, false) }},
			{"bare path, dispatcher asked, at rest", "", 0.05, func(ctx context.Context, s *stage, n int) (sample, error) { return s.bareAtRest(ctx, n, true) }},
			{"at rest", "", 0.05, func(ctx context.Context, s *stage, n int) (sample, error) { return s.atRest(ctx, n) }},
			{"at half load", "", 0.25, func(ctx context.Context, s *stage, n int) (sample, error) { return s.halfLoad(ctx, n) }},
		}},
		{"synced", synced, dear(0.1)},
		{"replicas", three, dear(0.2)},
		{"synced-replicas", safest, dear(0.05)},
	}
}

// bares is the bare path as ours has it, ours beside it, and what other
// designs would make of it.
func bares() []measurement {
	const as = "bare path, as ours"
	bare := func(kind bareKind) func(context.Context, *stage, int) (sample, error) {
		return func(ctx context.Context, s *stage, n int) (sample, error) { return s.bareRun(ctx, n, kind) }
	}
	return []measurement{
		{ideal64, as, 0.5, ideal(64, smallJob)},
		{as, "", 0.5, bare(bareAsOurs)},
		{ours64, as, 0.5, ours(1, 64, bench.Job{}, smallJob)},
		{"bare path, one status a run", as, 0.5, bare(bareKind{Republish: true, Statuses: 1})},
		{"bare path, no projection", as, 0.5, bare(bareKind{Republish: true})},
		{"bare path, nothing republished", as, 0.5, bare(bareKind{Statuses: 2})},
		{"bare path, dispatcher asked", as, 0.5, bare(bareKind{Asked: true, Republish: true, Statuses: 2})},
		{"bare path, clients queue by themselves", as, 0.5, bare(bareKind{Direct: true, Republish: true, Statuses: 2})},
		{"bare path, work taken from the log", as, 0.5, bare(bareKind{Shared: true, Republish: true, Statuses: 2})},
		{"bare path, that, one status, dispatcher asked", as, 0.5, bare(bareKind{Shared: true, Asked: true, Republish: true, Statuses: 1})},
		{"bare path, all of these but that", as, 0.5, bare(bareKind{Direct: true})},
		{"bare path, all of these", as, 0.5, bare(bareKind{Shared: true, Direct: true})},
	}
}

// payloads pairs ours with an ideal run whose job is as large.
func payloads() []measurement {
	var all []measurement
	for _, p := range []struct {
		name string
		size int
		part float64
	}{{"512 B", smallJob, 0.25}, {"16 KB", 16_000, 0.1}, {"256 KB", 256_000, 0.01}} {
		all = append(all,
			measurement{"ideal run of " + p.name, "", p.part, ideal(64, p.size)},
			measurement{"longhaul, " + p.name, "ideal run of " + p.name, p.part, ours(1, 64, bench.Job{}, p.size)})
	}
	return all
}

// chosen are the groups that are named, separated by commas; all if none is.
func chosen(only string) ([]group, error) {
	all := groups()
	if only == "" {
		return all, nil
	}
	var some []group
	for _, name := range strings.Split(only, ",") {
		i := slices.IndexFunc(all, func(g group) bool { return g.name == name })
		if i < 0 {
			var names []string
			for _, g := range all {
				names = append(names, g.name)
			}
			return nil, fmt.Errorf("--only: there is no %q; there are %s", name, strings.Join(names, ", "))
		}
		some = append(some, all[i])
	}
	return some, nil
}
