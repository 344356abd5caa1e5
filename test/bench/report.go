package main

import (
	"fmt"
	"io"
	"slices"
	"time"
)

// The measurements.
const (
	publishFloor = "publish"
	consumeFloor = "consume + ack"
	ideal16      = "ideal run, 16 at a time"
	ideal64      = "ideal run, 64 at a time"
	oursEndToEnd = "longhaul, 64 slots"
)

// report is the outcome. Latencies are in milliseconds.
type report struct {
	Time           time.Time          `json:"time"`
	Go             string             `json:"go"`
	CPUs           int                `json:"cpus"`
	Rounds         int                `json:"rounds"`
	Runs           int                `json:"runs"`
	PerSecond      map[string]float64 `json:"per_second"`
	RatioToIdeal64 float64            `json:"ratio_to_ideal_64"`
	SubmitToStart  map[string]float64 `json:"submit_to_start_ms"`
	SubmitToFinish map[string]float64 `json:"submit_to_finish_ms"`
}

// latencies of runs submitted one by one at rest, as a subscriber sees them.
type latencies struct{ start, finish []time.Duration }

func quantiles(all []time.Duration) map[string]float64 {
	slices.Sort(all)
	q := map[string]float64{}
	for name, at := range map[string]float64{"p50": 0.5, "p99": 0.99} {
		if len(all) > 0 {
			q[name] = float64(all[int(at*float64(len(all)-1))].Microseconds()) / 1000
		}
	}
	return q
}

func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "\nmedians of %d rounds of %d, %d CPUs, %s, one broker, file storage, no fsync per write\n\n", r.Rounds, r.Runs, r.CPUs, r.Go)
	ideal := r.PerSecond[ideal64]
	for _, name := range []string{publishFloor, consumeFloor, ideal16, ideal64, oursEndToEnd} {
		fmt.Fprintf(w, "  %-28s %9.0f/s  %5.2f of the ideal run at 64\n", name, r.PerSecond[name], r.PerSecond[name]/ideal)
	}
	fmt.Fprintf(w, "\n  submit → run.started seen    p50 %6.2f ms   p99 %6.2f ms\n", r.SubmitToStart["p50"], r.SubmitToStart["p99"])
	fmt.Fprintf(w, "  submit → run.succeeded seen  p50 %6.2f ms   p99 %6.2f ms\n", r.SubmitToFinish["p50"], r.SubmitToFinish["p99"])
	fmt.Fprintf(w, "\nThe ideal run is what no engine on JetStream can do without: a submit, four confirmed\nstate messages, the ack. Ours does the same and validates, fences, projects and republishes.\n")
}
