package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/test/cluster"
)

// crowding measures how fast fresh runs are executed beside thousands of the
// same agent that wait for their retry. Two systems stand side by side, which
// differ in nothing but that: in the other one those runs have failed for good.
// Rounds alternate between them, so that what else happens on the machine
// meets both.
func crowding(ctx context.Context, s *stage, o options, res *result) error {
	parked, fresh, rounds, bound := 10_000, 5_000, 7, 0.9
	if o.short {
		parked, fresh, rounds, bound = 1500, 500, 3, 0.4 // above the 1,000 that a consumer takes by default
	}
	other, err := newStage(ctx, s.binary, s.level, 1)
	defer func() {
		other.stop()
		res.Faults = append(res.Faults, other.seen.faultList()...)
		other.remove()
	}()
	if err != nil {
		return err
	}
	for _, st := range []*stage{s, other} {
		// 300 to the power of the attempt: the first retry waits as long as any may.
		if _, err := st.startWorkers(ctx, []string{"flaky"}, "--agent", "flaky", "--concurrency", "64", "--retry-backoff-base", "300"); err != nil {
			return err
		}
	}
	before, err := compare(ctx, s, other, fresh, (rounds+1)/2)
	if err != nil {
		return err
	}
	begun := time.Now()
	ids, err := s.park(ctx, parked, 3, contracts.TypeRetrying)
	if err != nil {
		return err
	}
	if _, err := other.park(ctx, parked, 1, contracts.TypeFailed); err != nil {
		return err
	}
	during, err := compare(ctx, s, other, fresh, rounds)
	if err != nil {
		return err
	}
	still := s.seen.having(ids, func(h contracts.Head) bool {
		return h.Status == contracts.StatusPending && h.Epoch == 1 && h.NotBefore.After(time.Now())
	})
	res.exactly("runs in backoff, to the end", still, parked)
	res.shown("fresh runs per second, none in backoff", median(during.other))
	res.shown("fresh runs per second beside those in backoff", median(during.crowded))
	res.shown("ratio of the same two systems before any was in backoff", median(before.ratios))
	res.atLeast("ratio, median of the rounds", median(during.ratios), bound)
	res.note("runs per second, round by round: %.0f with, %.0f without; measured within %.0f s of the first failure",
		during.crowded, during.other, time.Since(begun).Seconds())
	return nil
}

// park submits runs that fail at once, and waits for an event of each.
func (s *stage) park(ctx context.Context, n, maxAttempts int, until contracts.EventType) ([]string, error) {
	kind := runOf("flaky", `{"fail_times": 1}`)
	kind.MaxAttempts = maxAttempts
	ids, err := s.submitAll(ctx, n, kind)
	if err != nil {
		return nil, err
	}
	return ids, cluster.WaitFor(ctx, 2*time.Minute, fmt.Sprintf("%d events %s", n, until), func() bool { return s.seen.count(until) >= n })
}

// comparison is what came of some rounds: runs per second, and their ratios.
type comparison struct{ crowded, other, ratios []float64 }

func compare(ctx context.Context, crowded, other *stage, runs, rounds int) (comparison, error) {
	var c comparison
	for i := range rounds {
		order := []*stage{crowded, other}
		if i%2 == 1 {
			slices.Reverse(order) // neither is always the first
		}
		rate := map[*stage]float64{}
		for _, st := range order {
			r, err := st.rate(ctx, runs)
			if err != nil {
				return c, err
			}
			rate[st] = r
		}
		c.crowded, c.other = append(c.crowded, rate[crowded]), append(c.other, rate[other])
		c.ratios = append(c.ratios, rate[crowded]/rate[other])
	}
	return c, nil
}

// rate is how many runs per second go through, from submit to the end.
func (s *stage) rate(ctx context.Context, runs int) (float64, error) {
	want := s.seen.count(contracts.TypeSucceeded) + runs
	begun := time.Now()
	if _, err := s.submitAll(ctx, runs, runOf("flaky", `{"fail_times": 0}`)); err != nil {
		return 0, err
	}
	err := cluster.WaitFor(ctx, 2*time.Minute, fmt.Sprintf("%d fresh runs to succeed", runs), func() bool {
		return s.seen.count(contracts.TypeSucceeded) >= want
	})
	return float64(runs) / time.Since(begun).Seconds(), err
}

func median(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	if len(all) == 0 {
		return 0
	}
	return all[len(all)/2]
}
