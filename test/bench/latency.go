package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/internal/bench"
	"longhaul/pkg/contracts"
	"longhaul/test/cluster"
)

// What latencies are of.
const (
	toBegin    = "submit → code begins"
	toEnd      = "submit → end seen by a follower"
	toFollower = "delta → follower"
)

const (
	// deltaPause is between two deltas of a run, loadTime how long half load
	// lasts in each round.
	deltaPause = 4 * time.Millisecond
	loadTime   = 6 * time.Second
	// followEvery is of how many runs under half load one is followed: a client
	// that follows them all would be most of the load.
	followEvery = 8
)

// latencies are histograms by what they are of.
type latencies map[string]*bench.Latencies

func (l latencies) of(what string) *bench.Latencies {
	if l[what] == nil {
		l[what] = bench.NewLatencies()
	}
	return l[what]
}

// add adds all of other.
func (l latencies) add(other latencies) error {
	for what, h := range other {
		taken, err := h.Take()
		if err == nil {
			err = l.of(what).Add(taken)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// began takes from all workers how long it took until jobs began.
func (s *stage) began(ctx context.Context) (*bench.Latencies, error) {
	all := bench.NewLatencies()
	for _, w := range s.workers {
		a, err := w.tell(ctx, order{Do: "began"})
		if err == nil {
			err = all.Add(a.Began)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// rawAtRest publishes n jobs to a plain work queue, one at a time.
func (s *stage) rawAtRest(ctx context.Context, n int) (sample, error) {
	if err := s.floor.Prepare(ctx, s.replicas, jetstream.FileStorage); err != nil {
		return sample{}, err
	}
	if _, err := s.began(ctx); err != nil { // what was before
		return sample{}, err
	}
	executed := make(chan error, 1)
	go func() {
		_, err := s.workers[0].tell(ctx, order{Do: "execute", N: n, Concurrency: 64, Payload: smallJob})
		executed <- err
	}()
	if err := cluster.Sleep(ctx, time.Second); err != nil { // it has to ask for jobs first
		return sample{}, err
	}
	for range n {
		if err := errors.Join(s.floor.Publish(ctx, 1), bench.Rest(ctx)); err != nil {
			return sample{}, err
		}
	}
	if err := <-executed; err != nil {
		return sample{}, err
	}
	h, err := s.began(ctx)
	return sample{latencies: latencies{toBegin: h}}, err
}

// atRest submits n runs, each when the one before has ended, and has a run write deltas.
func (s *stage) atRest(ctx context.Context, n int) (sample, error) {
	if err := s.host(ctx, 1, 64); err != nil {
		return sample{}, err
	}
	if _, err := s.began(ctx); err != nil {
		return sample{}, err
	}
	found := latencies{}
	for range n {
		if err := s.followedRun(ctx, bench.Job{}, found); err != nil {
			return sample{}, s.logs(err)
		}
		if err := bench.Rest(ctx); err != nil {
			return sample{}, err
		}
	}
	h, err := s.began(ctx)
	if err != nil {
		return sample{}, err
	}
	found[toBegin] = h
	return sample{latencies: found}, s.followedRun(ctx, deltas(n), found)
}

// deltas is a job that writes n of them.
func deltas(n int) bench.Job { return bench.Job{Deltas: n, PauseMS: deltaPause.Milliseconds()} }

// followedRun submits a run, with the time, and follows it to its end.
func (s *stage) followedRun(ctx context.Context, job bench.Job, found latencies) error {
	return s.load.Trace(ctx, s.watch.Client, job, found.of(toEnd), found.of(toFollower))
}

// halfLoad submits at half the rate that a short round of n runs has shown,
// evenly spread, whatever becomes of them.
func (s *stage) halfLoad(ctx context.Context, n int) (sample, error) {
	full, err := s.hosted(ctx, 1, 64, n, bench.Job{}, smallJob)
	if err != nil {
		return full, err
	}
	rate := full.PerSecond / 2
	n = int(rate * loadTime.Seconds())
	before, err := s.load.Count(ctx)
	if err != nil {
		return full, err
	}
	if _, err := s.began(ctx); err != nil {
		return full, err
	}
	found := latencies{toEnd: bench.NewLatencies(), toFollower: bench.NewLatencies()}
	streamed := make(chan error, 1)
	go func() {
		streamed <- s.followedRun(ctx, deltas(int(loadTime/deltaPause/2)), found)
	}()
	got, err := s.metered(ctx, n, func() error { return s.paced(ctx, n, rate, found.of(toEnd)) })
	if err = errors.Join(err, <-streamed); err != nil {
		return got, s.logs(err)
	}
	if _, err := s.load.Done(ctx, before, n+1); err != nil {
		return got, s.logs(err)
	}
	got.latencies = found
	found[toBegin], err = s.began(ctx)
	return got, err
}

// paced submits n runs at a rate, and follows some of them to their end.
func (s *stage) paced(ctx context.Context, n int, rate float64, toEnd *bench.Latencies) error {
	ctx, cancel := context.WithTimeout(ctx, roundTime)
	defer cancel()
	var following sync.WaitGroup
	failed := make(chan error, 2*n)
	fail := func(err error) {
		if err != nil {
			failed <- err
		}
	}
	begun := time.Now()
	for i := range n {
		if err := cluster.Sleep(ctx, time.Until(begun.Add(time.Duration(float64(i)/rate*float64(time.Second))))); err != nil {
			return err
		}
		job := bench.Job{Sent: time.Now().UnixNano()}
		sub, err := bench.Submission(agentKey, job, smallJob)
		if err != nil {
			return err
		}
		sub.RunID = contracts.NewRunID()
		if i%followEvery == 0 {
			following.Go(func() {
				outcome, err := s.watch.Client.Wait(ctx, sub.RunID)
				toEnd.Record(time.Since(time.Unix(0, job.Sent)))
				fail(errors.Join(err, outcome.Err()))
			})
		}
		following.Go(func() {
			_, err := s.load.Client.Submit(ctx, sub)
			fail(err)
		})
	}
	following.Wait()
	close(failed)
	return <-failed // the first, nil if there is none
}
