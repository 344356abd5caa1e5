package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// report is the outcome of all parts.
type report struct {
	Time  time.Time `json:"time"`
	Go    string    `json:"go"`
	CPUs  int       `json:"cpus"`
	Short bool      `json:"short,omitempty"`
	// Brokers says on how many it was.
	Brokers string    `json:"brokers"`
	Parts   []*result `json:"parts"`
}

func (r report) ok() bool {
	for _, p := range r.Parts {
		if !p.ok() {
			return false
		}
	}
	return true
}

// result is the outcome of one part.
type result struct {
	Part    int      `json:"part"`
	Name    string   `json:"name"`
	Seconds float64  `json:"seconds"`
	Figures []figure `json:"figures"`
	Windows []window `json:"windows,omitempty"`
	Faults  []string `json:"faults,omitempty"` // rules that were broken, run by run
	Notes   []string `json:"notes,omitempty"`
	Error   string   `json:"error,omitempty"` // the part did not come to its end
}

func (r *result) ok() bool {
	for _, f := range r.Figures {
		if !f.ok() {
			return false
		}
	}
	return r.Error == "" && len(r.Faults) == 0
}

func (r *result) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// fault notes that a rule was broken. There is no need of very many.
func (r *result) fault(format string, args ...any) {
	if len(r.Faults) < maxFaults {
		r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
	}
}

// figure is one thing measured: a distribution of times, or one number.
type figure struct {
	Name  string   `json:"name"`
	N     int      `json:"n,omitempty"` // of a distribution, in milliseconds
	P50   float64  `json:"p50_ms,omitempty"`
	P99   float64  `json:"p99_ms,omitempty"`
	Max   float64  `json:"max_ms,omitempty"`
	Value *float64 `json:"value,omitempty"`
	// Bound is what P99 or Value is held against; empty for a figure that is
	// shown and not judged.
	Bound   string `json:"bound,omitempty"`
	Verdict string `json:"verdict,omitempty"`
}

const (
	kept   = "ok"
	missed = "missed"
)

func verdict(ok bool) string {
	if ok {
		return kept
	}
	return missed
}

func (f figure) ok() bool { return f.Verdict != missed }

// times adds a distribution, whose p99 must not be above the bound if that is not 0.
func (r *result) times(name string, all []time.Duration, bound time.Duration) {
	f := figure{Name: name, N: len(all)}
	slices.Sort(all)
	f.P50, f.P99, f.Max = quantile(all, 0.5), quantile(all, 0.99), quantile(all, 1)
	if bound > 0 {
		f.Bound = fmt.Sprintf("p99 ≤ %d ms", bound.Milliseconds())
		f.Verdict = verdict(len(all) > 0 && f.P99 <= millis(bound))
	}
	r.Figures = append(r.Figures, f)
}

// exactly adds a number that must be the one wanted.
func (r *result) exactly(name string, value, want int) {
	v := float64(value)
	r.Figures = append(r.Figures, figure{Name: name, Value: &v, Bound: fmt.Sprintf("= %d", want), Verdict: verdict(value == want)})
}

// atLeast adds a number that must not be below the bound.
func (r *result) atLeast(name string, value, bound float64) {
	r.Figures = append(r.Figures, figure{Name: name, Value: &value, Bound: fmt.Sprintf("≥ %g", bound), Verdict: verdict(value >= bound)})
}

// shown adds a number that is not judged.
func (r *result) shown(name string, value float64) {
	r.Figures = append(r.Figures, figure{Name: name, Value: &value})
}

// quantile is by the nearest rank, so that the p99 of 50 is the largest.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return millis(sorted[int(math.Ceil(q*float64(len(sorted))))-1])
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// String is the figure as a line of the table.
func (f figure) String() string {
	var s string
	if f.Value != nil {
		s = fmt.Sprintf("%-58s %10.5g", f.Name, *f.Value)
	} else {
		s = fmt.Sprintf("%-58s n %-4d p50 %8.1f  p99 %8.1f  max %8.1f ms", f.Name, f.N, f.P50, f.P99, f.Max)
	}
	if f.Bound != "" {
		s += fmt.Sprintf("   %s: %s", f.Bound, f.Verdict)
	}
	return s
}

func (r report) print(w io.Writer) error {
	fmt.Fprintf(w, "\n%s, %d CPUs, %s, file storage, default settings\n", r.Go, r.CPUs, r.Brokers)
	for _, p := range r.Parts {
		fmt.Fprintf(w, "\n%d. %s (%.0f s)\n", p.Part, p.Name, p.Seconds)
		if err := printWindows(w, p.Windows); err != nil {
			return err
		}
		for _, f := range p.Figures {
			fmt.Fprintln(w, "  ", f)
		}
		for _, s := range p.Faults {
			fmt.Fprintln(w, "   broken:", s)
		}
		for _, s := range p.Notes {
			fmt.Fprintln(w, "  ", s)
		}
		if p.Error != "" {
			fmt.Fprintln(w, "   not finished:", p.Error)
		}
	}
	_, err := fmt.Fprintf(w, "\nA p99 is by nearest rank: of 50 tries it is the slowest.\n")
	return err
}
