package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/internal/bench"
	"longhaul/pkg/contracts"
)

// seedBatch is how many runs are written at a time.
const seedBatch = 4096

// seed writes the logs of n runs as dispatcher and worker would have: of runs
// that have ended, or of such as wait, with their work messages. It is many
// times as fast as to have them executed. The statuses are statekeeper's.
func (s *stage) seed(ctx context.Context, n int, ended bool) error {
	js, err := jetstream.New(s.watching, jetstream.WithPublishAsyncMaxPending(seedBatch))
	if err != nil {
		return err
	}
	sub, err := bench.Submission(agentKey, bench.Job{}, smallJob)
	if err != nil {
		return err
	}
	for n > 0 {
		batch := make([]*seeded, min(n, seedBatch))
		for i := range batch {
			sub.RunID = contracts.NewRunID()
			batch[i] = &seeded{sub: sub}
		}
		if err := writeBatch(ctx, js, batch, ended); err != nil {
			return fmt.Errorf("write runs: %w", err)
		}
		n -= len(batch)
	}
	return nil
}

// seeded is a run that is being written.
type seeded struct {
	sub    contracts.Submission
	head   contracts.Head
	queued []byte // the event
	ack    jetstream.PubAckFuture
}

// writeBatch writes one event of every run after the other, so that the acks
// need not be waited for in between: one connection keeps their order.
func writeBatch(ctx context.Context, js jetstream.JetStream, batch []*seeded, ended bool) error {
	drafts := []func(*seeded) contracts.Draft{func(r *seeded) contracts.Draft {
		return contracts.Draft{Type: contracts.TypeQueued, AgentKey: agentKey, Priority: contracts.PriorityNormal, MaxAttempts: contracts.DefaultMaxAttempts,
			Payload: contracts.Queued{Submission: r.sub, SubmittedAt: time.Now().UTC()}}
	}}
	if ended {
		drafts = append(drafts, func(*seeded) contracts.Draft {
			return contracts.Draft{Type: contracts.TypeStarted, WorkerID: "w-seed", Payload: contracts.Started{AgentKey: agentKey, Epoch: 1, Attempt: 1}}
		}, func(*seeded) contracts.Draft {
			return contracts.Draft{Type: contracts.TypeSucceeded, Payload: contracts.Succeeded{FinalOutput: []byte(`"done"`)}}
		})
	}
	for i, draft := range drafts {
		for _, r := range batch {
			event, err := contracts.Next(r.head, r.sub.RunID, draft(r), time.Now())
			if err != nil {
				return err
			}
			r.head = event.Head()
			data, err := contracts.Encode(event)
			if err != nil {
				return err
			}
			if i == 0 {
				r.queued = data
			}
			if r.ack, err = js.PublishAsync(contracts.LogSubject(r.sub.RunID), data, jetstream.WithStallWait(time.Minute)); err != nil {
				return err
			}
		}
	}
	for _, r := range batch {
		sequence, err := stored(ctx, r.ack)
		if err != nil || ended {
			if err != nil {
				return err
			}
			continue
		}
		r.ack, err = js.PublishMsgAsync(&nats.Msg{Subject: contracts.WorkSubject(agentKey, contracts.PriorityNormal, r.sub.RunID),
			Header: nats.Header{contracts.HeaderLogSequence: {strconv.FormatUint(sequence, 10)}}, Data: r.queued}, jetstream.WithStallWait(time.Minute))
		if err != nil {
			return err
		}
	}
	if ended {
		return nil
	}
	for _, r := range batch {
		if _, err := stored(ctx, r.ack); err != nil {
			return err
		}
	}
	return nil
}

func stored(ctx context.Context, ack jetstream.PubAckFuture) (sequence uint64, err error) {
	select {
	case a := <-ack.Ok():
		return a.Sequence, nil
	case err := <-ack.Err():
		return 0, err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}
