package main

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// body is the size of job that every measurement carries.
var body = bytes.Repeat([]byte("x"), 512)

// Streams of the floor: a work queue for jobs, a log for states.
const (
	floorWork = "BENCH_WORK"
	floorLog  = "BENCH_LOG"
)

// floorStreams makes the floor's streams anew.
func (s *setup) floorStreams(ctx context.Context) error {
	for _, cfg := range []jetstream.StreamConfig{
		{Name: floorWork, Subjects: []string{"bench.work"}, Retention: jetstream.WorkQueuePolicy},
		{Name: floorLog, Subjects: []string{"bench.log.*"}},
	} {
		_ = s.js.DeleteStream(ctx, cfg.Name) // it may not be there
		if _, err := s.js.CreateStream(ctx, cfg); err != nil {
			return fmt.Errorf("make stream %s: %w", cfg.Name, err)
		}
	}
	return nil
}

// publish stores n messages, confirmed, asynchronously.
func (s *setup) publish(ctx context.Context, n int) (float64, error) {
	if err := s.floorStreams(ctx); err != nil {
		return 0, err
	}
	begun := time.Now()
	if err := s.fill(ctx, n); err != nil {
		return 0, err
	}
	return rate(n, begun), nil
}

func (s *setup) fill(ctx context.Context, n int) error {
	acks := make([]jetstream.PubAckFuture, 0, n)
	for range n {
		ack, err := s.js.PublishAsync("bench.work", body, jetstream.WithStallWait(10*time.Second))
		if err != nil {
			return err
		}
		acks = append(acks, ack)
	}
	return confirm(ctx, acks)
}

// confirm waits until all that was published is stored.
func confirm(ctx context.Context, acks []jetstream.PubAckFuture) error {
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// consume takes n messages that wait, and acks them.
func (s *setup) consume(ctx context.Context, n int) (float64, error) {
	if err := s.floorStreams(ctx); err != nil {
		return 0, err
	}
	if err := s.fill(ctx, n); err != nil {
		return 0, err
	}
	return s.work(ctx, n, 64, func(context.Context, jetstream.Msg) error { return nil })
}

// idealRun submits n jobs and executes them at the same time, each with four
// confirmed state messages before its ack.
func (s *setup) idealRun(ctx context.Context, n, concurrency int) (float64, error) {
	if err := s.floorStreams(ctx); err != nil {
		return 0, err
	}
	submitted := make(chan error, 1)
	go func() { submitted <- s.fill(ctx, n) }()
	got, err := s.work(ctx, n, concurrency, func(ctx context.Context, m jetstream.Msg) error {
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		subject := fmt.Sprintf("bench.log.%d", meta.Sequence.Stream)
		var acks [4]jetstream.PubAckFuture
		for i := range acks {
			if acks[i], err = s.worker.PublishAsync(subject, body, jetstream.WithStallWait(10*time.Second)); err != nil {
				return err
			}
		}
		return confirm(ctx, acks[:])
	})
	if err != nil {
		return 0, err
	}
	return got, <-submitted
}

// work executes n messages with the given concurrency and returns the rate.
func (s *setup) work(ctx context.Context, n, concurrency int, do func(context.Context, jetstream.Msg) error) (float64, error) {
	consumer, err := s.worker.CreateConsumer(ctx, floorWork, jetstream.ConsumerConfig{
		Durable: "w", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1,
	})
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	messages, err := consumer.Messages(jetstream.PullMaxMessages(4 * concurrency))
	if err != nil {
		return 0, err
	}
	defer messages.Stop()
	slots := make(chan struct{}, concurrency)
	failed := make(chan error, 1)
	var all sync.WaitGroup
	for range n {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return 0, err
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			err := do(ctx, m)
			if err == nil {
				err = m.Ack()
			}
			if err != nil {
				select {
				case failed <- err:
				default:
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		return 0, err
	default:
		return rate(n, begun), nil
	}
}

func rate(n int, begun time.Time) float64 { return float64(n) / time.Since(begun).Seconds() }
