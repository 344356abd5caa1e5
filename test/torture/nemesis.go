package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"longhaul/test/cluster"
	"longhaul/test/torture/history"
)

// fault is one kind of harm.
type fault struct {
	name string
	// lane: of each, one fault at a time goes on beside those of the others.
	lane lane
	// brokers is how many it takes, 0 for any number.
	brokers int
	weight  int
	// do does it and undoes it; it ends early with ctx, and undoes it even so.
	do func(ctx context.Context, h *harm) error
}

// lane is what a fault harms, so that no two get into each other's way.
type lane string

// The lanes.
const (
	laneProcesses lane = "processes"
	laneBrokers   lane = "brokers"
	laneLinks     lane = "links"
	laneData      lane = "data"
)

// pauses are the mean times between two faults of a lane.
func (l lane) pause() time.Duration {
	switch l {
	case laneBrokers:
		return 4 * time.Second
	case laneData:
		return 1500 * time.Millisecond
	}
	return 1200 * time.Millisecond
}

// allFaults lists every kind.
func allFaults() []fault {
	return slices.Concat(processFaults(), brokerFaults(), linkFaults(), dataFaults())
}

func faultNames() []string {
	var names []string
	for _, f := range allFaults() {
		names = append(names, f.name)
	}
	return names
}

// chooseFaults reads a list of names, all and none among them; one with a minus
// is left out. Faults for another number of brokers are not among all.
func chooseFaults(list string, brokers int) ([]string, error) {
	chosen := map[string]bool{}
	known := map[string]bool{}
	for _, f := range allFaults() {
		known[f.name] = f.brokers == 0 || f.brokers == brokers
	}
	for name := range strings.SplitSeq(list, ",") {
		name, out := strings.CutPrefix(strings.TrimSpace(name), "-")
		fits, is := known[name]
		switch {
		case name == "all":
			for name, fits := range known {
				chosen[name] = fits && !out
			}
		case name == "none" || name == "":
		case !is:
			return nil, fmt.Errorf("-faults: there is no %q; there are all, none, %s", name, strings.Join(faultNames(), ", "))
		case !fits && !out:
			return nil, fmt.Errorf("-faults: %s is for another number of brokers than %d", name, brokers)
		default:
			chosen[name] = !out
		}
	}
	var names []string
	for _, name := range faultNames() {
		if chosen[name] {
			names = append(names, name)
		}
	}
	return names, nil
}

// seedOf makes chance of its own for something with a name.
func seedOf(name string) (seed uint64) {
	for _, c := range []byte(name) {
		seed = seed*31 + uint64(c)
	}
	return seed
}

// planned is a fault that is to come.
type planned struct {
	fault
	after time.Duration // the end of the one before it
	seed  uint64
}

// plan makes a lane's faults from the seed, enough for the whole time.
func (o options) plan(l lane) []planned {
	var kinds []fault
	total := 0
	for _, f := range allFaults() {
		if f.lane == l && slices.Contains(o.faults, f.name) {
			kinds = append(kinds, f)
			total += f.weight
		}
	}
	if total == 0 {
		return nil
	}
	rng := rand.New(rand.NewPCG(o.seed, seedOf(string(l))))
	var all []planned
	for at := time.Duration(0); at < o.duration; {
		p := planned{after: time.Duration((0.3 + rng.ExpFloat64()*0.7) * float64(l.pause())), seed: rng.Uint64()}
		n := rng.IntN(total)
		for _, f := range kinds {
			if n -= f.weight; n < 0 {
				p.fault = f
				break
			}
		}
		at += p.after
		all = append(all, p)
	}
	return all
}

// harm is one fault under way.
type harm struct {
	s    *system
	rng  *rand.Rand
	name string
	id   int64
}

// begin writes down that something begins, by its name among the history's, and
// returns what writes down its end.
func (h *harm) begin(name, target string, pid int) (end func()) {
	begun := time.Now()
	h.write(history.OpBegin, begun, history.Fault{Name: name, Target: target, PID: pid}, "")
	return func() { h.write(history.OpEnd, time.Now(), history.Fault{Name: name, Target: target, PID: pid}, "") }
}

// info writes down something without duration.
func (h *harm) info(name, target string, pid int, run string) {
	h.write(history.OpInfo, time.Now(), history.Fault{Name: name, Target: target, PID: pid}, run)
}

func (h *harm) write(op history.Op, at time.Time, f history.Fault, run string) {
	h.s.write(history.Entry{Time: at, Actor: "nemesis", Kind: history.KindFault, Op: op, ID: h.id, Run: run, Text: h.name, Fault: &f})
}

// between is a time by chance.
func (h *harm) between(from, to time.Duration) time.Duration {
	return from + time.Duration(h.rng.Int64N(int64(to-from)))
}

// nemesis does what is planned until ctx ends, and returns when all is undone
// that undoes itself. It counts what was done.
func (s *system) nemesis(ctx context.Context) map[string]int {
	var lanes sync.WaitGroup
	var mu sync.Mutex
	done, ids := map[string]int{}, int64(0)
	for _, l := range []lane{laneProcesses, laneBrokers, laneLinks, laneData} {
		lanes.Go(func() {
			for _, p := range s.o.plan(l) {
				if cluster.Sleep(ctx, p.after) != nil {
					return
				}
				mu.Lock()
				ids++
				h := &harm{s: s, rng: rand.New(rand.NewPCG(p.seed, 1)), name: p.name, id: ids}
				mu.Unlock()
				if err := p.do(ctx, h); err != nil {
					s.note("fault %s: %v", p.name, err)
					continue
				}
				mu.Lock()
				done[p.name]++
				mu.Unlock()
			}
		})
	}
	lanes.Wait()
	return done
}

// heal undoes whatever may be left, and starts what is down.
func (s *system) heal() error {
	for _, from := range s.routes {
		for _, l := range from {
			l.Heal()
		}
	}
	for _, sv := range s.all {
		for _, l := range sv.links {
			l.Heal()
		}
		if err := sv.wake(); err != nil {
			return err
		}
	}
	for _, n := range s.nodes {
		if err := wake(n); err != nil {
			return err
		}
		if err := n.Start(); err != nil {
			return err
		}
	}
	s.write(history.Entry{Kind: history.KindNote, Op: history.OpInfo, Note: history.NoteHealed})
	return nil
}
