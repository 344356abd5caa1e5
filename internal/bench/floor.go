package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// The floor's streams: a work queue for jobs, a log for states.
	floorWork, floorLog  = "LONGHAUL_BENCH_WORK", "LONGHAUL_BENCH_LOG"
	floorJob, floorState = "longhaul.bench.work", "longhaul.bench.log."
	floorConsumer        = "worker"

	// stateBytes is the size of a state message, about that of run.started.
	stateBytes = 512
	// states of an ideal run, besides its job.
	states = 4
	// stall bounds the wait for room among the publishes under way.
	stall = 10 * time.Second
	// inFlight is how many publishes may be unconfirmed; the client library of
	// Longhaul has the same.
	inFlight = 512
)

// Floor does on streams of its own what no engine can do without. The submitter
// and the worker of an ideal run each have a Floor, on connections of their
// own, and may be in different processes. One goroutine uses it.
type Floor struct {
	js jetstream.JetStream
	// PayloadBytes is the size of a job, which the first state message repeats.
	PayloadBytes int
	// InTurn has Execute wait until a state is confirmed before it publishes the
	// next, as who decides by what is stored has to; else all are sent at once.
	InTurn bool
	// Began, if not nil, is told by Execute how long after its publish a job's
	// own work began. It is called from many goroutines.
	Began func(time.Duration)
}

// NewFloor returns a Floor on nc with jobs of 512 bytes.
func NewFloor(nc *nats.Conn) (*Floor, error) {
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(inFlight), jetstream.WithPublishAsyncTimeout(stall))
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	return &Floor{js: js, PayloadBytes: stateBytes}, nil
}

// Prepare makes the streams anew, and empty.
func (f *Floor) Prepare(ctx context.Context, replicas int, storage jetstream.StorageType) error {
	if err := f.Remove(ctx); err != nil {
		return err
	}
	for _, cfg := range []jetstream.StreamConfig{
		{Name: floorWork, Subjects: []string{floorJob}, Retention: jetstream.WorkQueuePolicy, Replicas: replicas, Storage: storage},
		{Name: floorLog, Subjects: []string{floorState + "*"}, Replicas: replicas, Storage: storage},
	} {
		if _, err := f.js.CreateStream(ctx, cfg); err != nil {
			return fmt.Errorf("make stream %s: %w", cfg.Name, err)
		}
	}
	_, err := f.js.CreateConsumer(ctx, floorWork, jetstream.ConsumerConfig{Durable: floorConsumer, AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1})
	if err != nil {
		return fmt.Errorf("make the consumer of %s: %w", floorWork, err)
	}
	return nil
}

// Remove removes the streams, if they are there.
func (f *Floor) Remove(ctx context.Context) error {
	for _, name := range []string{floorWork, floorLog} {
		if err := f.js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("remove stream %s: %w", name, err)
		}
	}
	return nil
}

// Publish stores n jobs, confirmed, as many at a time as the client library of
// Longhaul has under way.
func (f *Floor) Publish(ctx context.Context, n int) error {
	var window []jetstream.PubAckFuture
	for range n {
		// One for each, and the time in it, for the client library keeps it.
		body := binary.BigEndian.AppendUint64(make([]byte, 0, f.PayloadBytes), uint64(time.Now().UnixNano()))[:f.PayloadBytes]
		ack, err := f.js.PublishAsync(floorJob, body, jetstream.WithStallWait(stall))
		if err != nil {
			return fmt.Errorf("publish a job: %w", err)
		}
		if window = append(window, ack); len(window) < inFlight {
			continue
		}
		if err := confirm(ctx, window[:1]); err != nil {
			return err
		}
		window = window[1:]
	}
	return confirm(ctx, window)
}

// confirm waits until all that was published is stored.
func confirm(ctx context.Context, acks []jetstream.PubAckFuture) error {
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return fmt.Errorf("confirm a publish: %w", err)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Consume takes n jobs and acknowledges them.
func (f *Floor) Consume(ctx context.Context, n int) error {
	return f.work(ctx, n, 64, func(jetstream.Msg) error { return nil })
}

// Execute takes n jobs, concurrency at a time. For each it publishes four
// states, and acknowledges the job when all four are confirmed: an ideal run,
// together with the job's own publish. There must be no more than n, for some
// are asked for ahead.
func (f *Floor) Execute(ctx context.Context, n, concurrency int) error {
	accepted, state := make([]byte, f.PayloadBytes), make([]byte, stateBytes)
	return f.work(ctx, n, concurrency, func(m jetstream.Msg) error {
		if data := m.Data(); f.Began != nil && len(data) >= 8 {
			f.Began(time.Since(time.Unix(0, int64(binary.BigEndian.Uint64(data)))))
		}
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read a job's number: %w", err)
		}
		subject := floorState + strconv.FormatUint(meta.Sequence.Stream, 10)
		var acks [states]jetstream.PubAckFuture
		body := accepted
		for i := range acks {
			if acks[i], err = f.js.PublishAsync(subject, body, jetstream.WithStallWait(stall)); err != nil {
				return fmt.Errorf("publish a state: %w", err)
			}
			if body = state; !f.InTurn {
				continue
			}
			if err := confirm(ctx, acks[i:i+1]); err != nil {
				return err
			}
		}
		if f.InTurn {
			return nil
		}
		return confirm(ctx, acks[:])
	})
}

// work takes n jobs, with some asked for ahead, and acknowledges each after do.
func (f *Floor) work(ctx context.Context, n, concurrency int, do func(jetstream.Msg) error) error {
	consumer, err := f.js.Consumer(ctx, floorWork, floorConsumer)
	if err != nil {
		return fmt.Errorf("find the consumer of %s: %w", floorWork, err)
	}
	// Short, for a pull may get lost with a leader that changes.
	messages, err := consumer.Messages(jetstream.PullMaxMessages(4*concurrency), jetstream.PullExpiry(5*time.Second))
	if err != nil {
		return fmt.Errorf("take jobs: %w", err)
	}
	defer messages.Stop()
	jobs, failed := make(chan jetstream.Msg), make(chan error, concurrency)
	var workers sync.WaitGroup
	for range concurrency {
		workers.Go(func() {
			for m := range jobs {
				err := do(m)
				if err == nil {
					err = m.Ack()
				}
				if err != nil {
					failed <- err
					return
				}
			}
		})
	}
	err = feed(ctx, messages, n, jobs, failed)
	close(jobs)
	workers.Wait()
	select {
	case first := <-failed:
		return errors.Join(err, first)
	default:
		return err
	}
}

// feed hands n messages on, until one of those who work on them fails.
func feed(ctx context.Context, messages jetstream.MessagesContext, n int, jobs chan<- jetstream.Msg, failed chan error) error {
	for range n {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("take a job: %w", err)
		}
		select {
		case jobs <- m:
		case err := <-failed:
			return err
		}
	}
	return nil
}
