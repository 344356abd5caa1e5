package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/test/cluster"
	"longhaul/test/torture/check"
	"longhaul/test/torture/history"
)

// suffer is load and faults, and what comes after them.
func (s *system) suffer(ctx context.Context) error {
	s.say("load and faults for %s", s.o.duration)
	during, cancel := context.WithTimeout(ctx, s.o.duration)
	defer cancel()
	wait, err := s.startLoad(during)
	if err != nil {
		cancel()
		wait()
		return err
	}
	var watching sync.WaitGroup
	watching.Go(func() { s.watch(during) })
	done := s.nemesis(during)
	wait()
	watching.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(done)) {
		words = append(words, fmt.Sprintf("%s %d", name, done[name]))
	}
	s.say("faults done: %s", strings.Join(words, ", "))
	if err := s.heal(); err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	return s.dump(ctx)
}

// watch tells how it goes, and writes down when the harness itself was held
// up: a machine that stands still is nobody's fault.
func (s *system) watch(ctx context.Context) {
	const look, stall, tell = 50 * time.Millisecond, 300 * time.Millisecond, 10 * time.Second
	told := time.Now()
	for before := time.Now(); cluster.Sleep(ctx, look) == nil; before = time.Now() {
		if late := time.Since(before) - look; late > stall {
			f := history.Fault{Name: history.FaultStall, Target: "harness"}
			s.write(history.Entry{Time: before, Actor: "watch", Kind: history.KindFault, Op: history.OpBegin, Fault: &f})
			s.write(history.Entry{Actor: "watch", Kind: history.KindFault, Op: history.OpEnd, Fault: &f})
		}
		if time.Since(told) >= tell {
			told = time.Now()
			all, live := s.book.counts()
			s.say("%d runs, %d of them live", all, live)
		}
	}
}

// settle waits until all runs have ended and all that was asked for is done,
// for no longer than is granted: what is open then is for the checker to say.
func (s *system) settle(ctx context.Context) error {
	begun := time.Now()
	probes, err := s.probe(ctx)
	if err != nil {
		return err
	}
	open := "nothing has been looked at"
	for open != "" && time.Since(begun) < s.o.settle {
		if err := cluster.Sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
		if open, err = s.open(ctx, probes); err != nil {
			open = err.Error()
		}
	}
	if open != "" {
		// Nothing is helped along: what is open now is for the checker to see.
		s.say("after %s: %s", s.o.settle, open)
		s.note("settle: after %s: %s", s.o.settle, open)
	} else {
		s.say("all has ended %.1f s after the faults", time.Since(begun).Seconds())
		if err := s.mendRecords(ctx); err != nil {
			return err
		}
	}
	s.write(history.Entry{Kind: history.KindNote, Op: history.OpInfo, Note: history.NoteEnd})
	return nil
}

// mendRecords asks for what a statekeeper does every ten minutes by itself:
// status records that were damaged by hand are written anew.
func (s *system) mendRecords(ctx context.Context) error {
	for begun := time.Now(); time.Since(begun) < s.o.settle; {
		did, err := s.client.Sweep(ctx, contracts.SweepRequest{})
		if err == nil && len(did.Statuses) == 0 {
			return nil
		}
		if err := cluster.Sleep(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
	s.note("status records are still being mended")
	return nil
}

// judge has the checker read what was written, and prints what it says.
func judge(w io.Writer, dir string) (bool, error) {
	in, err := check.Load(resultDir(dir))
	if err != nil {
		return false, err
	}
	report := check.Check(in)
	report.Print(w)
	return report.OK(), nil
}
