// Command recovery breaks a running system in every way that its design speaks
// of, and measures how long it takes to go on and what is lost: `make recovery`.
//
// The broker (file storage), the services and the workers are processes of
// their own with default settings; they are killed, stopped and restarted as a
// machine's bad day would do it. What is judged is the run log, event by event
// in the order of the stream, and what agents have noted themselves. Each
// figure is held against the bound that the design promises; the exit code is
// 1 if one is missed.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"longhaul/test/cluster"
)

func main() {
	if is, err := cluster.ServeBroker(); is {
		if err != nil {
			fmt.Fprintln(os.Stderr, "recovery:", err)
			os.Exit(1)
		}
		return
	}
	if is, err := perform(); is {
		if err != nil {
			fmt.Fprintln(os.Stderr, "recovery:", err)
			os.Exit(1)
		}
		return
	}
	ok, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "recovery:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// options are what the command line says.
type options struct {
	binary string
	only   string
	tries  int
	short  bool
	json   bool
	keep   bool
	rate   int
	broker int
}

func run() (ok bool, err error) {
	var o options
	flag.StringVar(&o.binary, "longhaul", "bin/longhaul", "the binary whose services are broken")
	flag.StringVar(&o.only, "only", "", "the parts to run, such as 1,3 (default all of -cluster)")
	flag.IntVar(&o.tries, "tries", 50, "tries of the parts that repeat one thing (1, 2), runs of those that break many at once (3)")
	flag.IntVar(&o.broker, "cluster", 1, "the parts that run on so many brokers, 1 or 3")
	flag.IntVar(&o.rate, "rate", 200, "runs submitted each second, of the parts on three brokers")
	flag.BoolVar(&o.short, "short", false, "few tries, small numbers and bounds with slack: for a test")
	flag.BoolVar(&o.json, "json", false, "print JSON in place of the table")
	flag.BoolVar(&o.keep, "keep", false, "keep the processes' logs and the broker's files, and say where they are")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.short {
		o.rate = min(o.rate, shortRate)
	}
	chosen, err := choose(o)
	if err != nil {
		return false, err
	}
	r := report{Time: time.Now().UTC(), Go: runtime.Version(), CPUs: runtime.NumCPU(), Short: o.short, Brokers: brokersOf(chosen)}
	for _, p := range chosen {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		fmt.Fprintf(os.Stderr, "%d. %s\n", p.number, p.name)
		res := p.measure(ctx, o)
		for _, f := range res.Figures {
			fmt.Fprintln(os.Stderr, "   ", f)
		}
		if res.Error != "" {
			fmt.Fprintln(os.Stderr, "   ", res.Error)
		}
		r.Parts = append(r.Parts, res)
	}
	if o.json {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return r.ok(), enc.Encode(r)
	}
	return r.ok(), r.print(os.Stdout)
}

// part is one kind of disturbance.
type part struct {
	number int
	name   string
	do     func(context.Context, *stage, options, *result) error
	level  string // of the services' logs
	// brokers is how many there are.
	brokers int
}

// killOfBrokers is the part that kills brokers.
const killOfBrokers = 8

// parts lists all of them.
func parts() []part {
	return []part{
		{1, "kill -9 of a worker: its run goes on elsewhere", takeover, "info", 1},
		{2, "cancel of a running run", cancelling, "info", 1},
		{3, "a worker is stopped past its lease, and wakes up", fencing, "info", 1},
		{4, "kill -9 of the broker while runs execute", outage, "info", 1},
		{5, "fresh runs beside thousands in backoff", crowding, "warn", 1},
		{6, "rolling restart of all workers under load", rolling, "info", 1},
		{7, "runs that are to start later, and a great many of them", schedules, "warn", 1},
		{killOfBrokers, "three brokers under load: kill -9 of each", killBrokers, "info", 3},
		{9, "three brokers under load: kill -9 of each service", killServices, "info", 3},
		{10, "three brokers under load: each stream and consumer gets another leader", changeLeaders, "info", 3},
		{11, "three brokers under load: rolling restart", restartBrokers, "info", 3},
	}
}

// shortRate is the most runs a second of a short trial.
const shortRate = 50

// brokersOf says in words on how many brokers parts run.
func brokersOf(all []part) string {
	one, three := false, false
	for _, p := range all {
		one, three = one || p.brokers == 1, three || p.brokers == 3
	}
	switch {
	case one && three:
		return "one broker, or three"
	case three:
		return "three brokers, three replicas"
	}
	return "one broker"
}

func choose(o options) (chosen []part, err error) {
	all := parts()
	if o.only == "" {
		for _, p := range all {
			if p.brokers == o.broker {
				chosen = append(chosen, p)
			}
		}
		if len(chosen) == 0 {
			err = fmt.Errorf("-cluster: 1 or 3, not %d", o.broker)
		}
		return chosen, err
	}
	for _, s := range strings.Split(o.only, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < 1 || n > len(all) {
			return nil, fmt.Errorf("-only: %q is no part; there are 1 to %d", s, len(all))
		}
		chosen = append(chosen, all[n-1])
	}
	return chosen, nil
}

// measure runs one part on a stage of its own.
func (p part) measure(ctx context.Context, o options) *result {
	res := &result{Part: p.number, Name: p.name}
	begun := time.Now()
	defer func() { res.Seconds = time.Since(begun).Round(time.Millisecond).Seconds() }()
	// Nothing here takes as long; what hangs must say so, with its logs.
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	s, err := newStage(ctx, o.binary, p.level, p.brokers)
	if err == nil {
		err = p.do(ctx, s, o, res)
	}
	if err != nil {
		res.Error = err.Error()
	}
	s.stop()
	res.times("(for comparison: the broker's answer to a plain question)", s.noise.all(), 0)
	res.Faults = append(res.Faults, s.seen.faultList()...)
	if o.keep || !res.ok() {
		res.note("logs and files: %s", s.dir)
	} else {
		s.remove()
	}
	return res
}
