package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"longhaul/internal/sabotage"
	"longhaul/test/torture/history"
)

// options are what the command line says, and the settings that follow.
type options struct {
	seed     uint64
	duration time.Duration
	brokers  int
	faults   []string // names
	sabotage string   // what the services are to be without
	built    bool     // they are built so already: the environment says what is taken out
	profile  string
	keep     bool
	binary   string
	judge    string // a directory that is to be judged again, and nothing else done

	dispatchers, statekeepers, workers, clients, readers int
	slots                                                int
	lease, drain, retryMax                               time.Duration
	// crowd bounds the runs that live at a time, so that all of them can end
	// within settle once the faults are over.
	crowd  int
	settle time.Duration
}

func parseOptions(args []string) (o options, err error) {
	set := flag.NewFlagSet("torture", flag.ContinueOnError)
	set.Uint64Var(&o.seed, "seed", 1, "what load and faults are made from")
	set.DurationVar(&o.duration, "duration", time.Minute, "how long load and faults go on")
	set.IntVar(&o.brokers, "cluster", 1, "brokers: 1, or 3 with three replicas")
	list := set.String("faults", "all", "the faults, with commas between them, a minus before one that is left out: all, none, "+strings.Join(faultNames(), ", "))
	set.StringVar(&o.sabotage, "sabotage", "", fmt.Sprintf("guarantees to take out of the services, with commas between them: %v", sabotage.Switches()))
	settle := set.Duration("settle", 0, "how long all runs may take to end once the faults are over (default 1m, or 4m by the default profile)")
	set.StringVar(&o.profile, "profile", "short", "the services' times: short (a lease of 5 s) or default (theirs)")
	set.BoolVar(&o.keep, "keep", false, "keep history, dumps and logs, and say where they are")
	set.StringVar(&o.judge, "judge", "", "judge once more what was written into this directory, which -keep and a violation leave behind")
	set.StringVar(&o.binary, "longhaul", "bin/longhaul", "the binary whose services are tortured")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	// The harness itself keeps its guarantees, or it would see nothing.
	if without := os.Getenv(sabotage.Env); without != "" && o.sabotage == "" {
		o.sabotage, o.built = without, true
	}
	if err := os.Unsetenv(sabotage.Env); err != nil {
		return o, err
	}
	var faults []error
	if len(set.Args()) > 0 {
		faults = append(faults, fmt.Errorf("%q is no flag", set.Arg(0)))
	}
	if o.brokers != 1 && o.brokers != 3 {
		faults = append(faults, fmt.Errorf("-cluster: must be 1 or 3, not %d", o.brokers))
	}
	if o.duration < time.Second {
		faults = append(faults, fmt.Errorf("-duration: must be at least 1s, not %s", o.duration))
	}
	if o.faults, err = chooseFaults(*list, o.brokers); err != nil {
		faults = append(faults, err)
	}
	known := fmt.Sprint(sabotage.Switches())
	for s := range strings.SplitSeq(o.sabotage, ",") {
		if s != "" && !slices.Contains(strings.Fields(strings.Trim(known, "[]")), s) {
			faults = append(faults, fmt.Errorf("-sabotage: %q is no switch; there are %s", s, known))
		}
	}
	switch o.profile {
	case "short":
		o.lease, o.drain, o.retryMax, o.settle = 5*time.Second, 3*time.Second, 3*time.Second, 60*time.Second
	case "default":
		o.lease, o.drain, o.retryMax, o.settle = 30*time.Second, 30*time.Second, 30*time.Second, 4*time.Minute
	default:
		faults = append(faults, fmt.Errorf("-profile: must be short or default, not %q", o.profile))
	}
	switch {
	case *settle < 0:
		faults = append(faults, fmt.Errorf("-settle: must not be negative, not %s", *settle))
	case *settle > 0:
		o.settle = *settle
	}
	o.dispatchers, o.statekeepers, o.workers, o.clients, o.readers = 2, 2, 4, 3, 2
	o.slots, o.crowd = 8, 80
	return o, errors.Join(faults...)
}

// command is how to run it again.
func (o options) command() string {
	s := fmt.Sprintf("go run ./test/torture -seed %d -duration %s -settle %s -cluster %d -profile %s -faults %s",
		o.seed, o.duration, o.settle, o.brokers, o.profile, strings.Join(o.faults, ","))
	if o.sabotage != "" {
		s += " -sabotage " + o.sabotage
	}
	return s
}

// environment is what services get beside this program's own.
func (o options) environment() []string {
	if o.sabotage == "" {
		return nil
	}
	return []string{sabotage.Env + "=" + o.sabotage}
}

// config is what the history says of all this.
func (o options) config() *history.Config {
	c := &history.Config{
		Seed: o.seed, Cluster: fmt.Sprint(o.brokers), Command: o.command(), Lease: o.lease, Nodes: o.brokers, HistoryLimit: historyLimit,
		Settings: map[string]string{
			"drain": o.drain.String(), "retry_max": o.retryMax.String(), "workers": fmt.Sprint(o.workers), "slots": fmt.Sprint(o.slots),
			"settle": o.settle.String(), "go": runtime.Version(), "cpus": fmt.Sprint(runtime.NumCPU()),
		},
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			switch m.Path {
			case "github.com/nats-io/nats-server/v2":
				c.Server = m.Version
			case "github.com/nats-io/nats.go":
				c.Settings["nats.go"] = m.Version
			}
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				c.Version = s.Value
			}
		}
	}
	return c
}
