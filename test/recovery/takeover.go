package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/test/cluster"
)

// takeover kills workers in the midst of a run, one at a time. What counts is
// the time until the agent's code runs elsewhere, which its first new
// checkpoint proves: a pause of 20 ms and two writes after the start.
func takeover(ctx context.Context, s *stage, o options, res *result) error {
	var t takeovers
	if o.short {
		if err := t.byYoung(ctx, s, 2, res); err != nil {
			return err
		}
		res.times("kill → first new checkpoint, by a young connection", t.resumed, 5*time.Second)
		return nil
	}
	if err := t.byOld(ctx, s, o.tries, res); err != nil {
		return err
	}
	res.times("kill → run.started elsewhere", t.started, 2*time.Second)
	res.times("kill → its first new checkpoint", t.resumed, 2*time.Second)
	t = takeovers{}
	if err := t.byYoung(ctx, s, max(1, o.tries/5), res); err != nil {
		return err
	}
	// A worker that is connected for less than 10 s asks for a second longer.
	res.times("by a worker connected a moment ago: → run.started", t.started, 0)
	res.times("by a worker connected a moment ago: → checkpoint", t.resumed, 0)
	return nil
}

// takeovers collects times since the kill.
type takeovers struct{ started, resumed []time.Duration }

// slow is from when on a try is told of by itself.
const slow = 1800 * time.Millisecond

// batch is how many workers are killed of one set. They wait together until
// their connections are old.
const batch = 10

// byOld has workers take over whose connections are old enough to be believed.
func (t *takeovers) byOld(ctx context.Context, s *stage, tries int, res *result) error {
	for set := 1; tries > 0; set++ {
		n := min(batch, tries)
		tries -= n
		workers, err := s.startWorkers(ctx, names(fmt.Sprintf("old-%d", set), n+1), "--agent", "count")
		if err != nil {
			return err
		}
		if err := cluster.Sleep(ctx, young); err != nil {
			return err
		}
		for range n {
			id, err := s.begin(ctx, 60)
			if err != nil {
				return err
			}
			if err := t.killHolder(ctx, s, id, 60, workers, res); err != nil {
				return err
			}
		}
		for _, p := range workers {
			if err := p.Terminate(upTime); err != nil {
				return err
			}
		}
	}
	return nil
}

// byYoung has a worker take over that has just come.
func (t *takeovers) byYoung(ctx context.Context, s *stage, tries int, res *result) error {
	workers, err := s.startWorkers(ctx, []string{"young-0"}, "--agent", "count")
	if err != nil {
		return err
	}
	for i := range tries {
		id, err := s.begin(ctx, 150)
		if err != nil {
			return err
		}
		next := fmt.Sprintf("young-%d", i+1)
		more, err := s.startWorkers(ctx, []string{next}, "--agent", "count")
		if err != nil {
			return err
		}
		workers[next] = more[next]
		if err := t.killHolder(ctx, s, id, 150, workers, res); err != nil {
			return err
		}
	}
	return nil
}

// begin submits a run that counts to n, and waits until it is somewhere within
// its first third: the pings of the watchdog must not fall into step with us.
func (s *stage) begin(ctx context.Context, n int) (string, error) {
	id, err := s.client.Submit(ctx, runOf("count", fmt.Sprintf(`{"n": %d, "pause_ms": 20}`, n)))
	if err != nil {
		return "", err
	}
	until := 1 + rand.N(n/3)
	return id, cluster.WaitFor(ctx, upTime, "the run to be under way", func() bool {
		at := s.seen.head(id).Checkpoint
		return at != nil && at.N >= uint64(until)
	})
}

// killHolder kills the worker that has the run and waits for the run's end elsewhere.
func (t *takeovers) killHolder(ctx context.Context, s *stage, id string, n int, workers map[string]*cluster.Process, res *result) error {
	holder := s.seen.head(id).WorkerID
	p := workers[holder]
	if p == nil {
		return fmt.Errorf("run %s is held by %q, which is none of ours", id, holder)
	}
	delete(workers, holder)
	killed := time.Now()
	if err := p.Kill(); err != nil {
		return err
	}
	if err := s.awaitEnd(ctx, time.Minute, []string{id}); err != nil {
		return err
	}
	events := s.seen.events(id)
	started, ok := find(events, is(contracts.TypeStarted, 2))
	if !ok {
		return fmt.Errorf("run %s ended before its worker %s was killed", id, holder)
	}
	resumed, ok := find(events, is(contracts.TypeCheckpoint, 2))
	head := s.seen.head(id)
	if !ok || started.WorkerID == holder || head.Epoch != 2 || head.Attempt != 2 || head.Status != contracts.StatusSucceeded {
		res.Faults = append(res.Faults, fmt.Sprintf("run %s of %s was taken by %s and ended as %s in epoch %d, attempt %d",
			id, holder, started.WorkerID, head.Status, head.Epoch, head.Attempt))
	}
	if err := checkCount(events, n); err != nil {
		res.Faults = append(res.Faults, fmt.Sprintf("run %s: %v", id, err))
	}
	if after := resumed.At.Sub(killed); after > slow {
		res.note("run %s of %s, killed at %s, by %s: started after %s, checkpoint after %s; the broker's slowest answer meanwhile took %s",
			id, holder, killed.UTC().Format(time.TimeOnly), started.WorkerID, started.At.Sub(killed).Round(time.Millisecond),
			after.Round(time.Millisecond), s.noise.slowest(killed, resumed.At).Round(time.Millisecond))
	}
	t.started = append(t.started, started.At.Sub(killed))
	t.resumed = append(t.resumed, resumed.At.Sub(killed))
	return nil
}
