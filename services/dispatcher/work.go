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

// workSubject is where a run waits for a worker. The log may have been written
// by a foreign worker, which left something out.
func workSubject(head contracts.Head) (string, error) {
	if contracts.CheckAgentKey(head.AgentKey) != nil || !head.Priority.Valid() {
		return "", fmt.Errorf("%w: event %d of run %s lacks its agent or priority", errMalformed, head.Seq, head.RunID)
	}
	return contracts.WorkSubject(head.AgentKey, head.Priority, head.RunID), nil
}

// workMessage is the message by which a run waits for a worker. data is its
// run.queued event; sequence is that event's in RUNS_LOG if it is the last one
// of the log, so that a worker can append run.started without a read, else 0.
func workMessage(head contracts.Head, data []byte, sequence uint64) (*nats.Msg, error) {
	subject, err := workSubject(head)
	if err != nil {
		return nil, err
	}
	m := &nats.Msg{Subject: subject, Data: data}
	if sequence != 0 {
		m.Header = nats.Header{contracts.HeaderLogSequence: {strconv.FormatUint(sequence, 10)}}
	}
	return m, nil
}

// putWork publishes the work message of a run whose log ends with last. One
// that is there already is no error: the run can be found by it.
func (d *Dispatcher) putWork(ctx context.Context, last runlog.Entry) error {
	m, _, err := d.workOf(ctx, last)
	if err != nil {
		return err
	}
	return jsutil.Ignoring(jsutil.ErrPresent, d.publish(ctx, m))
}

// workOf makes the work message of a run whose log ends with last. Follows is the
// run before it in its conversation, if it has no run.queued that says so.
func (d *Dispatcher) workOf(ctx context.Context, last runlog.Entry) (m *nats.Msg, follows string, err error) {
	queued, sequence := last.Event, last.Sequence
	if last.Type != contracts.TypeQueued {
		if queued, follows, err = d.queuedEvent(ctx, last.RunID); err != nil {
			return nil, "", fmt.Errorf("find run.queued of run %s: %w", last.RunID, err)
		}
		sequence = 0
	}
	data, err := contracts.Encode(queued)
	if err != nil {
		return nil, "", fmt.Errorf("encode the work message: %w", err)
	}
	m, err = workMessage(last.Head().Head, data, sequence)
	return m, follows, err
}

// queuedEvent finds the run.queued event of a run. It is the first event, or
// the one after run.scheduled; a run that was cancelled before its time and
// then redriven has none, and one is made of run.scheduled, with the run that it
// follows from now on.
func (d *Dispatcher) queuedEvent(ctx context.Context, runID string) (queued contracts.Event, follows string, err error) {
	var scheduled contracts.Event
	for e, err := range d.log.Read(ctx, runID, 1) {
		if err != nil || e.Type == contracts.TypeQueued {
			return e.Event, "", err
		}
		if e.Type != contracts.TypeScheduled {
			break
		}
		scheduled = e.Event
	}
	var p contracts.Scheduled
	if err := json.Unmarshal(scheduled.Payload, &p); err != nil {
		return contracts.Event{}, "", fmt.Errorf("decode run.scheduled: %w", err)
	}
	if follows, _, err = d.join(ctx, p.Submission); err == nil {
		queued, err = contracts.Next(contracts.Head{}, runID, queuedOf(p.Submission, p.SubmittedAt, follows), scheduled.Time)
	}
	return queued, follows, err
}

// restore makes the work message of a live run again if it is not there. The
// log says so first, once, if the run waits for a worker; that of a run which a
// worker holds is the holder's.
func (d *Dispatcher) restore(ctx context.Context, last runlog.Entry) error {
	subject, err := workSubject(last.Event.Head())
	if err != nil {
		return err
	}
	_, err = jsutil.GetFromLeader(ctx, d.nc, contracts.StreamWork, jsutil.GetRequest{LastFor: subject})
	if !errors.Is(err, jsutil.ErrNotFound) {
		return err // it is there, or nobody knows
	}
	d.logger.Warn("work message of a live run was lost, made again", "run_id", last.RunID, "status", last.Status, "attempt", last.Attempt)
	var q contracts.Queued
	if last.Type == contracts.TypeQueued && json.Unmarshal(last.Payload, &q) == nil && q.Submission.StartTimeoutSeconds > 0 {
		return d.offer(ctx, last, 0) // nothing is appended: its deadline counts only while run.queued is the last event
	}
	if p, ok := requeuedOf(last); last.Status == contracts.StatusPending && (!ok || p.Reason != contracts.RequeueWorkLost) {
		last, err = d.append(ctx, last.Head(), last.RunID, contracts.Draft{
			Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueWorkLost},
		})
		if err != nil {
			return err
		}
	}
	return d.putWork(ctx, last)
}

// removeWork removes the work message of a run that nobody held when it ended, and only
// one of the round that ended so: a redrive may be under way beside it, whose
// work message has the same subject. It appends before it publishes; so a
// message that was there before the log still ended so is an old one.
// Should one be left over, a worker drops it on seeing the log.
func (d *Dispatcher) removeWork(ctx context.Context, ended runlog.Head) error {
	subject, err := workSubject(ended.Head)
	if err != nil {
		return err
	}
	m, err := jsutil.GetFromLeader(ctx, d.nc, contracts.StreamWork, jsutil.GetRequest{LastFor: subject})
	if err != nil {
		return jsutil.Ignoring(jsutil.ErrNotFound, err)
	}
	now, err := d.log.LastFromLeader(ctx, ended.RunID)
	if err != nil || now.Sequence != ended.Sequence {
		return err
	}
	return jsutil.Delete(ctx, d.nc, contracts.StreamWork, m.Sequence)
}
