package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// bareSend sends a message of so many bytes; compared is what its subject's
// last sequence is expected to be, -1 for no matter what.
func bareSend(js jetstream.JetStream, subject string, size int, compared int64) (jetstream.PubAckFuture, error) {
	m := &nats.Msg{Subject: subject, Data: make([]byte, size)}
	if compared >= 0 {
		m.Header = nats.Header{jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatInt(compared, 10)}}
	}
	return js.PublishMsgAsync(m, jetstream.WithStallWait(stopTime))
}

func bareAck(ctx context.Context, sent jetstream.PubAckFuture) (sequence int64, err error) {
	select {
	case ack := <-sent.Ok():
		return int64(ack.Sequence), nil
	case err := <-sent.Err():
		return 0, err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// bareQueue appends the first event of runs and queues their work, each step in
// a goroutine of its own, so that no round trip is waited for; then is called
// when a run is queued.
type bareQueue struct {
	js       jetstream.JetStream
	shared   bool // the first event is the work message
	appended chan bareItem
	queued   chan bareItem
	ending   sync.WaitGroup
	failed   chan error // of one place
}

type bareItem struct {
	id   string
	sent jetstream.PubAckFuture
	then func() error
}

func newBareQueue(ctx context.Context, js jetstream.JetStream, shared bool) *bareQueue {
	q := &bareQueue{js: js, shared: shared, appended: make(chan bareItem, 512), queued: make(chan bareItem, 512), failed: make(chan error, 1)}
	q.ending.Go(func() {
		defer close(q.queued)
		for it := range q.appended {
			if shared {
				q.queued <- it
				continue
			}
			at, err := bareAck(ctx, it.sent)
			if err == nil {
				m := &nats.Msg{Subject: bareJobs + "normal." + it.id, Data: make([]byte, queuedBytes), Header: nats.Header{logSequence: {strconv.FormatInt(at, 10)}}}
				it.sent, err = js.PublishMsgAsync(m, jetstream.WithStallWait(stopTime))
			}
			if q.note(err) {
				q.queued <- it
			}
		}
	})
	q.ending.Go(func() {
		for it := range q.queued {
			_, err := bareAck(ctx, it.sent)
			if err == nil && it.then != nil {
				err = it.then()
			}
			q.note(err)
		}
	})
	return q
}

// note keeps the first error, and reports whether there is none.
func (q *bareQueue) note(err error) bool {
	if err != nil {
		select {
		case q.failed <- err:
		default:
		}
	}
	return err == nil
}

func (q *bareQueue) add(id string, then func() error) error {
	subject := bareRuns + id + ".log"
	if q.shared {
		subject = bareJobs + "normal." + id
	}
	sent, err := bareSend(q.js, subject, queuedBytes, 0)
	if err == nil {
		q.appended <- bareItem{id, sent, then}
	}
	return err
}

// end waits for what is under way.
func (q *bareQueue) end() error {
	close(q.appended)
	q.ending.Wait()
	select {
	case err := <-q.failed:
		return fmt.Errorf("queue runs of the bare path: %w", err)
	default:
		return nil
	}
}

// bareServe plays a role in a process of its own, until ctx ends. The worker's
// tells began how old each run is when its code would begin.
func bareServe(ctx context.Context, nc *nats.Conn, role string, o order, began func(time.Duration)) error {
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4000))
	if err != nil {
		return err
	}
	if role == "answer" {
		return bareAnswer(ctx, nc, js, o.Shared)
	}
	stream := map[string]string{"dispatch": bareInbox, "work": bareWork, "project": bareLog}[role]
	if role == "work" && o.Shared {
		stream = bareLog
	}
	consumer, err := js.Consumer(ctx, stream, role)
	if err != nil {
		return fmt.Errorf("find consumer %s: %w", role, err)
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(map[string]int{"dispatch": barePrefetch, "work": 4 * bareSlots, "project": 1000}[role]),
		jetstream.PullExpiry(5*time.Second))
	if err != nil {
		return fmt.Errorf("take messages of %s: %w", role, err)
	}
	defer messages.Stop()
	defer context.AfterFunc(ctx, messages.Stop)()
	switch role {
	case "dispatch":
		return bareDispatch(ctx, js, messages, o.Shared)
	case "work":
		return bareExecute(ctx, js, messages, began)
	default:
		return bareProject(ctx, js, messages, o.N)
	}
}

func bareDispatch(ctx context.Context, js jetstream.JetStream, messages jetstream.MessagesContext, shared bool) error {
	q := newBareQueue(ctx, js, shared)
	for {
		m, err := messages.Next()
		if err == nil {
			err = q.add(string(m.Data()[:36]), m.Ack)
		}
		if err != nil {
			return errors.Join(unlessOver(ctx, err), unlessOver(ctx, q.end()))
		}
	}
}

