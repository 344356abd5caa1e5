package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/test/cluster"
)

// schedules measures runs that are to start later: how late they are begun,
// what a lost broker and a killed dispatcher make of them, and what a great
// many that wait cost the broker and those that do not wait.
func schedules(ctx context.Context, s *stage, o options, res *result) error {
	waiting, fresh, rounds, late, lateAfter, ratio := 100_000, 5_000, 7, 100*time.Millisecond, time.Second, 0.9
	if o.short {
		waiting, fresh, rounds, late, lateAfter, ratio = 2000, 500, 3, time.Second, 5*time.Second, 0.4
	}
	if _, err := s.startWorkers(ctx, []string{"flaky"}, "--agent", "flaky", "--concurrency", "64"); err != nil {
		return err
	}
	lateness, err := s.punctual(ctx, 50, 1500*time.Millisecond, 3*time.Second, nil)
	if err != nil {
		return err
	}
	res.times("not_before → run.started seen, 50 runs over 3 s", lateness, late)
	lateness, err = s.punctual(ctx, 20, 8*time.Second, time.Second, s.loseBrokerAndDispatcher)
	if err != nil {
		return err
	}
	res.times("the same; broker and dispatcher were killed meanwhile", lateness, lateAfter)

	other, err := newStage(ctx, s.binary, s.level, 1)
	defer func() {
		other.stop()
		res.Faults = append(res.Faults, other.seen.faultList()...)
		other.remove()
	}()
	if err != nil {
		return err
	}
	if _, err := other.startWorkers(ctx, []string{"flaky"}, "--agent", "flaky", "--concurrency", "64"); err != nil {
		return err
	}
	kind := runOf("flaky", `{"fail_times": 0}`)
	kind.NotBefore = time.Now().Add(24 * time.Hour)
	before, begun := s.seen.count(contracts.TypeScheduled), time.Now()
	ids, err := s.submitAll(ctx, waiting, kind)
	if err != nil {
		return err
	}
	if err := cluster.WaitFor(ctx, 10*time.Minute, fmt.Sprintf("%d runs to be scheduled", waiting), func() bool {
		return s.seen.count(contracts.TypeScheduled) >= before+waiting
	}); err != nil {
		return err
	}
	res.shown("delayed runs accepted per second", float64(waiting)/time.Since(begun).Seconds())
	during, err := compare(ctx, s, other, fresh, rounds)
	if err != nil {
		return err
	}
	res.exactly("runs that wait, to the end", s.seen.having(ids, func(h contracts.Head) bool { return h.Status == contracts.StatusScheduled }), waiting)
	res.shown("fresh runs per second, none waiting", median(during.other))
	res.shown("fresh runs per second beside those that wait", median(during.crowded))
	res.atLeast("ratio, median of the rounds", median(during.ratios), ratio)
	with, err := resident(s.broker.Process)
	if err != nil {
		return err
	}
	without, err := resident(other.broker.Process)
	if err != nil {
		return err
	}
	// Both have seen the same fresh runs; the first has stored the waiting ones
	// in its log, their statuses and their schedules.
	res.shown("resident memory of the broker with them, MiB", with/1024)
	res.shown("resident memory of the broker without, MiB", without/1024)
	res.shown("resident memory for each that waits, KiB", (with-without)/float64(waiting))
	if !o.short {
		res.atLeast("8 KiB for each, less what it takes", 8-(with-without)/float64(waiting), 0)
	}
	return nil
}

// punctual submits n runs that are to start at times spread over a span that
// begins after some time, and returns how late each was begun. That none is
// queued before its time is held by the ledger: Apply compares the two.
func (s *stage) punctual(ctx context.Context, n int, after, span time.Duration, meanwhile func(context.Context) error) ([]time.Duration, error) {
	first := time.Now().Add(after)
	due := map[string]time.Time{}
	for i := range n {
		kind := runOf("flaky", `{"fail_times": 0}`)
		kind.NotBefore = first.Add(span * time.Duration(i) / time.Duration(n))
		id, err := s.client.Submit(ctx, kind)
		if err != nil {
			return nil, err
		}
		due[id] = kind.NotBefore
	}
	if meanwhile != nil {
		if err := meanwhile(ctx); err != nil {
			return nil, err
		}
	}
	var late []time.Duration
	for id, at := range due {
		if err := s.awaitEnd(ctx, after+span+time.Minute, []string{id}); err != nil {
			return nil, err
		}
		for _, e := range s.seen.events(id) {
			if e.Type == contracts.TypeStarted {
				if e.At.Before(at) {
					return nil, fmt.Errorf("run %s was begun %s before its time", id, at.Sub(e.At))
				}
				late = append(late, e.At.Sub(at))
			}
		}
	}
	if len(late) != n {
		return nil, fmt.Errorf("%d runs were begun %d times", n, len(late))
	}
	return late, nil
}

// loseBrokerAndDispatcher kills both, and starts both again.
func (s *stage) loseBrokerAndDispatcher(ctx context.Context) error {
	for _, p := range append(s.others[:1:1], s.broker.Process) { // the dispatcher was started first
		if err := p.Kill(); err != nil {
			return err
		}
	}
	if err := s.startBroker(); err != nil {
		return fmt.Errorf("start the broker again: %w", err)
	}
	_, err := s.start("dispatcher-2", "dispatcher")
	return err
}

// resident is the process's resident memory in KiB.
func resident(p *cluster.Process) (kib float64, err error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, fmt.Errorf("memory of %s: %w", p.Name, err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return 0, fmt.Errorf("memory of %s: %w", p.Name, err)
	}
	return kib, nil
}
