package main

import (
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"longhaul/internal/bench"
)

// report is the outcome.
type report struct {
	Time   time.Time `json:"time"`
	Go     string    `json:"go"`
	CPUs   int       `json:"cpus"`
	Rounds int       `json:"rounds"`
	Lines  []*line   `json:"lines,omitempty"`
	// Figures are of large systems.
	Figures []figure `json:"figures,omitempty"`
}

// line is a measurement's.
type line struct {
	Group   string   `json:"group"`
	Stage   string   `json:"stage"`
	Name    string   `json:"name"`
	Of      string   `json:"of,omitempty"`
	N       int      `json:"n"`
	Samples []sample `json:"samples"`
	// Median is that of each figure on its own; Ratio is the median of the
	// ratios to Of in the same round.
	Median sample  `json:"median"`
	Ratio  float64 `json:"ratio,omitempty"`
	// Latencies are of all rounds together.
	Latencies map[string]bench.Quantiles `json:"latencies,omitempty"`

	recorded latencies
}

func newReport(o options) *report {
	return &report{Time: time.Now().UTC(), Go: runtime.Version(), CPUs: runtime.NumCPU(), Rounds: o.rounds}
}

// find is the line of a measurement, nil if there is none yet.
func (r *report) find(group, name string) *line {
	for _, l := range r.Lines {
		if l.Group == group && l.Name == name {
			return l
		}
	}
	return nil
}

// add adds a round's sample. What it is held against need not have had its turn.
func (r *report) add(g group, m measurement, n int, got sample) error {
	l := r.find(g.name, m.name)
	if l == nil {
		l = &line{Group: g.name, Stage: g.stage.name, Name: m.name, Of: m.of, N: n, Latencies: map[string]bench.Quantiles{}, recorded: latencies{}}
		r.Lines = append(r.Lines, l)
	}
	if err := l.recorded.add(got.latencies); err != nil {
		return err
	}
	for what, h := range l.recorded {
		if q := h.Quantiles(); q.Count > 0 {
			l.Latencies[what] = q
		}
	}
	l.Samples = append(l.Samples, got)
	l.Median = medianOf(l.Samples)
	for _, l := range r.Lines {
		if of := r.find(l.Group, l.Of); of != nil {
			var ratios []float64
			for i := range min(len(l.Samples), len(of.Samples)) {
				ratios = append(ratios, l.Samples[i].PerSecond/of.Samples[i].PerSecond)
			}
			l.Ratio = bench.Median(ratios)
		}
	}
	return nil
}

// medianOf takes the median of each figure.
func medianOf(all []sample) sample {
	one := func(figure func(sample) float64) float64 {
		var values []float64
		for _, s := range all {
			values = append(values, figure(s))
		}
		return bench.Median(values)
	}
	m := sample{
		PerSecond:      one(func(s sample) float64 { return s.PerSecond }),
		ProjectedAfter: one(func(s sample) float64 { return s.ProjectedAfter }),
		CPU:            map[string]float64{}, Allocs: map[string]float64{},
	}
	for _, kind := range slices.Sorted(maps.Keys(all[0].CPU)) {
		m.CPU[kind] = one(func(s sample) float64 { return s.CPU[kind] })
	}
	for _, kind := range slices.Sorted(maps.Keys(all[0].Allocs)) {
		m.Allocs[kind] = one(func(s sample) float64 { return s.Allocs[kind] })
	}
	return m
}

// kinds of processes, in the order in which a run meets them.
var kinds = []string{"client", "broker", "dispatcher", "worker", "statekeeper"}

func (r *report) print(w io.Writer) {
	r.printFigures(w)
	if len(r.Lines) == 0 {
		return
	}
	fmt.Fprintf(w, "\nmedians of %d interleaved rounds, %d CPUs, %s; CPU in microseconds a run, by process\n", r.Rounds, r.CPUs, r.Go)
	group := ""
	for _, l := range r.Lines {
		if l.Group != group {
			group = l.Group
			fmt.Fprintf(w, "\n%s (%s)\n", group, l.Stage)
			if len(l.Latencies) == 0 {
				printHead(w)
			}
		}
		r.printLine(w, l)
	}
}

func (r *report) printLine(w io.Writer, l *line) {
	for _, what := range slices.Sorted(maps.Keys(l.Latencies)) {
		q := l.Latencies[what]
		fmt.Fprintf(w, "  %-24s %-46s p50 %8.2f ms  p99 %8.2f ms  p99.9 %8.2f ms  (%d)\n", l.Name, what, q.P50, q.P99, q.P999, q.Count)
	}
	if len(l.Latencies) > 0 {
		return
	}
	ratio := "      "
	if l.Ratio > 0 {
		ratio = fmt.Sprintf("%6.2f", l.Ratio)
	}
	var allocs float64
	var by strings.Builder
	for _, k := range kinds {
		allocs += l.Median.Allocs[k]
		fmt.Fprintf(&by, " %11.0f", l.Median.CPU[k])
	}
	fmt.Fprintf(w, "  %-46s %10.0f %s  %7.0f%s  %6.0f  %6.0f\n", l.Name, l.Median.PerSecond, ratio, l.Median.cpu(), by.String(), allocs, l.Median.ProjectedAfter)
}

func printHead(w io.Writer) {
	fmt.Fprintf(w, "  %-46s %10s %6s  %7s", "", "per second", "ratio", "CPU")
	for _, k := range kinds {
		fmt.Fprintf(w, " %11s", k)
	}
	fmt.Fprintf(w, "  allocs  lag ms\n")
}
