package main

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/internal/bench"
)

// smallJob is the size of the job that is measured unless something else is said.
const smallJob = 512

// sample is what one round of a measurement has shown.
type sample struct {
	PerSecond float64 `json:"per_second"`
	// CPU is in microseconds and Allocs in heap objects, for each run or message
	// and by kind of process. The client is the bench itself.
	CPU    map[string]float64 `json:"cpu_us,omitempty"`
	Allocs map[string]float64 `json:"allocs,omitempty"`
	// ProjectedAfter is how long after the last run was executed its status was stored.
	ProjectedAfter float64 `json:"projected_after_ms,omitempty"`

	latencies latencies // a line of the report has those of all rounds
}

// cpu is what all processes have spent.
func (s sample) cpu() (sum float64) {
	for _, us := range s.CPU {
		sum += us
	}
	return sum
}

// metered measures n of something.
func (s *stage) metered(ctx context.Context, n int, do func() error) (sample, error) {
	before, err := s.measure(ctx)
	if err != nil {
		return sample{}, err
	}
	begun := time.Now()
	if err := do(); err != nil {
		return sample{}, err
	}
	took := time.Since(begun)
	after, err := s.measure(ctx)
	if err != nil {
		return sample{}, err
	}
	cpu, allocs := after.since(before, n)
	return sample{PerSecond: bench.PerSecond(n, took), CPU: cpu, Allocs: allocs}, nil
}

// publishFloor stores n jobs.
func (s *stage) publishFloor(ctx context.Context, n int) (sample, error) {
	s.floor.PayloadBytes = smallJob
	if err := s.floor.Prepare(ctx, s.replicas, jetstream.FileStorage); err != nil {
		return sample{}, err
	}
	return s.metered(ctx, n, func() error { return s.floor.Publish(ctx, n) })
}

// consumeFloor has a worker process take n jobs that wait, and acknowledge them.
func (s *stage) consumeFloor(ctx context.Context, n int) (sample, error) {
	w, err := s.worker(ctx, 0)
	if err != nil {
		return sample{}, err
	}
	s.floor.PayloadBytes = smallJob
	if err := s.floor.Prepare(ctx, s.replicas, jetstream.FileStorage); err != nil {
		return sample{}, err
	}
	if err := s.floor.Publish(ctx, n); err != nil {
		return sample{}, err
	}
	return s.metered(ctx, n, func() error {
		_, err := w.tell(ctx, order{Do: "consume", N: n})
		return err
	})
}

// idealRuns submits n ideal runs, which a worker process executes meanwhile.
func (s *stage) idealRuns(ctx context.Context, n, concurrency, payload int) (sample, error) {
	return s.execute(ctx, order{Do: "execute", N: n, Concurrency: concurrency, Payload: payload})
}

func (s *stage) execute(ctx context.Context, o order) (sample, error) {
	w, err := s.worker(ctx, 0)
	if err != nil {
		return sample{}, err
	}
	s.floor.PayloadBytes = o.Payload
	if err := s.floor.Prepare(ctx, s.replicas, jetstream.FileStorage); err != nil {
		return sample{}, err
	}
	return s.metered(ctx, o.N, func() error {
		executed := make(chan error, 1)
		go func() {
			_, err := w.tell(ctx, o)
			executed <- err
		}()
		err := s.floor.Publish(ctx, o.N)
		if failed := <-executed; failed != nil {
			return failed
		}
		return err
	})
}

// runs submits n runs of ours, which the workers that host the agent execute
// meanwhile.
func (s *stage) runs(ctx context.Context, n int, job bench.Job, payload int) (sample, error) {
	before, err := s.load.Count(ctx)
	if err != nil {
		return sample{}, err
	}
	var executed time.Time
	var ended time.Time
	got, err := s.metered(ctx, n, func() (err error) {
		if err = s.load.Submit(ctx, n, job, payload); err != nil {
			return err
		}
		executed, err = s.load.Done(ctx, before, n)
		ended = time.Now()
		return err
	})
	if err != nil {
		return got, s.logs(err)
	}
	got.ProjectedAfter = float64(ended.Sub(executed).Microseconds()) / 1000
	return got, nil
}

// hosted is runs with n worker processes of some slots each.
func (s *stage) hosted(ctx context.Context, workers, slots, n int, job bench.Job, payload int) (sample, error) {
	if err := s.host(ctx, workers, slots); err != nil {
		return sample{}, err
	}
	return s.runs(ctx, n, job, payload)
}

// submitOnly submits n runs that nobody executes, until all are queued.
func (s *stage) submitOnly(ctx context.Context, n int) (sample, error) {
	if err := s.host(ctx, 0, 0); err != nil {
		return sample{}, err
	}
	got, err := s.metered(ctx, n, func() error {
		if err := s.load.Submit(ctx, n, bench.Job{}, smallJob); err != nil {
			return err
		}
		return s.load.Queued(ctx)
	})
	if err != nil {
		return got, s.logs(err)
	}
	return got, nil
}

// executeOnly has one worker process execute what submitOnly has left.
func (s *stage) executeOnly(ctx context.Context, n, slots int) (sample, error) {
	before, err := s.load.Count(ctx)
	if err != nil {
		return sample{}, err
	}
	got, err := s.metered(ctx, n, func() error {
		if err := s.host(ctx, 1, slots); err != nil {
			return err
		}
		_, err := s.load.Done(ctx, before, n)
		return err
	})
	if err != nil {
		return got, s.logs(err)
	}
	return got, nil
}
