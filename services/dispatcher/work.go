package dispatcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// workMessage is the message by which a run waits for a worker. data is its
// run.queued event; sequence is that event's in RUNS_LOG if it is the last one
// of the log, so that a worker can append run.started without a read, else 0.
func workMessage(head contracts.Head, data []byte, sequence uint64) *nats.Msg {
	m := &nats.Msg{Subject: contracts.WorkSubject(head.AgentKey, head.Priority, head.RunID), Data: data}
	if sequence != 0 {
		m.Header = nats.Header{contracts.HeaderLogSequence: {strconv.FormatUint(sequence, 10)}}
	}
	return m
}

// postWork publishes the work message of a run whose run.queued event has just
// been appended at head; data is that event. ErrPresent is no error: somebody
// else has taken the same message up and was quicker.
func (h handler) postWork(ctx context.Context, head runlog.Head, data []byte) error {
	return h.putWork(ctx, workMessage(head.Head, data, head.Sequence))
}

func (h handler) putWork(ctx context.Context, m *nats.Msg) error {
	if err := h.broker.publish(ctx, m); !errors.Is(err, jsutil.ErrPresent) {
		return err
	}
	return nil
}

// repost publishes the work message of a pending run again, whatever made it
// pending. One that is there already is no error: the run can be found by it.
func (h handler) repost(ctx context.Context, last runlog.Entry) error {
	m, err := h.workOf(ctx, last)
	if err != nil {
		return err
	}
	return h.putWork(ctx, m)
}

// workOf makes the work message of a run whose log ends with last.
func (h handler) workOf(ctx context.Context, last runlog.Entry) (*nats.Msg, error) {
	head := last.Head().Head
	if last.Type == contracts.TypeQueued {
		data, err := contracts.Encode(last.Event)
		if err != nil {
			return nil, fmt.Errorf("encode the work message: %w", err)
		}
		return workMessage(head, data, last.Sequence), nil
	}
	queued, err := h.queuedEvent(ctx, last.RunID)
	if err != nil {
		return nil, err
	}
	data, err := contracts.Encode(queued)
	if err != nil {
		return nil, fmt.Errorf("encode the work message: %w", err)
	}
	return workMessage(head, data, 0), nil
}

// queuedEvent finds the run.queued event of a run. It is the first event, or
// the one after run.scheduled; a run that was cancelled before its time and
// then redriven has none, and one is made of run.scheduled.
func (h handler) queuedEvent(ctx context.Context, runID string) (contracts.Event, error) {
	var scheduled contracts.Event
	for e, err := range h.log.Read(ctx, runID, 1) {
		switch {
		case err != nil:
			return contracts.Event{}, fmt.Errorf("find run.queued: %w", err)
		case e.Type == contracts.TypeQueued:
			return e.Event, nil
		case e.Type == contracts.TypeScheduled:
			scheduled = e.Event
		case scheduled.Seq != 0:
			return queuedOf(scheduled)
		default:
			return contracts.Event{}, fmt.Errorf("find run.queued: run %s begins with %s", runID, e.Type)
		}
	}
	return contracts.Event{}, fmt.Errorf("find run.queued: %w: run %s ends before it", jsutil.ErrNotFound, runID)
}

// queuedOf makes the run.queued event that a run would have had without its not_before.
func queuedOf(scheduled contracts.Event) (contracts.Event, error) {
	var p contracts.Scheduled
	if err := json.Unmarshal(scheduled.Payload, &p); err != nil {
		return contracts.Event{}, fmt.Errorf("decode run.scheduled of run %s: %w", scheduled.RunID, err)
	}
	e, err := contracts.Next(contracts.Head{}, scheduled.RunID, contracts.Draft{
		Type: contracts.TypeQueued, AgentKey: scheduled.AgentKey, Priority: scheduled.Priority, MaxAttempts: scheduled.MaxAttempts,
		Payload: contracts.Queued{Submission: p.Submission, SubmittedAt: p.SubmittedAt},
	}, scheduled.Time)
	if err != nil {
		return contracts.Event{}, fmt.Errorf("queue scheduled run %s: %w", scheduled.RunID, err)
	}
	return e, nil
}

// removeWork removes the work message of a run that was cancelled, and only
// one of the round that ended so: a redrive may be under way beside it, whose
// work message has the same subject. It appends before it publishes; so a
// message that was there before the log still ended with the cancel is an old one.
// Should one be left over, a worker drops it on seeing the log.
func (h handler) removeWork(ctx context.Context, cancelled runlog.Head) error {
	subject := contracts.WorkSubject(cancelled.AgentKey, cancelled.Priority, cancelled.RunID)
	m, err := h.broker.last(ctx, contracts.StreamWork, subject)
	if errors.Is(err, jsutil.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	now, err := h.log.LastFromLeader(ctx, cancelled.RunID)
	if err != nil || now.Sequence != cancelled.Sequence {
		return err
	}
	return h.broker.remove(ctx, contracts.StreamWork, m.Sequence)
}
