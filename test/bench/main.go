// Command bench measures Longhaul against the JetStream operations that it
// cannot do without, on this machine, in one run: `make bench`.
//
// The broker (file storage), dispatcher, statekeeper and worker are processes
// of their own, as a user runs them; this program is the client. Rounds of the
// floor and of ours alternate, and what is reported are medians and their
// ratios: machines differ and are noisy, ratios within one run hold better.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"

	"longhaul/test/cluster"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	binary  string
	rounds  int
	runs    int
	latency int
	json    bool
}

func run() error {
	if is, err := cluster.ServeBroker(); is {
		return err
	}
	var o options
	flag.StringVar(&o.binary, "longhaul", "bin/longhaul", "the binary to measure")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of each measurement")
	flag.IntVar(&o.runs, "runs", 10_000, "runs, or messages, of each round")
	flag.IntVar(&o.latency, "latency", 300, "runs, one at a time, for the latencies")
	flag.BoolVar(&o.json, "json", false, "print JSON in place of the table")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	report, err := measure(ctx, o)
	if err != nil {
		return err
	}
	if o.json {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(report)
	}
	report.print(os.Stdout)
	return nil
}

// measure takes the rounds.
func measure(ctx context.Context, o options) (*report, error) {
	s, err := startSetup(ctx, o.binary)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	rates := map[string][]float64{}
	var lat latencies
	for round := range o.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, o.rounds)
		for _, m := range []struct {
			name string
			do   func(context.Context, int) (float64, error)
		}{
			{publishFloor, s.publish},
			{consumeFloor, s.consume},
			{ideal16, func(ctx context.Context, n int) (float64, error) { return s.idealRun(ctx, n, 16) }},
			{ideal64, func(ctx context.Context, n int) (float64, error) { return s.idealRun(ctx, n, 64) }},
			{oursEndToEnd, s.endToEnd},
		} {
			rate, err := m.do(ctx, o.runs)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", m.name, err)
			}
			rates[m.name] = append(rates[m.name], rate)
			fmt.Fprintf(os.Stderr, "  %-28s %9.0f/s\n", m.name, rate)
		}
		if err := s.oneByOne(ctx, o.latency/o.rounds, &lat); err != nil {
			return nil, fmt.Errorf("latency: %w", err)
		}
	}
	r := &report{Time: time.Now().UTC(), Go: runtime.Version(), CPUs: runtime.NumCPU(), Rounds: o.rounds, Runs: o.runs, PerSecond: map[string]float64{}}
	for name, all := range rates {
		slices.Sort(all)
		r.PerSecond[name] = all[len(all)/2]
	}
	r.RatioToIdeal64 = r.PerSecond[oursEndToEnd] / r.PerSecond[ideal64]
	r.SubmitToStart, r.SubmitToFinish = quantiles(lat.start), quantiles(lat.finish)
	return r, nil
}
