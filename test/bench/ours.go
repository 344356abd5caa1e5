package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
)

// endToEnd submits n runs while they are executed, and waits until each has
// been seen to end.
func (s *setup) endToEnd(ctx context.Context, n int) (float64, error) {
	events, stop, err := s.watch()
	if err != nil {
		return 0, err
	}
	defer stop()
	begun := time.Now()
	submitted := make(chan error, 1)
	go func() { submitted <- s.submitAll(ctx, n) }()
	for ended := 0; ended < n; {
		e, err := next(ctx, events)
		if err != nil {
			return 0, fmt.Errorf("after %d of %d runs: %w", ended, n, err)
		}
		if e.Type.Terminal() {
			if e.Type != contracts.TypeSucceeded {
				return 0, fmt.Errorf("run %s ended with %s %s", e.RunID, e.Type, e.Payload)
			}
			ended++
		}
	}
	return rate(n, begun), <-submitted
}

// submitAll publishes n submissions, asynchronously and confirmed, as any client may.
func (s *setup) submitAll(ctx context.Context, n int) error {
	acks := make([]jetstream.PubAckFuture, 0, n)
	for range n {
		data, err := contracts.Encode(submission())
		if err != nil {
			return err
		}
		ack, err := s.js.PublishAsync(contracts.SubjectSubmit, data, jetstream.WithStallWait(10*time.Second))
		if err != nil {
			return err
		}
		acks = append(acks, ack)
	}
	return confirm(ctx, acks)
}

// oneByOne submits n runs, each when the one before has ended, and notes when
// a subscriber sees them start and end.
func (s *setup) oneByOne(ctx context.Context, n int, lat *latencies) error {
	events, stop, err := s.watch()
	if err != nil {
		return err
	}
	defer stop()
	for range n {
		sub := submission()
		sub.RunID = contracts.NewRunID()
		data, err := contracts.Encode(sub)
		if err != nil {
			return err
		}
		begun := time.Now()
		if _, err := s.js.PublishAsync(contracts.SubjectSubmit, data); err != nil {
			return err
		}
		for ended := false; !ended; {
			e, err := next(ctx, events)
			if err != nil {
				return err
			}
			if e.RunID != sub.RunID {
				continue
			}
			switch {
			case e.Type == contracts.TypeStarted:
				lat.start = append(lat.start, time.Since(begun))
			case e.Type.Terminal():
				lat.finish = append(lat.finish, time.Since(begun))
				ended = true
			}
		}
	}
	return nil
}

// head is what is decoded of an event: decoding all of it would measure us.
type head struct {
	RunID   string              `json:"run_id"`
	Type    contracts.EventType `json:"type"`
	Payload json.RawMessage     `json:"payload"`
}

// watch subscribes to all events.
func (s *setup) watch() (events chan *nats.Msg, stop func(), err error) {
	events = make(chan *nats.Msg, 1<<20)
	sub, err := s.nc.ChanSubscribe(contracts.SubjectAllEvents, events)
	if err != nil {
		return nil, nil, err
	}
	if err := s.nc.Flush(); err != nil {
		return nil, nil, err
	}
	return events, func() { _ = sub.Unsubscribe() }, nil
}

// next waits for an event; half a minute without any is an error.
func next(ctx context.Context, events <-chan *nats.Msg) (head, error) {
	select {
	case m := <-events:
		var e head
		err := json.Unmarshal(m.Data, &e)
		return e, err
	case <-time.After(30 * time.Second):
		return head{}, fmt.Errorf("no event for 30 s")
	case <-ctx.Done():
		return head{}, ctx.Err()
	}
}
