package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"longhaul/test/cluster"
)

// profileSeconds is how long processors are watched, from the begin of a round.
const profileSeconds = 4

// profileDir is the environment variable that has brokers and workers, which
// are this program once more, serve profiles, and say in that directory where.
const profileDir = "LONGHAUL_BENCH_PROFILES"

// addressFile is where a process says where it serves its profiles.
func addressFile(dir string, pid int) string { return filepath.Join(dir, strconv.Itoa(pid)+".addr") }

// serveProfiles serves this process's profiles if it is asked for, until the
// process ends.
func serveProfiles() error {
	dir := os.Getenv(profileDir)
	if dir == "" {
		return nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	go func() { _ = http.Serve(l, mux) }() //nolint:gosec // on loopback, for as long as a bench takes
	return os.WriteFile(addressFile(dir, os.Getpid()), []byte(l.Addr().String()), 0o600)
}

// perhapsProfiled runs do, under profile in the first round if that is wanted.
func (s *stage) perhapsProfiled(ctx context.Context, o options, round int, name string, do func() error) error {
	if o.profiles == "" || round > 0 {
		return do()
	}
	return s.profiled(ctx, o.profiles, name, do)
}

// profiled has every process profiled while do runs: its processors at the
// begin, what it has allocated since its start in the end.
func (s *stage) profiled(ctx context.Context, dir, name string, do func() error) error {
	at := map[string]string{}
	for _, p := range s.services {
		at[p.Name] = p.http
	}
	var own []*cluster.Process
	for _, b := range s.brokers {
		own = append(own, b.Process)
	}
	for _, w := range s.workers {
		own = append(own, w.Process)
	}
	for _, p := range own {
		addr, err := os.ReadFile(addressFile(dir, p.PID()))
		if err != nil {
			return fmt.Errorf("find the profiles of %s: %w", p.Name, err)
		}
		at[p.Name] = string(addr)
	}
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)
	var fetching sync.WaitGroup
	failed := make(chan error, len(at))
	for process, addr := range at {
		fetching.Go(func() {
			failed <- fetch(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", addr, profileSeconds), filepath.Join(dir, name+"."+process+".cpu.pprof"))
		})
	}
	err := do()
	fetching.Wait()
	close(failed)
	for e := range failed {
		err = errors.Join(err, e)
	}
	for process, addr := range at {
		err = errors.Join(err, fetch(ctx, "http://"+addr+"/debug/pprof/allocs", filepath.Join(dir, name+"."+process+".allocs.pprof")))
	}
	return err
}

// fetch writes what url answers with into a file.
func fetch(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("fetch a profile: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // read to its end, or given up
	data, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", resp.Status, data)
	}
	if err != nil {
		return fmt.Errorf("fetch a profile: %w", err)
	}
	return os.WriteFile(file, data, 0o600)
}
