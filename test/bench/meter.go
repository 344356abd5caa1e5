package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"longhaul/test/cluster"
)

// meter is what processes have spent so far: CPU time and allocations by name.
// The difference of two is what happened between them.
type meter struct {
	cpu    map[string]time.Duration
	allocs map[string]float64
}

// measure reads all processes of the stage and this one, which is the client.
// Processes of one kind (brokers, workers) are added up.
func (s *stage) measure(ctx context.Context) (meter, error) {
	m := meter{cpu: map[string]time.Duration{}, allocs: map[string]float64{}}
	var errs []error
	spent := func(kind string, pid int) {
		d, err := cpuTime(pid)
		m.cpu[kind] += d
		errs = append(errs, err)
	}
	spent("client", os.Getpid())
	for _, b := range s.brokers {
		spent("broker", b.PID())
	}
	for _, p := range s.services {
		spent(p.Name, p.PID())
		n, err := cluster.Metric(ctx, p.http, "go_memstats_mallocs_total")
		m.allocs[p.Name] = n
		errs = append(errs, err)
	}
	for _, w := range slices.Concat(s.workers, slices.Collect(maps.Values(s.bare))) {
		spent(w.kind, w.PID())
		a, err := w.tell(ctx, order{Do: "stats"})
		m.allocs[w.kind] += a.Mallocs
		errs = append(errs, err)
	}
	return m, errors.Join(errs...)
}

// since is what was spent between before and m for each of n runs: CPU in
// microseconds, allocations.
func (m meter) since(before meter, n int) (cpu, allocs map[string]float64) {
	cpu, allocs = map[string]float64{}, map[string]float64{}
	for kind, d := range m.cpu {
		cpu[kind] = float64((d - before.cpu[kind]).Microseconds()) / float64(n)
	}
	for kind, count := range m.allocs {
		allocs[kind] = (count - before.allocs[kind]) / float64(n)
	}
	return cpu, allocs
}

// cpuTime is what a process has spent in user and system mode, all its threads
// (Linux). It is exact to the nanosecond as long as no thread has ended, and
// the runtime ends none.
func cpuTime(pid int) (sum time.Duration, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		return 0, errors.Join(err, fmt.Errorf("process %d has no threads in /proc", pid))
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // just now
		}
		if err != nil {
			return 0, err
		}
		running, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(running, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s has not the form that is known: %w", name, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}
