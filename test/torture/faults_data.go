package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/test/torture/history"
)

// dataFaults harm what is stored, and pretend to be somebody else.
func dataFaults() []fault {
	return []fault{
		{name: "forged-ack", lane: laneData, weight: 5, do: forgedAck},
		{name: "false-alarm", lane: laneData, weight: 2, do: falseAlarm},
		{name: "delete-work", lane: laneData, weight: 3, do: deleting(contracts.StreamWork, (*harm).remove)},
		{name: "purge-work", lane: laneData, weight: 1, do: deleting(contracts.StreamWork, (*harm).purge)},
		{name: "delete-schedule", lane: laneData, weight: 2, do: deleting(contracts.StreamSchedule, (*harm).remove)},
		{name: "delete-status", lane: laneData, weight: 2, do: deleteStatus},
		{name: "corrupt-status", lane: laneData, weight: 2, do: corruptStatus},
	}
}

var errNoTarget = errors.New("no run is at hand")

// What a run can lose. A run that loses both, its work and the record by which
// a sweeper would miss it, waits for an audit, up to ten minutes: that is
// stated, and longer than anybody waits here. So each run loses one kind alone.
const (
	losesWork   = "work"
	losesRecord = "record"
)

// run returns one by chance that suits and may lose something of this kind,
// and notes that it does.
func (h *harm) run(loses string, suits func(contracts.Head) bool) (head contracts.Head, token string, err error) {
	head, token, ok := h.s.book.any(h.rng, func(r contracts.Head) bool {
		has, any := h.s.losses.Load(r.RunID)
		return suits(r) && (!any || has == loses)
	})
	if !ok {
		return head, token, errNoTarget
	}
	h.s.losses.Store(head.RunID, loses)
	return head, token, nil
}

// forgedAck answers a lease that is somebody else's, or was somebody's once.
func forgedAck(_ context.Context, h *harm) error {
	suits := heldRun
	if h.rng.IntN(3) == 0 {
		suits = begun
	}
	head, token, err := h.run(losesWork, suits)
	if err != nil {
		return err
	}
	answers := []string{"+ACK", "-NAK", "+TERM", "+WPI", `-NAK {"delay":2000000000}`}
	answer := answers[h.rng.IntN(len(answers))]
	h.info(history.FaultForgedAck, answer, 0, head.RunID)
	return h.s.nc.Publish(token, []byte(answer))
}

// deleting takes away what a live run waits with, or is held by.
func deleting(stream string, how func(h *harm, ctx context.Context, stream, subject, run string) error) func(context.Context, *harm) error {
	return func(ctx context.Context, h *harm) error {
		head, _, err := h.run(losesWork, func(h contracts.Head) bool {
			return alive(h) && (h.Status == contracts.StatusScheduled) == (stream == contracts.StreamSchedule)
		})
		if err != nil {
			return err
		}
		subject := contracts.ScheduleAtSubject(head.RunID)
		if stream == contracts.StreamWork {
			subject = contracts.WorkSubject(head.AgentKey, head.Priority, head.RunID)
		}
		return how(h, ctx, stream, subject, head.RunID)
	}
}

func deleteStatus(ctx context.Context, h *harm) error {
	head, _, err := h.run(losesRecord, anyRun)
	if err != nil {
		return err
	}
	return h.purge(ctx, contracts.StreamRuns, contracts.KVSubject(contracts.BucketRuns, contracts.StatusKey(head.RunID)), head.RunID)
}

func corruptStatus(ctx context.Context, h *harm) error {
	head, _, err := h.run(losesRecord, anyRun)
	if err != nil {
		return err
	}
	values := []string{"", "garbage", `{"run_id":"` + head.RunID + `","status":"running"}`, "[]"}
	subject := contracts.KVSubject(contracts.BucketRuns, contracts.StatusKey(head.RunID))
	h.info(h.name, subject, 0, head.RunID)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, err = h.s.js.Publish(ctx, subject, []byte(values[h.rng.IntN(len(values))]))
	return err
}

// remove deletes the one message on a subject, as `nats stream rmm` would.
func (h *harm) remove(ctx context.Context, stream, subject, run string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	st, err := h.s.js.Stream(ctx, stream)
	if err != nil {
		return fmt.Errorf("open %s: %w", stream, err)
	}
	m, err := st.GetLastMsgForSubject(ctx, subject)
	if err != nil {
		return fmt.Errorf("find what is to be deleted: %w", err)
	}
	h.info(history.FaultDeleteWork, subject, 0, run)
	return st.DeleteMsg(ctx, m.Sequence)
}

// purge deletes by subject, as `nats stream purge --subject` would.
func (h *harm) purge(ctx context.Context, stream, subject, run string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	st, err := h.s.js.Stream(ctx, stream)
	if err != nil {
		return fmt.Errorf("open %s: %w", stream, err)
	}
	name := h.name
	if stream == contracts.StreamWork {
		name = history.FaultDeleteWork
	}
	h.info(name, subject, 0, run)
	return st.Purge(ctx, jetstream.WithPurgeSubject(subject))
}

// falseAlarm gives back all leases of a worker that is well, as a statekeeper
// would that believes it dead.
func falseAlarm(_ context.Context, h *harm) error {
	head, _, ok := h.s.book.any(h.rng, heldRun)
	if !ok {
		return errNoTarget
	}
	var errs []error
	for run, token := range h.s.book.leases(head.WorkerID) {
		h.info(history.FaultForgedAck, "-NAK", 0, run)
		errs = append(errs, h.s.nc.Publish(token, []byte("-NAK")))
	}
	return errors.Join(errs...)
}
