package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
)

// markdown writes the report's tables as docs/benchmarks.md has them.
func (r *report) markdown(w io.Writer) {
	group := ""
	for _, l := range r.Lines {
		if l.Group != group {
			group = l.Group
			fmt.Fprintf(w, "\n**%s** (%s)\n\n", group, l.Stage)
			if len(l.Latencies) > 0 {
				fmt.Fprintf(w, "| | | p50 | p99 | p99.9 | of |\n| --- | --- | --- | --- | --- | --- |\n")
			} else {
				fmt.Fprintf(w, "| | a second | ratio | CPU, µs | client | broker | dispatcher | worker | statekeeper | allocations |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
			}
		}
		for _, what := range slices.Sorted(maps.Keys(l.Latencies)) {
			q := l.Latencies[what]
			fmt.Fprintf(w, "| %s | %s | %.2f ms | %.2f ms | %.2f ms | %s |\n", l.Name, what, q.P50, q.P99, q.P999, thousands(float64(q.Count)))
		}
		if len(l.Latencies) > 0 {
			continue
		}
		ratio, allocs := "", 0.0
		if l.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", l.Ratio)
		}
		fmt.Fprintf(w, "| %s | %s | %s | %.0f |", l.Name, thousands(l.Median.PerSecond), ratio, l.Median.cpu())
		for _, k := range kinds {
			fmt.Fprintf(w, " %.0f |", l.Median.CPU[k])
			allocs += l.Median.Allocs[k]
		}
		fmt.Fprintf(w, " %.0f |\n", allocs)
	}
	for i, f := range r.Figures {
		if i == 0 || r.Figures[i-1].Part != f.Part {
			fmt.Fprintf(w, "\n**%s**\n\n| | |\n| --- | --- |\n", f.Part)
		}
		fmt.Fprintf(w, "| %s | %s |\n", f.Name, f.words())
	}
}

// words is a figure as people read it.
func (f figure) words() string {
	switch {
	case f.Unit == "B":
		return thousands(f.Value) + " B"
	case f.Unit == "runs/s":
		return thousands(f.Value) + " runs/s"
	case f.Value >= 100:
		return fmt.Sprintf("%.0f %s", f.Value, f.Unit)
	}
	return fmt.Sprintf("%.3g %s", f.Value, f.Unit)
}

// thousands rounds to three digits and sets commas.
func thousands(v float64) string {
	n, unit := int(v+0.5), 1
	for n/unit >= 1000 {
		unit *= 10
	}
	n = (n + unit/2) / unit * unit
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
