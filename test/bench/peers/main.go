// Command peers measures the same job of 512 bytes on other job queues and on
// Longhaul, in one run on one machine, in rounds that alternate:
// `make bench-peers`.
//
// It starts what it needs (a redis-server, a PostgreSQL, and for Longhaul the
// bench of the directory above) and says what is missing. It is a module of
// its own, so that Longhaul does not depend on what it is compared with.
//
// In each case the client, the worker and the server are processes of their
// own; the client submits while the worker executes. No server syncs each
// write to the disk, as NATS does not by default; what that means for each is
// in docs/benchmarks.md.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	run := measureAll
	if len(os.Args) == 3 && os.Args[1] == beWorker {
		run = serveWorker
	}
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// jobBytes is the size of a job.
const jobBytes = 512

// sample is what one round has shown. CPU is in microseconds a job.
type sample struct {
	PerSecond float64 `json:"per_second"`
	CPU       float64 `json:"cpu_us"`
	Server    float64 `json:"cpu_server_us"`
}

// line is a contestant's.
type line struct {
	Name    string   `json:"name"`
	Jobs    int      `json:"jobs"`
	Samples []sample `json:"samples"`
	Median  sample   `json:"median"`
	// OursToIt is the median of Longhaul's rate by its own in the same round.
	OursToIt float64 `json:"ours_to_it"`
	Missing  string  `json:"missing,omitempty"` // why there is nothing
}

type report struct {
	Time   time.Time `json:"time"`
	Go     string    `json:"go"`
	CPUs   int       `json:"cpus"`
	Rounds int       `json:"rounds"`
	Lines  []*line   `json:"lines"`
}

func measureAll(ctx context.Context) error {
	var ours oursConfig
	flag.StringVar(&ours.bench, "bench", "bin/bench", "the bench's binary (go build -o bin/bench ./test/bench)")
	flag.StringVar(&ours.longhaul, "longhaul", "bin/longhaul", "the binary whose services are measured")
	rounds := flag.Int("rounds", 3, "rounds of each")
	jobs := flag.Int("jobs", 20_000, "jobs in each round; what is slow takes a part of it")
	file := flag.String("json", "", "write everything into this file")
	flag.Parse()
	contestants := append(ours.contestants(), peers()...)
	r := &report{Time: time.Now().UTC(), Go: runtime.Version(), CPUs: runtime.NumCPU(), Rounds: *rounds}
	for _, c := range contestants {
		r.Lines = append(r.Lines, &line{Name: c.name, Jobs: max(int(float64(*jobs)*c.part), 10)})
	}
	for round := range *rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, *rounds)
		for i, c := range contestants {
			l := r.Lines[i]
			if l.Missing != "" {
				continue
			}
			got, err := c.measure(ctx, l.Jobs)
			var missing *missingError
			switch {
			case errors.As(err, &missing):
				l.Missing = missing.Error()
				fmt.Fprintf(os.Stderr, "  %-40s %s\n", c.name, l.Missing)
				continue
			case err != nil:
				return fmt.Errorf("%s: %w", c.name, err)
			}
			l.Samples = append(l.Samples, got)
			fmt.Fprintf(os.Stderr, "  %-40s %9.0f/s  %6.0f us of CPU a job\n", c.name, got.PerSecond, got.CPU)
		}
	}
	r.compare()
	r.print(os.Stdout)
	if *file == "" {
		return nil
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(*file, append(data, '\n'), 0o644)
}

// compare takes the medians, and holds every line against ours, the first.
func (r *report) compare() {
	ours := r.Lines[0].Samples
	for _, l := range r.Lines {
		if len(l.Samples) == 0 {
			continue
		}
		l.Median = sample{
			PerSecond: median(l.Samples, func(s sample) float64 { return s.PerSecond }),
			CPU:       median(l.Samples, func(s sample) float64 { return s.CPU }),
			Server:    median(l.Samples, func(s sample) float64 { return s.Server }),
		}
		var pairs []sample
		for i := range min(len(ours), len(l.Samples)) {
			pairs = append(pairs, sample{PerSecond: ours[i].PerSecond / l.Samples[i].PerSecond})
		}
		l.OursToIt = median(pairs, func(s sample) float64 { return s.PerSecond })
	}
}

func median(all []sample, figure func(sample) float64) float64 {
	sorted := slices.SortedFunc(slices.Values(all), func(a, b sample) int { return cmp.Compare(figure(a), figure(b)) })
	n := len(sorted)
	return (figure(sorted[(n-1)/2]) + figure(sorted[n/2])) / 2
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "\nmedians of %d interleaved rounds, jobs of %d B, %d CPUs, %s; CPU in microseconds a job: client, worker and server, and the server alone\n\n", r.Rounds, jobBytes, r.CPUs, r.Go)
	fmt.Fprintf(w, "  %-40s %10s %9s %7s %7s\n", "", "per second", "longhaul", "CPU", "server")
	for _, l := range r.Lines {
		if l.Missing != "" {
			fmt.Fprintf(w, "  %-40s %s\n", l.Name, l.Missing)
			continue
		}
		fmt.Fprintf(w, "  %-40s %10.0f %8.2fx %7.0f %7.0f\n", l.Name, l.Median.PerSecond, l.OursToIt, l.Median.CPU, l.Median.Server)
	}
}
