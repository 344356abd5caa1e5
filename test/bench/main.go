// Command bench measures Longhaul against the JetStream operations that it
// cannot do without, on this machine, in one run: `make bench`.
//
// Brokers (file storage), dispatcher, statekeeper and workers are processes of
// their own; this program is the client. The ideal run's worker is a process of
// its own, too, the same one that hosts ours. Rounds of the floor and of ours
// alternate, and what counts are medians and their ratios: machines differ and
// are noisy, ratios within one run hold better.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"longhaul/test/cluster"
)

func main() {
	if err := serveProfiles(); err != nil {
		exit(err)
	}
	for _, serve := range []func() (bool, error){cluster.ServeBroker, serveWorker} {
		if is, err := serve(); is {
			exit(err)
		}
	}
	exit(run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// options are what the command line says.
type options struct {
	binary string
	only   string
	rounds int
	runs   int
	json   string
	// profiles is a directory, empty for none.
	profiles string
	// scale is the size of the large systems; 0 measures the others.
	scale float64
	// from are reports that are shown; nothing is measured then.
	from, peers    string
	plot, markdown string
}

func run() error {
	var o options
	flag.StringVar(&o.binary, "longhaul", "bin/longhaul", "the binary whose services are measured")
	flag.StringVar(&o.only, "only", "", "measure these groups alone, separated by commas: end-to-end, floor, …")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of each measurement")
	flag.IntVar(&o.runs, "runs", 20_000, "runs in each round; what is slow takes a part of it")
	flag.StringVar(&o.json, "json", "", "write everything, every round of it, into this file")
	flag.StringVar(&o.profiles, "profiles", "", "write CPU and allocation profiles of every process in the first round of each measurement into this directory")
	flag.Float64Var(&o.scale, "scale", 0, "measure large systems, in place of the groups: 1 is the full size (500,000 runs wait, 1,000,000 are kept); -only depth, retained, executing")
	flag.StringVar(&o.from, "from", "", "show what -json has written; nothing is measured")
	flag.StringVar(&o.plot, "plot", "", "draw into this SVG file")
	flag.StringVar(&o.peers, "peers", "", "draw what test/bench/peers has written, too")
	flag.StringVar(&o.markdown, "markdown", "", "write the tables into this file")
	flag.Parse()
	if o.profiles != "" {
		if err := errors.Join(os.MkdirAll(o.profiles, 0o700), os.Setenv(profileDir, o.profiles)); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := newReport(o)
	if o.from != "" {
		if err := readJSON(o.from, r); err != nil {
			return err
		}
		r.print(os.Stdout)
		return r.write(o)
	}
	err := r.takeAll(ctx, o)
	r.print(os.Stdout) // what was measured before something failed, too
	return errors.Join(err, r.write(o))
}

// write writes the files that are asked for.
func (r *report) write(o options) error {
	files := map[string]func() ([]byte, error){
		o.json: func() ([]byte, error) {
			data, err := json.MarshalIndent(r, "", "  ")
			return append(data, '\n'), err
		},
		o.plot: func() ([]byte, error) {
			if o.peers == "" {
				return []byte(r.draw(nil)), nil
			}
			var peers peersReport
			err := readJSON(o.peers, &peers)
			return []byte(r.draw(&peers)), err
		},
		o.markdown: func() ([]byte, error) {
			var b bytes.Buffer
			r.markdown(&b)
			return b.Bytes(), nil
		},
	}
	delete(files, "")
	for path, content := range files {
		data, err := content()
		if err == nil {
			err = os.WriteFile(path, data, 0o644) //nolint:gosec // figures for all to see
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// takeAll measures what the options say.
func (r *report) takeAll(ctx context.Context, o options) error {
	if o.scale > 0 {
		return r.takeScale(ctx, o)
	}
	some, err := chosen(o.only)
	if err != nil {
		return err
	}
	for _, g := range some {
		if err := r.take(ctx, o, g); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
	}
	return nil
}

// take takes all rounds of a group.
func (r *report) take(ctx context.Context, o options, g group) (err error) {
	fmt.Fprintf(os.Stderr, "%s (%s)\n", g.name, g.stage.name)
	s, err := startStage(ctx, o.binary, g.stage)
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return s.logs(err)
	}
	if err := s.host(ctx, 1, 64); err != nil {
		return err
	}
	if err := s.registered(ctx); err != nil {
		return err
	}
	for round := range o.rounds {
		for _, m := range g.all {
			n := max(int(float64(o.runs)*m.part), 10)
			var got sample
			do := func() (err error) { got, err = m.do(ctx, s, n); return err }
			if err := s.perhapsProfiled(ctx, o, round, m.name, do); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			if err := r.add(g, m, n, got); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			if len(got.latencies) > 0 {
				fmt.Fprintf(os.Stderr, "  round %d  %s\n", round+1, m.name)
				continue
			}
			fmt.Fprintf(os.Stderr, "  round %d  %-46s %9.0f/s\n", round+1, m.name, got.PerSecond)
		}
	}
	return nil
}
