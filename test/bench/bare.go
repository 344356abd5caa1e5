package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/internal/bench"
)

// The bare path is what the broker and its client library do for a plain run of
// ours, without a line of ours: the same streams, messages of the same sizes,
// the same compare-and-set, the same processes; nothing is encoded, validated,
// decided or executed. It tells how much of a run's cost is the design's, and
// its variants what other designs would gain (docs/adr/0019).

// bareKind is a variant of the bare path.
type bareKind struct {
	Direct    bool // the client appends and queues by itself, without the inbox's hop
	Asked     bool // the dispatcher is asked, and answers when a run is queued: nothing goes through the inbox
	Shared    bool // the first event of a run is its work message, too: workers take it from the log
	Republish bool // what is appended, for live readers
	Statuses  int  // records written for each run; 0 has no projection at all
}

// bareAsOurs is the path as DESIGN has it: under a backlog a run's status is
// written when it is queued and when it has ended.
var bareAsOurs = bareKind{Republish: true, Statuses: 2}

const (
	bareInbox, bareWork, bareLog, bareBucket = "LONGHAUL_BENCH_INBOX", "LONGHAUL_BENCH_QUEUE", "LONGHAUL_BENCH_RUNS", "LONGHAUL_BENCH_STATUS"

	bareSubmit, bareAsk, bareJobs, bareRuns, bareStatus, bareNone = "longhaul.bench.submit", "longhaul.bench.ask", "longhaul.bench.jobs.", "longhaul.bench.runs.", "longhaul.bench.status.", "longhaul.bench.none"

	// The sizes of ours, for a job of 512 bytes.
	submissionBytes, queuedBytes, startedBytes, endedBytes, recordBytes = 700, 1000, 500, 450, 600
	barePrefetch, bareSlots                                             = 64, 64
	logSequence                                                         = "Log-Sequence"
)

// bareRoles are the processes of the bare path beside client and broker, and
// whose work it is that each does.
var bareRoles = map[string]string{"dispatch": "dispatcher", "work": "worker", "project": "statekeeper"}

// bareRun measures n runs of the bare path.
func (s *stage) bareRun(ctx context.Context, n int, kind bareKind) (got sample, err error) {
	err = s.playBare(ctx, kind, func(js jetstream.JetStream) error {
		got, err = s.metered(ctx, n, func() error {
			if err := submitBare(ctx, js, n, kind); err != nil {
				return err
			}
			return bareDone(ctx, js, n, kind)
		})
		return err
	})
	return got, err
}

// bareAtRest submits n runs of the bare path, one at a time, with somebody who
// is told of their events. Their code would begin when run.started is confirmed.
func (s *stage) bareAtRest(ctx context.Context, n int, asked bool) (sample, error) {
	following, err := s.watching.Subscribe(bareRuns+"*.events", func(*nats.Msg) {})
	if err != nil {
		return sample{}, err
	}
	defer func() { _ = following.Unsubscribe() }() // at the latest it ends with the connection
	kind, h := bareKind{Republish: true, Statuses: 1, Asked: asked}, bench.NewLatencies()
	err = s.playBare(ctx, kind, func(js jetstream.JetStream) error {
		if _, err := s.bare["work"].tell(ctx, order{Do: "began"}); err != nil { // what was before
			return err
		}
		for range n {
			if err := errors.Join(submitBare(ctx, js, 1, kind), bench.Rest(ctx), bench.Rest(ctx)); err != nil {
				return err
			}
		}
		if err := bareDone(ctx, js, n, kind); err != nil {
			return err
		}
		a, err := s.bare["work"].tell(ctx, order{Do: "began"})
		return errors.Join(err, h.Add(a.Began))
	})
	return sample{latencies: latencies{toBegin: h}}, err
}

// playBare has all roles played while do works.
func (s *stage) playBare(ctx context.Context, kind bareKind, do func(js jetstream.JetStream) error) error {
	js, err := jetstream.New(s.nc, jetstream.WithPublishAsyncMaxPending(4000))
	if err != nil {
		return err
	}
	if err := prepareBare(ctx, js, kind, s.replicas); err != nil {
		return err
	}
	for role, name := range bareRoles {
		if s.bare[role] == nil {
			w, err := startWorker(ctx, s.nc, workerConfig{URL: s.url, Name: "bare-" + role, Replicas: s.replicas}, s.dir)
			if err != nil {
				return err
			}
			w.kind, s.bare[role] = name, w
		}
		if role == "dispatch" && kind.Direct || role == "project" && kind.Statuses == 0 {
			continue
		}
		played := role
		if role == "dispatch" && kind.Asked {
			played = "answer"
		}
		if _, err := s.bare[role].tell(ctx, order{Do: "bare", Role: played, N: kind.Statuses, Shared: kind.Shared}); err != nil {
			return err
		}
	}
	err = do(js)
	for _, w := range s.bare {
		if _, stopErr := w.tell(ctx, order{Do: "stop"}); err == nil {
			err = stopErr
		}
	}
	return err
}

// bareID is a run's id, as long as ours, and when it was made.
func bareID(now time.Time) string { return fmt.Sprintf("%019d-%016x", now.UnixNano(), rand.Uint64()) }

