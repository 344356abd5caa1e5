package client_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

// next asks a queue of echo for its next message, and reports whether one came.
func next(t *testing.T, b *jstest.Broker, p contracts.Priority, wait time.Duration) bool {
	t.Helper()
	cons, err := b.JS.Consumer(t.Context(), contracts.StreamWork, contracts.WorkConsumer("echo", p))
	if err != nil {
		t.Fatal(err)
	}
	m, err := cons.Next(jetstream.FetchMaxWait(wait))
	if errors.Is(err, nats.ErrTimeout) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := m.DoubleAck(t.Context()); err != nil {
		t.Fatal(err)
	}
	return true
}

func queueWork(t *testing.T, b *jstest.Broker, p contracts.Priority) {
	t.Helper()
	if _, err := b.JS.Publish(t.Context(), contracts.WorkSubject("echo", p, contracts.NewRunID()), nil); err != nil {
		t.Fatal(err)
	}
}

// A pause outlasts everything that makes sure of consumers, and the broker's
// own restart; what waits is handed out when it ends.
func TestPause(t *testing.T) {
	b := jstest.StartFile(t)
	c, err := client.New(b.NC)
	if err != nil {
		t.Fatal(err)
	}
	ctx := soon(t)
	if _, err := c.Pause(ctx, "echo", client.PauseOptions{}); !errors.Is(err, client.ErrNoQueue) {
		t.Fatalf("pause of an agent without a queue: %v", err)
	}
	if err := jsutil.EnsureWorkConsumers(ctx, b.JS, "echo", 30*time.Second); err != nil {
		t.Fatal(err)
	}
	queues, err := c.Pause(ctx, "echo", client.PauseOptions{Priorities: []contracts.Priority{contracts.PriorityNormal, contracts.PriorityLow},
		Reason: "the model is down", By: "ann"})
	if err != nil || len(queues) != 3 || queues[0].Pause != nil || queues[1].Pause == nil || queues[2].Pause == nil {
		t.Fatalf("queues %+v, %v", queues, err)
	}
	if p := *queues[1].Pause; !p.Until.IsZero() || p.Reason != "the model is down" || p.By != "ann" {
		t.Errorf("pause %+v", p)
	}
	for _, p := range contracts.Priorities() {
		queueWork(t, b, p)
	}
	still := func(what string) {
		t.Helper()
		if queues, err := c.Resume(ctx, "echo", contracts.PriorityLow); err != nil || queues[1].Pause == nil || queues[1].Pause.Reason == "" {
			t.Fatalf("%s: queues %+v, %v", what, queues, err)
		}
		if next(t, b, contracts.PriorityNormal, 300*time.Millisecond) {
			t.Fatalf("%s: a paused queue hands out a run", what)
		}
	}
	still("at once")
	if !next(t, b, contracts.PriorityHigh, patience) || !next(t, b, contracts.PriorityLow, patience) {
		t.Error("a queue that is not paused hands out no run")
	}
	if err := errors.Join(jsutil.EnsureWorkConsumers(ctx, b.JS, "echo", time.Minute), jsutil.EnsureTopology(ctx, b.JS, b.Topology())); err != nil {
		t.Fatal(err)
	}
	still("after a worker's start")
	// Even where a setting has to be put right.
	cons, err := b.JS.Consumer(ctx, contracts.StreamWork, contracts.WorkConsumer("echo", contracts.PriorityNormal))
	if err != nil {
		t.Fatal(err)
	}
	spoilt := cons.CachedInfo().Config
	spoilt.MaxAckPending = 7
	if _, err := b.JS.UpdateConsumer(ctx, contracts.StreamWork, spoilt); err != nil {
		t.Fatal(err)
	}
	if err := jsutil.EnsureWorkConsumers(ctx, b.JS, "echo", time.Minute); err != nil {
		t.Fatal(err)
	}
	still("after a setting was put right")
	b.Restart(t)
	still("after the broker's restart")
	if queues, err = c.Resume(ctx, "echo"); err != nil || queues[1].Pause != nil {
		t.Fatalf("queues %+v, %v", queues, err)
	}
	if !next(t, b, contracts.PriorityNormal, patience) {
		t.Error("what waited is not handed out after the resume")
	}
}

func TestPauseEnds(t *testing.T) {
	c, b := newClient(t)
	ctx := soon(t)
	if err := jsutil.EnsureWorkConsumers(ctx, b.JS, "echo", 30*time.Second); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	queues, err := c.Pause(ctx, "echo", client.PauseOptions{For: 700 * time.Millisecond})
	if err != nil || queues[0].Pause == nil || queues[0].Pause.Until.Before(begun) || queues[0].Pause.Until.After(begun.Add(patience)) {
		t.Fatalf("queues %+v, %v", queues, err)
	}
	queueWork(t, b, contracts.PriorityHigh)
	if !next(t, b, contracts.PriorityHigh, patience) {
		t.Fatal("the pause does not end")
	}
	if took := time.Since(begun); took < 700*time.Millisecond {
		t.Errorf("handed out after %s", took)
	}
	if agents, err := c.Resume(ctx, "echo"); err != nil || agents[0].Pause != nil {
		t.Errorf("resume of what is not paused: %+v, %v", agents, err)
	}
	if _, err := c.Pause(ctx, "echo", client.PauseOptions{Reason: strings.Repeat("x", contracts.MaxReason+1)}); err == nil || !strings.Contains(err.Error(), "reason") {
		t.Errorf("a reason that is too long: %v", err)
	}
	if _, err := c.Pause(ctx, "no agent", client.PauseOptions{}); err == nil {
		t.Error("a bad key is taken")
	}
}

// Two at the same moment see no error, whatever each of them wants, and what both
// want is so when they are told.
func TestPauseByTwoAtOnce(t *testing.T) {
	c, b := newClient(t)
	if err := jsutil.EnsureWorkConsumers(t.Context(), b.JS, "echo", 30*time.Second); err != nil {
		t.Fatal(err)
	}
	other, err := client.New(b.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	pause := func(o client.PauseOptions) func(*client.Client) ([]client.Queue, error) {
		return func(c *client.Client) ([]client.Queue, error) { return c.Pause(t.Context(), "echo", o) }
	}
	resume := func(c *client.Client) ([]client.Queue, error) { return c.Resume(t.Context(), "echo") }
	for name, want := range map[string][2]func(*client.Client) ([]client.Queue, error){
		"pause":            {pause(client.PauseOptions{By: "ann"}), pause(client.PauseOptions{By: "bob"})},
		"pause for a time": {pause(client.PauseOptions{By: "ann", For: time.Hour}), pause(client.PauseOptions{By: "bob", For: time.Minute})},
		"resume":           {resume, resume},
		"pause and resume": {pause(client.PauseOptions{}), resume},
	} {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				var both sync.WaitGroup
				for i, c := range []*client.Client{c, other} {
					both.Go(func() {
						began := time.Now()
						queues, err := want[i](c)
						if took := time.Since(began); err != nil || took > 3*time.Second {
							t.Errorf("%v after %v", err, took)
						}
						if name != "pause and resume" && slices.ContainsFunc(queues, func(q client.Queue) bool { return (q.Pause == nil) != (name == "resume") }) {
							t.Errorf("the queues are %+v", queues)
						}
					})
				}
				if both.Wait(); t.Failed() {
					return
				}
			}
		})
	}
}
