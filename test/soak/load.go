package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
	"longhaul/test/cluster"
)

// followers is how many runs are followed at a time, one after another.
const followers = 4

// load submits at an even pace and counts what comes of it. Its owner calls stop.
type load struct {
	client *client.Client
	sub    *nats.Subscription
	cancel context.CancelFunc
	wg     sync.WaitGroup
	follow chan string

	submitted, ended, followed atomic.Int64

	mu     sync.Mutex
	open   map[string]time.Time // runs without an end, and since when
	byEnd  map[contracts.Status]int64
	failed error // the first
}

// startLoad begins to submit o.runs over o.duration.
func startLoad(ctx context.Context, nc *nats.Conn, o options) (*load, error) {
	c, err := client.New(nc)
	if err != nil {
		return nil, err
	}
	l := &load{client: c, follow: make(chan string), open: map[string]time.Time{}, byEnd: map[contracts.Status]int64{}}
	if l.sub, err = nc.Subscribe(contracts.SubjectAllEvents, l.see); err != nil {
		return nil, err
	}
	if err := l.sub.SetPendingLimits(-1, -1); err != nil {
		return nil, err
	}
	ctx, l.cancel = context.WithCancel(ctx)
	l.wg.Go(func() { l.submit(ctx, o) })
	for range followers {
		l.wg.Go(func() { l.read(ctx) })
	}
	return l, nil
}

// submission is the i-th of the mix: mostly short runs, some that checkpoint
// for a while, some that fail and are retried, some that start later.
func submission(i int) contracts.Submission {
	s := contracts.Submission{AgentKey: "echo", RunID: contracts.NewRunID(),
		Input: contracts.Input{Params: json.RawMessage(`{"text":"the quick brown fox jumps over the lazy dog"}`)}}
	s.Priority = []contracts.Priority{contracts.PriorityNormal, contracts.PriorityHigh, contracts.PriorityLow}[i%3]
	switch i % 20 {
	case 0, 1, 10: // 10 also has a cancel
		s.AgentKey, s.Input.Params = "count", json.RawMessage(`{"n":20,"pause_ms":50}`)
	case 2:
		s.AgentKey, s.Input.Params = "flaky", json.RawMessage(`{"fail_times":1,"retriable":true}`)
	case 3:
		s.NotBefore = time.Now().Add(10 * time.Second)
	}
	if i%100 == 4 {
		s.IdempotencyKey = fmt.Sprintf("soak-%d", i)
	}
	return s
}

func (l *load) submit(ctx context.Context, o options) {
	begun := time.Now()
	for i := range o.runs {
		due := begun.Add(o.duration * time.Duration(i) / time.Duration(o.runs))
		if cluster.Sleep(ctx, time.Until(due)) != nil {
			return
		}
		s := submission(i)
		l.mu.Lock()
		l.open[s.RunID] = time.Now()
		l.mu.Unlock()
		if _, err := l.client.Submit(ctx, s); err != nil {
			l.fail(fmt.Errorf("submit: %w", err))
			return
		}
		l.submitted.Add(1)
		select {
		case l.follow <- s.RunID:
		default: // enough are followed
		}
		if i%20 == 10 {
			if err := l.client.Cancel(ctx, s.RunID, contracts.CancelCommand{Reason: "part of the load"}); err != nil {
				l.fail(fmt.Errorf("cancel: %w", err))
			}
		}
	}
}

// read follows runs to their end.
func (l *load) read(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case id := <-l.follow:
			next := uint64(1)
			for e, err := range l.client.Follow(ctx, id, runlog.FollowOptions{From: 1, UntilEnd: true}) {
				if ctx.Err() != nil {
					return
				}
				if err == nil && e.Seq != next {
					err = fmt.Errorf("event %d after %d", e.Seq, next-1)
				}
				if err != nil {
					l.fail(fmt.Errorf("follow run %s: %w", id, err))
					break
				}
				next++
			}
			l.followed.Add(1)
		}
	}
}

// see notes a run's end.
func (l *load) see(m *nats.Msg) {
	var e struct {
		RunID  string              `json:"run_id"`
		Type   contracts.EventType `json:"type"`
		Status contracts.Status    `json:"status"`
	}
	if err := json.Unmarshal(m.Data, &e); err != nil {
		l.fail(fmt.Errorf("decode an event on %s: %w", m.Subject, err))
		return
	}
	if !e.Type.Terminal() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ours := l.open[e.RunID]; ours {
		delete(l.open, e.RunID)
		l.byEnd[e.Status]++
		l.ended.Add(1)
	}
}

// waiting is how many runs are submitted and have not ended.
func (l *load) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

func (l *load) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = err
	}
}

// stop ends the load, and reports the first thing that went wrong.
func (l *load) stop() error {
	l.cancel()
	l.wg.Wait()
	_ = l.sub.Unsubscribe() // the connection is closed next
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}
