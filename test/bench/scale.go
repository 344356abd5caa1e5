package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"longhaul/internal/bench"
	"longhaul/test/cluster"
)

// figure is what one look at a large system has shown.
type figure struct {
	Part  string  `json:"part"`
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

// trial is a system that is made large, and what is measured of it.
type trial struct {
	name string
	do   func(ctx context.Context, s *stage, o options, note noteFunc) error
}

type noteFunc func(name string, value float64, unit string)

func trials() []trial {
	return []trial{{"depth", depth}, {"retained", retained}, {"executing", executing}}
}

// scaled is a part of n, as it is told on the command line.
func (o options) scaled(n int) int { return max(int(float64(n)*o.scale), 100) }

// takeScale makes the trials, each on a stage of its own.
func (r *report) takeScale(ctx context.Context, o options) error {
	for _, t := range trials() {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), t.name) {
			continue
		}
		if err := r.takeTrial(ctx, o, t); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return nil
}

func (r *report) takeTrial(ctx context.Context, o options, t trial) (err error) {
	fmt.Fprintf(os.Stderr, "%s, at %g of the full size\n", t.name, o.scale)
	s, err := startStage(ctx, o.binary, stageConfig{name: "one replica", replicas: 1, fixedPort: true})
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return s.logs(err)
	}
	if err := s.host(ctx, 1, 64); err != nil {
		return err
	}
	if err := s.registered(ctx); err != nil {
		return err
	}
	begun := time.Now()
	return t.do(ctx, s, o, func(name string, value float64, unit string) {
		r.Figures = append(r.Figures, figure{t.name, name, value, unit})
		fmt.Fprintf(os.Stderr, "  %6.0f s  %-64s %12.4g %s\n", time.Since(begun).Seconds(), name, value, unit)
	})
}

func (r *report) printFigures(w io.Writer) {
	part := ""
	for _, f := range r.Figures {
		if f.Part != part {
			part = f.Part
			fmt.Fprintf(w, "\n%s\n", part)
		}
		fmt.Fprintf(w, "  %-64s %12.4g %s\n", f.Name, f.Value, f.Unit)
	}
}

// ratio measures do, and the ideal run before each of its rounds, and notes
// both and their ratio.
func (s *stage) ratio(ctx context.Context, o options, note noteFunc, name string, n int, do func() (sample, error)) error {
	var rates, ratios, times, costs []float64
	for range o.rounds {
		least, err := s.idealRuns(ctx, n, 64, smallJob)
		if err != nil {
			return err
		}
		got, err := do()
		if err != nil {
			return err
		}
		rates, ratios = append(rates, got.PerSecond), append(ratios, got.PerSecond/least.PerSecond)
		times, costs = append(times, got.cpu()), append(costs, got.cpu()/least.cpu())
	}
	note(name, bench.Median(rates), "runs/s")
	note(name+", of the ideal run", bench.Median(ratios), "")
	note(name+", processor time of a run", bench.Median(times), "µs")
	note(name+", times that of the ideal run", bench.Median(costs), "")
	return nil
}

// depth has runs executed out of a short queue and out of a long one.
func depth(ctx context.Context, s *stage, o options, note noteFunc) error {
	n := o.scaled(20_000)
	empty, err := cluster.ResidentBytes(s.brokers[0].PID())
	if err != nil {
		return err
	}
	waiting := 0
	for _, level := range []int{o.scaled(10_000), o.scaled(500_000)} {
		if err := s.host(ctx, 0, 0); err != nil {
			return err
		}
		begun := time.Now()
		if err := s.seed(ctx, level+o.rounds*n-waiting, false); err != nil {
			return err
		}
		// Statekeeper folds all that came at once, and shares the machine with us.
		if err := s.load.Quiet(ctx); err != nil {
			return err
		}
		note(thousands(float64(level))+" wait: written and projected after", time.Since(begun).Seconds(), "s")
		resident, err := cluster.ResidentBytes(s.brokers[0].PID())
		if err != nil {
			return err
		}
		note(thousands(float64(level))+" wait: broker's memory for each", (resident-empty)/float64(level+o.rounds*n), "B")
		err = s.ratio(ctx, o, note, thousands(float64(level))+" wait: execute", n, func() (sample, error) { return s.executeSome(ctx, n) })
		if err != nil {
			return err
		}
		waiting = level
	}
	return nil
}

// executeSome has n runs of those that wait executed, and some more that are
// under way then.
func (s *stage) executeSome(ctx context.Context, n int) (sample, error) {
	before, err := s.load.Count(ctx)
	if err != nil {
		return sample{}, err
	}
	got, err := s.metered(ctx, n, func() error {
		if err := s.host(ctx, 1, 64); err != nil {
			return err
		}
		return s.load.Succeeded(ctx, before, n)
	})
	if err != nil {
		return got, s.logs(err)
	}
	return got, s.host(ctx, 0, 0)
}
