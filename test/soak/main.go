// Command soak runs a system for a long time under an even load, and records
// what it holds on to: `make soak`.
//
// One broker with file storage, the three services and two workers run as
// processes of their own with default settings, but for a retention so short
// that most of what is submitted is removed again before the end. Every few
// seconds the memory and the goroutines of each process and the disk of the
// broker are written down, as JSON lines. In the end the second half is held
// against the first: what grows by more than a stated part is a leak, and the
// exit code is 1. With -plot the record becomes a picture; with -from an old
// record is judged and drawn again.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"longhaul/test/cluster"
)

func main() {
	if is, err := cluster.ServeBroker(); is {
		if err != nil {
			fmt.Fprintln(os.Stderr, "soak: broker:", err)
			os.Exit(1)
		}
		return
	}
	ok, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	binary    string
	runs      int
	duration  time.Duration
	retention time.Duration
	every     time.Duration
	record    string
	plot      string
	from      string
}

func run() (ok bool, err error) {
	var o options
	flag.StringVar(&o.binary, "longhaul", "bin/longhaul", "the binary whose services are run")
	flag.IntVar(&o.runs, "runs", 200_000, "how many runs are submitted")
	flag.DurationVar(&o.duration, "duration", time.Hour, "over how long")
	flag.DurationVar(&o.retention, "retention", 6*time.Minute, "how long a run is kept after its end")
	flag.DurationVar(&o.every, "every", 10*time.Second, "the time between two samples")
	flag.StringVar(&o.record, "record", "", "the file that takes the samples, as JSON lines (default a new temporary one)")
	flag.StringVar(&o.plot, "plot", "", "draw the samples into this SVG file")
	flag.StringVar(&o.from, "from", "", "judge and draw this record; nothing is run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var rec record
	if o.from != "" {
		if rec, err = readRecord(o.from); err != nil {
			return false, err
		}
	} else if rec, err = soak(ctx, o); err != nil {
		return false, err
	}
	if o.plot != "" {
		if err := os.WriteFile(o.plot, []byte(rec.draw()), 0o644); err != nil { //nolint:gosec // a picture for all to see
			return false, err
		}
		fmt.Fprintln(os.Stderr, "drawn:", o.plot)
	}
	return rec.judge(os.Stdout), nil
}

// soak runs everything and returns what was recorded.
func soak(ctx context.Context, o options) (rec record, err error) {
	s, err := startStage(ctx, o)
	defer func() { err = errors.Join(err, s.stop()) }()
	if err != nil {
		return rec, err
	}
	out, err := newRecorder(o.record)
	if err != nil {
		return rec, err
	}
	defer func() { err = errors.Join(err, out.close()) }()
	fmt.Fprintf(os.Stderr, "%d runs over %s, kept for %s after their end; samples in %s\n", o.runs, o.duration, o.retention, out.path())
	load, err := startLoad(ctx, s.nc, o)
	if err != nil {
		return rec, err
	}
	err = s.sampleUntil(ctx, o, load, out)
	err = errors.Join(err, load.stop())
	return out.record, err
}