// bareAge is how old a run is.
func bareAge(id string) (time.Duration, error) {
	made, err := strconv.ParseInt(id[:19], 10, 64)
	return time.Since(time.Unix(0, made)), err
}

// prepareBare makes streams and consumers like ours, and empty.
func prepareBare(ctx context.Context, js jetstream.JetStream, kind bareKind, replicas int) error {
	for _, name := range []string{bareInbox, bareWork, bareLog, bareBucket} {
		if err := js.DeleteStream(ctx, name); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("remove stream %s: %w", name, err)
		}
	}
	events := bareRuns + "{{wildcard(1)}}.events"
	log := jetstream.StreamConfig{
		Name: bareLog, Subjects: []string{bareRuns + "*.log"}, AllowDirect: true,
		SubjectTransform: &jetstream.SubjectTransformConfig{Source: bareRuns + "*.log", Destination: events},
	}
	if kind.Republish {
		log.RePublish = &jetstream.RePublish{Source: bareRuns + "*.events", Destination: events}
	}
	jobs, jobsIn := bareJobs+"*.*", bareWork
	if kind.Shared {
		log.Subjects, jobs, jobsIn = append(log.Subjects, jobs), bareNone, bareLog
	}
	for _, cfg := range []jetstream.StreamConfig{
		{Name: bareInbox, Subjects: []string{bareSubmit}, Retention: jetstream.WorkQueuePolicy, Duplicates: 100 * time.Millisecond},
		{Name: bareWork, Subjects: []string{jobs}, Retention: jetstream.WorkQueuePolicy, MaxMsgsPerSubject: 1, DiscardNewPerSubject: true},
		log,
		{Name: bareBucket, Subjects: []string{bareStatus + "*"}, MaxMsgsPerSubject: 1, AllowDirect: true, DenyDelete: true},
	} {
		cfg.Discard, cfg.Replicas = jetstream.DiscardNew, replicas
		if _, err := js.CreateStream(ctx, cfg); err != nil {
			return fmt.Errorf("make stream %s: %w", cfg.Name, err)
		}
	}
	for _, c := range []struct{ stream, name, filter string }{
		{bareInbox, "dispatch", bareSubmit}, {jobsIn, "high", bareJobs + "high.*"}, {jobsIn, "work", bareJobs + "normal.*"},
		{jobsIn, "low", bareJobs + "low.*"}, {bareLog, "project", ""},
	} {
		cfg := jetstream.ConsumerConfig{Durable: c.name, FilterSubject: c.filter, AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1}
		if c.name == "project" {
			cfg.AckPolicy = jetstream.AckAllPolicy
		}
		if _, err := js.CreateConsumer(ctx, c.stream, cfg); err != nil {
			return fmt.Errorf("make consumer %s: %w", c.name, err)
		}
	}
	return nil
}

// bareDone returns when n runs have been through all that there is.
func bareDone(ctx context.Context, js jetstream.JetStream, n int, kind bareKind) error {
	for ; ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		log, err := js.Stream(ctx, bareLog)
		if err != nil {
			return fmt.Errorf("look at stream %s: %w", bareLog, err)
		}
		work, err := js.Stream(ctx, bareWork)
		if err != nil {
			return fmt.Errorf("look at stream %s: %w", bareWork, err)
		}
		projector, err := js.Consumer(ctx, bareLog, "project")
		if err != nil {
			return fmt.Errorf("look at the projector's consumer: %w", err)
		}
		left := uint64(0)
		if kind.Statuses > 0 {
			left = projector.CachedInfo().NumPending + uint64(projector.CachedInfo().NumAckPending)
		}
		if kind.Shared {
			taken, err := js.Consumer(ctx, bareLog, "work")
			if err != nil {
				return fmt.Errorf("look at the workers' consumer: %w", err)
			}
			left += taken.CachedInfo().NumPending + uint64(taken.CachedInfo().NumAckPending)
		}
		if log.CachedInfo().State.LastSeq == uint64(3*n) && work.CachedInfo().State.Msgs == 0 && left == 0 {
			return nil
		}
	}
	return context.Cause(ctx)
}

// submitBare submits n runs, or, directly, queues them.
func submitBare(ctx context.Context, js jetstream.JetStream, n int, kind bareKind) error {
	q, to := newBareQueue(ctx, js, kind.Shared), bareSubmit
	if kind.Asked {
		to = bareAsk
	}
	var sent []jetstream.PubAckFuture
	for range n {
		id := bareID(time.Now())
		if kind.Direct {
			if err := q.add(id, nil); err != nil {
				return errors.Join(err, q.end())
			}
			continue
		}
		one, err := js.PublishAsync(to, append([]byte(id), make([]byte, submissionBytes)...), jetstream.WithStallWait(stopTime))
		if err != nil {
			return errors.Join(err, q.end())
		}
		if sent = append(sent, one); len(sent) == 512 {
			if _, err := bareAck(ctx, sent[0]); err != nil {
				return errors.Join(err, q.end())
			}
			sent = sent[1:]
		}
	}
	for _, one := range sent {
		if _, err := bareAck(ctx, one); err != nil {
			return errors.Join(err, q.end())
		}
	}
	return q.end()
}
