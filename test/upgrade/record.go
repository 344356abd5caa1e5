package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/internal/backup"
	"longhaul/pkg/contracts"
	"longhaul/test/cluster"
)

// line is one line of a recording: what the first has, or a stream, a consumer,
// or a message.
type line struct {
	// Runs are the ids of the runs by what is the matter with them.
	Runs     map[string]string         `json:"runs,omitempty"`
	Stream   *jetstream.StreamConfig   `json:"stream,omitempty"`
	Of       string                    `json:"of,omitempty"` // the stream of a consumer, or a message
	Consumer *jetstream.ConsumerConfig `json:"consumer,omitempty"`
	Seq      uint64                    `json:"seq,omitempty"`
	Subject  string                    `json:"subject,omitempty"`
	Header   nats.Header               `json:"header,omitempty"`
	Data     string                    `json:"data,omitempty"`
}

// What a recording is made of. Some of it is in the midst of something: its
// worker is dead, its time has not come, its command has not been read.
const (
	runDone       = "done"
	runFailed     = "failed, and its redrive in the inbox"
	runRejected   = "rejected"
	runCancelled  = "cancelled"
	runRetrying   = "in backoff"
	runCut        = "held by a dead worker, with checkpoints"
	runCancelling = "held by a dead worker, to be cancelled"
	runQueued     = "queued"
	runLow        = "queued with low priority"
	runWithdrawn  = "queued, and its cancel in the inbox"
	runFirst      = "first of a conversation"
	runSecond     = "second of a conversation"
	runLater      = "scheduled"
	runInbox      = "in the inbox"
)

// conversation is that of two of the runs, idempotencyKey that of the one in the inbox.
const conversation, idempotencyKey = "talk-1", "order-77"

// record has the services of the old version make a recording: a system that is
// stopped in the midst of all that a run can be in.
func record(ctx context.Context, o options, path string) (err error) {
	s, err := newStage(ctx, o)
	defer func() { err = errors.Join(err, s.stop(err != nil)) }()
	if err != nil {
		return err
	}
	r := &recorder{stage: s, runs: map[string]string{}}
	for _, step := range []func(context.Context) error{r.settled, r.midst, r.unread} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return r.write(ctx, path)
}

type recorder struct {
	*stage
	runs map[string]string
}

// ask submits a run as any NATS client does.
func (r *recorder) ask(ctx context.Context, what string, sub map[string]any) error {
	id, there := sub["run_id"].(string)
	if !there && sub["idempotency_key"] == nil {
		id = contracts.NewRunID()
		sub["run_id"] = id
	} else if !there {
		id = contracts.RunIDFromKey(sub["idempotency_key"].(string))
	}
	r.runs[what] = id
	body, err := json.Marshal(sub)
	if err == nil {
		_, err = r.js.Publish(ctx, contracts.SubjectSubmit, body)
	}
	return err
}

func (r *recorder) command(ctx context.Context, subject, body string) error {
	_, err := r.js.Publish(ctx, subject, []byte(body))
	return err
}

// reach waits until a run's log ends in a status.
func (r *recorder) reach(ctx context.Context, what string, status contracts.Status) error {
	return cluster.WaitFor(ctx, time.Minute, fmt.Sprintf("the run %s to be %s", what, status), func() bool {
		head, err := r.log.LastFromLeader(ctx, r.runs[what])
		return err == nil && head.Status == status
	})
}

func input(params string) map[string]any {
	return map[string]any{"messages": []any{map[string]any{"role": "user", "content": "hi"}}, "params": json.RawMessage(params)}
}

func (r *recorder) settled(ctx context.Context) error {
	err := errors.Join(
		r.ask(ctx, runDone, map[string]any{"agent_key": "echo", "input": input(`{}`), "metadata": map[string]string{"user": "u1"}}),
		r.ask(ctx, runFailed, map[string]any{"agent_key": "flaky", "input": map[string]any{"params": map[string]any{"fail_times": 9, "retriable": false}}}),
		r.ask(ctx, runRejected, map[string]any{"agent_key": "nobody"}),
		r.ask(ctx, runCancelled, map[string]any{"agent_key": "count", "input": map[string]any{"params": map[string]any{"n": 1000, "pause_ms": 50}}}))
	if err == nil {
		err = r.reach(ctx, runCancelled, contracts.StatusRunning)
	}
	if err == nil {
		err = r.command(ctx, contracts.CancelSubject(r.runs[runCancelled]), `{"reason":"enough"}`)
	}
	return errors.Join(err, r.reach(ctx, runCancelled, contracts.StatusCancelled), r.reach(ctx, runDone, contracts.StatusSucceeded),
		r.reach(ctx, runFailed, contracts.StatusFailed), r.reach(ctx, runRejected, contracts.StatusRejected))
}

