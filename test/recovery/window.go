package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/test/cluster"
)

// window is the time of one disturbance, from its beginning until all replicas
// are current again and a little more; its figures are of what was submitted in it.
type window struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	// Current is when, from its beginning, all replicas were current again.
	Current float64 `json:"current_after_seconds"`
	Runs    int     `json:"runs"`
	// Unanswered is the longest time in which no submit was acknowledged;
	// Refused counts the calls of Submit that returned an error, and were repeated.
	Unanswered float64 `json:"longest_without_ack_ms"`
	Refused    int     `json:"submits_with_error"`
	// Endless is the longest time in which no run was seen to end.
	Endless float64 `json:"longest_without_end_ms"`
	// From submit, the first try, to the end of short runs.
	P50 float64 `json:"short_p50_ms"`
	P99 float64 `json:"short_p99_ms"`
	Max float64 `json:"short_max_ms"`
	// Again are runs that were executed more than once; Charged those with an
	// attempt above the first.
	Again   int `json:"executed_again"`
	Charged int `json:"charged"`

	// Slowest tells what became of the slowest short run, and when.
	Slowest string `json:"slowest,omitempty"`

	begun, over time.Time
	// MayCharge: a worker's death is charged, and its runs are executed again.
	MayCharge bool `json:"-"`
}

// tail is how long a window goes on when all is well again.
const tail = 3 * time.Second

// between is the pause between two windows, so that what was submitted in the
// one has ended when the other begins: a long run lasts three seconds.
const between = 6 * time.Second

// disturb is a window around do. It is over when the cluster is well.
func (s *stage) disturb(ctx context.Context, name string, do func(context.Context) error) (window, error) {
	if err := cluster.Sleep(ctx, between); err != nil {
		return window{}, err
	}
	w := window{Name: name, begun: time.Now()}
	if err := do(ctx); err != nil {
		return w, fmt.Errorf("%s: %w", name, err)
	}
	if err := s.awaitCurrent(ctx); err != nil {
		return w, fmt.Errorf("%s: %w", name, err)
	}
	w.Current = time.Since(w.begun).Seconds()
	err := cluster.Sleep(ctx, tail)
	w.over = time.Now()
	w.Seconds = w.over.Sub(w.begun).Seconds()
	return w, err
}

// figures fills in a window, when all runs have ended.
func (w *window) figures(m *mix, executions map[string][]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var acks, ends []time.Time
	var took []time.Duration
	slowest := time.Duration(-1)
	for _, s := range m.all {
		acks = append(acks, s.acked)
		end := m.s.seen.endedAt(s.id)
		ends = append(ends, end)
		if s.first.Before(w.begun) || s.first.After(w.over) {
			continue
		}
		w.Runs++
		w.Refused += s.refusals
		if !s.long && !end.IsZero() {
			took = append(took, end.Sub(s.first))
			if took[len(took)-1] > slowest {
				slowest = took[len(took)-1]
				w.Slowest = m.s.tell(s)
			}
		}
	}
	for _, s := range m.all {
		// What was under way when it began has suffered, too.
		if s.first.After(w.over) || m.s.seen.endedAt(s.id).Before(w.begun) {
			continue
		}
		if len(executions[s.id]) > 1 {
			w.Again++
		}
		if h := m.s.seen.head(s.id); h.Attempt > 1 {
			w.Charged++
		}
	}
	slices.Sort(took)
	w.P50, w.P99, w.Max = quantile(took, 0.5), quantile(took, 0.99), quantile(took, 1)
	w.Unanswered, w.Endless = millis(w.longestWithout(acks)), millis(w.longestWithout(ends))
}

// tell tells what was seen of a run, in milliseconds since its submission.
func (s *stage) tell(of *sent) string {
	at := func(t time.Time) int64 { return t.Sub(of.first).Milliseconds() }
	story := fmt.Sprintf("run %s, submitted at %s: acknowledged after %d ms", of.id, of.first.UTC().Format(time.TimeOnly), at(of.acked))
	for _, e := range s.seen.events(of.id) {
		story += fmt.Sprintf(", %s %d", e.Type, at(e.At))
		if e.Type == contracts.TypeStarted {
			story += " by " + e.WorkerID
		}
	}
	return story
}

// longestWithout is the longest time of the window in which nothing happened.
func (w *window) longestWithout(all []time.Time) (longest time.Duration) {
	slices.SortFunc(all, time.Time.Compare)
	last := w.begun
	for _, t := range all {
		if t.After(w.begun) && t.Before(w.over) {
			longest = max(longest, t.Sub(last))
			last = t
		}
	}
	return max(longest, w.over.Sub(last))
}

// endedAt is when a run was seen to end, zero if it was not.
func (l *ledger) endedAt(runID string) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.runs[runID]; r != nil {
		return r.ended
	}
	return time.Time{}
}

// printWindows prints them as a table.
func printWindows(out io.Writer, all []window) error {
	if len(all) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\twindow s\tcurrent s\truns\tno ack ms\terrors\tno end ms\tp50 ms\tp99 ms\tmax ms\texecuted again\tcharged\t")
	for _, w := range all {
		fmt.Fprintf(t, "%s\t%.0f\t%.1f\t%d\t%.0f\t%d\t%.0f\t%.0f\t%.0f\t%.0f\t%d\t%d\t\n",
			w.Name, w.Seconds, w.Current, w.Runs, w.Unanswered, w.Refused, w.Endless, w.P50, w.P99, w.Max, w.Again, w.Charged)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, w := range all {
		fmt.Fprintf(out, "   slowest of %s: %s\n", w.Name, w.Slowest)
	}
	return nil
}

// statuses are what the API says of all runs.
func (s *stage) statuses(ctx context.Context) (map[string]contracts.Status, error) {
	all := map[string]contracts.Status{}
	req := contracts.ListRequest{Limit: contracts.MaxListLimit}
	for {
		page, err := s.client.List(ctx, req)
		if err != nil {
			return nil, err
		}
		for _, r := range page.Runs {
			all[r.RunID] = r.Status
		}
		if page.Cursor == "" {
			return all, nil
		}
		req.Cursor = page.Cursor
	}
}
