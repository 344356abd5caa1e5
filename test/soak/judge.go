package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// record is a soak's samples in the order of time.
type record []sample

// series is one quantity over time.
type series struct {
	name   string
	values []float64
	// growth is by how much of itself the last quarter's median may exceed the
	// second's, and slack by how much beyond that: for what is small.
	growth, slack float64
}

// series are the quantities that must not grow for ever.
func (r record) series() []series {
	var all []series
	add := func(name string, growth, slack float64, value func(sample) float64) {
		s := series{name: name, growth: growth, slack: slack}
		for _, at := range r {
			s.values = append(s.values, value(at))
		}
		all = append(all, s)
	}
	if len(r) == 0 {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(r[0].RSS)) {
		add(name+" memory, MiB", 0.15, 8, func(s sample) float64 { return s.RSS[name] })
	}
	for _, name := range slices.Sorted(maps.Keys(r[0].Goroutines)) {
		add(name+" goroutines", 0.1, 5, func(s sample) float64 { return s.Goroutines[name] })
	}
	add("broker disk, MiB", 0.2, 16, func(s sample) float64 { return s.DiskMiB })
	for _, name := range slices.Sorted(maps.Keys(r[0].Messages)) {
		add(name+" messages", 0.1, 200, func(s sample) float64 { return float64(s.Messages[name]) })
	}
	return all
}

// quarter is the median of the n-th quarter of the values, 1 to 4.
func (s series) quarter(n int) float64 {
	part := slices.Sorted(slices.Values(s.values[len(s.values)*(n-1)/4 : len(s.values)*n/4]))
	return part[len(part)/2]
}

// flat reports whether it does not grow. The first quarter does not count: then
// retention has not begun to take away what is added.
func (s series) flat() bool {
	return s.quarter(4) <= s.quarter(2)*(1+s.growth)+s.slack
}

// leastSamples is what a judgement needs.
const leastSamples = 16

// judge prints what grew and what did not, and reports whether all is well.
func (r record) judge(w io.Writer) bool {
	if len(r) < leastSamples {
		fmt.Fprintf(w, "%d samples are too few to judge, %d are needed\n", len(r), leastSamples)
		return false
	}
	last := r[len(r)-1]
	fmt.Fprintf(w, "\n%d runs submitted in %.0f s, %d ended, %d did not; %d were followed to their end\n\nmedians of the\n  %-32s %10s %10s %10s\n",
		last.Submitted, last.Seconds, last.Ended, last.Waiting, last.Followed, "", "2nd", "3rd", "4th quarter")
	ok := last.Waiting == 0
	for _, s := range r.series() {
		verdict := ""
		if !s.flat() {
			verdict, ok = "  GROWS", false
		}
		fmt.Fprintf(w, "  %-32s %10.1f %10.1f %10.1f%s\n", s.name, s.quarter(2), s.quarter(3), s.quarter(4), verdict)
	}
	return ok
}

func words(m map[string]float64) string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		all = append(all, fmt.Sprintf("%s %.0f", name, m[name]))
	}
	return strings.Join(all, ", ")
}
