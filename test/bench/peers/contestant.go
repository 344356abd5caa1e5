package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// contestant is a job queue in one configuration.
type contestant struct {
	name string
	// part of the jobs that a round has: what is slow takes fewer.
	part    float64
	measure func(ctx context.Context, jobs int) (sample, error)
}

// missingError says that something is not installed here.
type missingError struct{ what, how string }

func (m *missingError) Error() string {
	return fmt.Sprintf("not measured: %s is not here (%s)", m.what, m.how)
}

// oursConfig is where Longhaul's bench is.
type oursConfig struct{ bench, longhaul string }

// contestants are Longhaul, and what no engine on JetStream can do without.
// Both come of one call of the bench, which the first of them makes.
func (o oursConfig) contestants() []contestant {
	var floor sample
	return []contestant{
		{"Longhaul", 1, func(ctx context.Context, jobs int) (ours sample, err error) {
			ours, floor, err = o.call(ctx, jobs)
			return ours, err
		}},
		{"ideal run on JetStream", 1, func(context.Context, int) (sample, error) { return floor, nil }},
	}
}

func (o oursConfig) call(ctx context.Context, jobs int) (ours, floor sample, err error) {
	if _, err := os.Stat(o.bench); err != nil {
		return ours, floor, &missingError{o.bench, "make bench-peers builds it"}
	}
	dir, err := os.MkdirTemp("", "longhaul-peers-")
	if err != nil {
		return ours, floor, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "report.json")
	cmd := exec.CommandContext(ctx, o.bench, "-longhaul", o.longhaul, "-only", "end-to-end", "-rounds", "1", "-runs", fmt.Sprint(jobs), "-json", file)
	if out, err := cmd.CombinedOutput(); err != nil {
		return ours, floor, fmt.Errorf("%w: %s", err, out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return ours, floor, err
	}
	var r struct {
		Lines []struct {
			Of     string
			Median struct {
				PerSecond float64            `json:"per_second"`
				CPU       map[string]float64 `json:"cpu_us"`
			}
		}
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return ours, floor, err
	}
	for _, l := range r.Lines {
		s := sample{PerSecond: l.Median.PerSecond, Server: l.Median.CPU["broker"]}
		for kind, us := range l.Median.CPU {
			// The floor runs beside our idle services, and does without them.
			if l.Of != "" || kind == "client" || kind == "broker" || kind == "worker" {
				s.CPU += us
			}
		}
		if l.Of == "" {
			floor = s
		} else {
			ours = s
		}
	}
	return ours, floor, nil
}

// queue is a peer's client.
type queue interface {
	// submit has jobs stored, as many at a time as suits it.
	submit(ctx context.Context, jobs int) error
	// left is how many have not ended yet.
	left(ctx context.Context) (int, error)
	close() error
}

// look is the pause between two looks at how many jobs are left, patience how
// long a round may take.
const (
	look     = 10 * time.Millisecond
	patience = 10 * time.Minute
)

// compete measures jobs on a queue whose server has spent server() so far: a
// worker process executes while this one submits.
func compete(ctx context.Context, q queue, w workerConfig, jobs int, server func() (time.Duration, error)) (_ sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	worker, err := startWorker(w)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, worker.stop()) }()
	spent := func() (all, own time.Duration, err error) {
		own, err1 := server()
		client, err2 := cpuTime(os.Getpid())
		busy, err3 := cpuTime(worker.pid())
		return own + client + busy, own, errors.Join(err1, err2, err3)
	}
	allBefore, ownBefore, err := spent()
	if err != nil {
		return sample{}, err
	}
	begun := time.Now()
	if err := q.submit(ctx, jobs); err != nil {
		return sample{}, fmt.Errorf("submit: %w", err)
	}
	for {
		left, err := q.left(ctx)
		if err != nil {
			return sample{}, fmt.Errorf("look what is left: %w", err)
		}
		if left == 0 {
			break
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return sample{}, fmt.Errorf("%d jobs are left: %w", left, context.Cause(ctx))
		}
	}
	took := time.Since(begun)
	all, own, err := spent()
	perJob := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(jobs) }
	return sample{PerSecond: float64(jobs) / took.Seconds(), CPU: perJob(all - allBefore), Server: perJob(own - ownBefore)}, err
}