// bareAnswer queues what it is asked to, and answers as a stream would.
func bareAnswer(ctx context.Context, nc *nats.Conn, js jetstream.JetStream, shared bool) error {
	q := newBareQueue(ctx, js, shared)
	sub, err := nc.Subscribe(bareAsk, func(m *nats.Msg) {
		q.note(q.add(string(m.Data[:36]), func() error { return m.Respond([]byte(`{"stream":"` + bareLog + `","seq":1}`)) }))
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		return errors.Join(err, q.end())
	}
	<-ctx.Done()
	if err := sub.Drain(); err != nil {
		return errors.Join(err, q.end())
	}
	for ; sub.IsValid(); time.Sleep(time.Millisecond) {
	}
	return unlessOver(ctx, q.end())
}

func bareExecute(ctx context.Context, js jetstream.JetStream, messages jetstream.MessagesContext, began func(time.Duration)) error {
	jobs, failed := make(chan jetstream.Msg), make(chan error, bareSlots)
	var slots sync.WaitGroup
	for range bareSlots {
		slots.Go(func() {
			for m := range jobs {
				id := m.Subject()[strings.LastIndexByte(m.Subject(), '.')+1:]
				var at int64 // what stands on the subject of the run's other events
				var err error
				if told := m.Headers().Get(logSequence); told != "" {
					at, err = strconv.ParseInt(told, 10, 64)
				}
				for _, size := range []int{startedBytes, endedBytes} {
					var sent jetstream.PubAckFuture
					if err == nil {
						sent, err = bareSend(js, bareRuns+id+".log", size, at)
					}
					if err == nil {
						at, err = bareAck(ctx, sent)
					}
					if err == nil && size == startedBytes {
						var age time.Duration
						age, err = bareAge(id)
						began(age)
					}
				}
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
	var err error
	for err == nil {
		var m jetstream.Msg
		if m, err = messages.Next(); err == nil {
			select {
			case jobs <- m:
			case err = <-failed:
			}
		}
	}
	close(jobs)
	slots.Wait()
	return unlessOver(ctx, err)
}

// bareRecord is a run's status on its way.
type bareRecord struct {
	events   int
	revision int64
	sent     jetstream.PubAckFuture // nil if nothing is
}

// stored waits for what is under way.
func (r *bareRecord) stored(ctx context.Context) (err error) {
	if r.sent != nil {
		r.revision, err = bareAck(ctx, r.sent)
		r.sent = nil
	}
	return err
}

// bareProject writes status records in windows of 10 ms, acknowledges behind
// them, and reads every one of them back, as an index does.
func bareProject(ctx context.Context, js jetstream.JetStream, messages jetstream.MessagesContext, statuses int) error {
	index, err := js.OrderedConsumer(ctx, bareBucket, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return fmt.Errorf("feed the index: %w", err)
	}
	feeding, err := index.Consume(func(jetstream.Msg) {})
	if err != nil {
		return fmt.Errorf("feed the index: %w", err)
	}
	defer feeding.Stop()
	runs := map[string]*bareRecord{}
	var writing []*bareRecord
	var last jetstream.Msg
	settle := func() (err error) {
		for _, r := range writing {
			if err := r.stored(ctx); err != nil {
				return err
			}
		}
		writing = writing[:0]
		if last != nil {
			err = last.Ack()
		}
		last = nil
		return err
	}
	for due := time.Now(); ; {
		m, err := messages.Next(jetstream.NextMaxWait(10 * time.Millisecond))
		if err != nil && !errors.Is(err, nats.ErrTimeout) {
			return unlessOver(ctx, err)
		}
		if err == nil {
			last = m
			id := strings.Split(m.Subject(), ".")[3]
			if strings.HasPrefix(m.Subject(), bareJobs) {
				id = strings.Split(m.Subject(), ".")[4]
			}
			r := runs[id]
			if r == nil {
				r = &bareRecord{}
				runs[id] = r
			}
			if r.events++; r.events == 3 || r.events == 1 && statuses > 1 {
				if err = r.stored(ctx); err == nil {
					r.sent, err = bareSend(js, bareStatus+id, recordBytes, r.revision)
				}
				if err != nil {
					return unlessOver(ctx, err)
				}
				writing = append(writing, r)
			}
			if r.events == 3 {
				delete(runs, id)
			}
		}
		if now := time.Now(); now.After(due) {
			if err := settle(); err != nil {
				return unlessOver(ctx, err)
			}
			due = now.Add(10 * time.Millisecond)
		}
	}
}

// unlessOver drops an error that only says that ctx has ended.
func unlessOver(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