// midst is where the worker dies, and what nobody takes up after it.
func (r *recorder) midst(ctx context.Context) error {
	err := errors.Join(
		r.ask(ctx, runCut, map[string]any{"agent_key": "count", "input": map[string]any{"params": map[string]any{"n": 60, "pause_ms": 20}}}),
		r.ask(ctx, runCancelling, map[string]any{"agent_key": "count", "input": map[string]any{"params": map[string]any{"n": 1000, "pause_ms": 50}}}),
		r.reach(ctx, runCancelling, contracts.StatusRunning),
		r.ask(ctx, runRetrying, map[string]any{"agent_key": "flaky", "input": map[string]any{"params": map[string]any{"fail_times": 1}}}))
	if err != nil {
		return err
	}
	err = cluster.WaitFor(ctx, time.Minute, "checkpoints, and a run in backoff", func() bool {
		cut, err := r.log.LastFromLeader(ctx, r.runs[runCut])
		retrying, err2 := r.log.LastFromLeader(ctx, r.runs[runRetrying])
		return errors.Join(err, err2) == nil && cut.Checkpoint != nil && cut.Checkpoint.N >= 3 && !retrying.NotBefore.IsZero()
	})
	if err == nil {
		err = r.current["worker"].Kill()
	}
	if err != nil {
		return err
	}
	delete(r.current, "worker")
	return errors.Join(
		r.ask(ctx, runQueued, map[string]any{"agent_key": "echo", "input": input(`{}`)}),
		r.ask(ctx, runLow, map[string]any{"agent_key": "echo", "input": input(`{}`), "priority": "low"}),
		r.ask(ctx, runWithdrawn, map[string]any{"agent_key": "echo", "input": input(`{}`)}),
		r.ask(ctx, runFirst, map[string]any{"agent_key": "echo", "input": input(`{}`), "conversation_id": conversation}),
		r.reach(ctx, runFirst, contracts.StatusPending),
		r.ask(ctx, runSecond, map[string]any{"agent_key": "echo", "input": input(`{}`), "conversation_id": conversation}),
		r.command(ctx, contracts.CancelSubject(r.runs[runCancelling]), `{}`),
		r.ask(ctx, runLater, map[string]any{"agent_key": "echo", "input": input(`{}`), "not_before": time.Now().Add(time.Minute).UTC().Format(time.RFC3339)}),
		r.reach(ctx, runQueued, contracts.StatusPending), r.reach(ctx, runLow, contracts.StatusPending), r.reach(ctx, runWithdrawn, contracts.StatusPending),
		r.reach(ctx, runLater, contracts.StatusScheduled), r.reach(ctx, runCancelling, contracts.StatusCancelling),
		cluster.WaitFor(ctx, time.Minute, "statuses to be stored", func() bool {
			stats, err := r.client.Stats(ctx)
			return err == nil && stats.ByStatus[contracts.StatusScheduled] == 1 && stats.ByStatus[contracts.StatusCancelling] == 1
		}))
}

// unread is what comes when no service is left.
func (r *recorder) unread(ctx context.Context) error {
	for _, service := range []string{"dispatcher", "statekeeper"} {
		if err := r.current[service].Terminate(time.Minute); err != nil {
			return err
		}
		delete(r.current, service)
	}
	return errors.Join(
		r.ask(ctx, runInbox, map[string]any{"agent_key": "echo", "input": input(`{}`), "idempotency_key": idempotencyKey}),
		r.ask(ctx, runInbox, map[string]any{"agent_key": "echo", "input": input(`{}`), "idempotency_key": idempotencyKey}),
		r.command(ctx, contracts.CancelSubject(r.runs[runWithdrawn]), `{"by":"somebody"}`),
		r.command(ctx, contracts.RedriveSubject(r.runs[runFailed]), ``))
}

// write writes the recording.
func (r *recorder) write(ctx context.Context, path string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(f)
	defer func() { err = errors.Join(err, out.Flush(), f.Close()) }()
	put := json.NewEncoder(out)
	put.SetEscapeHTML(false)
	if err := put.Encode(line{Runs: r.runs}); err != nil {
		return err
	}
	for _, name := range backup.Streams() {
		stream, err := r.js.Stream(ctx, name)
		if err != nil {
			return err
		}
		cfg := stream.CachedInfo().Config
		cfg.Metadata = ownMetadata(cfg.Metadata)
		if err := put.Encode(line{Stream: &cfg}); err != nil {
			return err
		}
		consumers := stream.ListConsumers(ctx)
		for info := range consumers.Info() {
			if info.Config.Durable == "" {
				continue
			}
			info.Config.Metadata = ownMetadata(info.Config.Metadata)
			if err := put.Encode(line{Of: name, Consumer: &info.Config}); err != nil {
				return err
			}
		}
		if err := consumers.Err(); err != nil {
			return err
		}
		for seq := uint64(1); ; seq++ {
			m, err := stream.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(">"))
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				break
			}
			if err != nil {
				return err
			}
			seq = m.Sequence
			if err := put.Encode(line{Of: name, Seq: seq, Subject: m.Subject, Header: asSent(m.Header), Data: string(m.Data)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// asSent leaves out what the broker adds to a message that is read, and what was
// true of the moment when it was sent.
func asSent(h nats.Header) nats.Header {
	for _, name := range []string{nats.JSSequence, nats.JSStream, nats.JSSubject, nats.JSTimeStamp, nats.JSLastSequence, nats.ExpectedLastSubjSeqHdr, nats.ExpectedLastSeqHdr} {
		h.Del(name)
	}
	return h
}

// ownMetadata leaves out what the broker writes for itself.
func ownMetadata(all map[string]string) map[string]string {
	for key := range all {
		if len(key) > 5 && key[:6] == "_nats." {
			delete(all, key)
		}
	}
	return all
}
