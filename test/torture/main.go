// Command torture holds a running system to its guarantees under random
// faults: `make torture`.
//
// Brokers (file storage; one, or three with three replicas), dispatchers,
// statekeepers, workers and readers are processes of their own. A load and a
// nemesis, both made from one seed, go on beside one another for a while; then
// everything is healed, all runs must end within a stated time, and what stands
// in the broker is dumped and judged against what everybody wrote down (package
// check). The exit code is 1 if a guarantee is broken, 2 if that could not be
// found out.
//
// The seed fixes what is asked for and what is broken when, not how the
// processes' steps fall between one another: to run a seed again is to try
// again, not to replay.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"longhaul/test/cluster"
)

func main() {
	if is, err := beOther(); is {
		exit(true, err)
	}
	o, err := parseOptions(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(2)
	}
	if o.judge != "" {
		exit(judge(os.Stdout, o.judge))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := torture(ctx, o)
	stop()
	exit(ok, err)
}

// beOther is for processes that this program starts of itself.
func beOther() (is bool, err error) {
	if is, err := cluster.ServeBroker(); is {
		return true, err
	}
	if len(os.Args) < 2 {
		return false, nil
	}
	switch os.Args[1] {
	case beWorker:
		return true, serveWorker(os.Args[2:])
	case beReader:
		return true, serveReaders(os.Args[2:])
	}
	return false, nil
}

// exit ends the program: 0 if all held, 1 if a guarantee is broken, 2 if that
// could not be found out.
func exit(ok bool, err error) {
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(2)
	case !ok:
		os.Exit(1)
	}
	os.Exit(0)
}

// torture does it once, from an empty directory to the verdict.
func torture(ctx context.Context, o options) (ok bool, err error) {
	dir, err := os.MkdirTemp("", "longhaul-torture-")
	if err != nil {
		return false, err
	}
	defer func() {
		if ok && err == nil && !o.keep {
			err = os.RemoveAll(dir)
			return
		}
		fmt.Fprintf(os.Stderr, "history, dump and logs: %s\n", dir)
	}()
	p := newProgress(os.Stderr)
	p.header(o)
	s, err := newSystem(ctx, o, dir, p.say)
	if err == nil {
		err = s.suffer(ctx)
	}
	if err := errors.Join(err, s.troubles(), s.stop()); err != nil {
		return false, err
	}
	return judge(os.Stdout, dir)
}
