package worker

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// handed is how many messages of an agent's queues were delivered, and asked how
// many requests stand there.
func (b *bench) handed(t *testing.T, key string) (n uint64, asked int) {
	t.Helper()
	for _, p := range contracts.Priorities() {
		c, err := b.JS.Consumer(t.Context(), contracts.StreamWork, contracts.WorkConsumer(key, p))
		if err != nil {
			t.Fatal(err)
		}
		n += c.CachedInfo().Delivered.Consumer
		asked += c.CachedInfo().NumWaiting
	}
	return n, asked
}

// A worker holds no more runs of an agent than that may have, asks for no more, whatever
// waits in which of its queues, and gives all its other slots to others. What it
// does not take another worker may have.
func TestConcurrencyOfAnAgent(t *testing.T) {
	b := newBench(t)
	var now, most atomic.Int32
	begun, goOn := make(chan string, 20), make(chan struct{})
	release := sync.OnceFunc(func() { close(goOn) })
	defer release()
	agents := []agent.Agent{
		{Key: "narrow", Concurrency: 2, Run: func(_ context.Context, run *agent.Run) (agent.Result, error) {
			most.Store(max(most.Load(), now.Add(1))) // of few at once, and seldom: a race would show a number too small
			defer now.Add(-1)
			begun <- run.ID
			<-goOn
			return agent.Result{}, nil
		}},
		{Key: "echo", Run: echo},
	}
	cfg := Config{Concurrency: 3, Agents: agents}
	_, stop := b.start(t, cfg) // makes the queues
	b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "echo"}))
	stop()
	var narrow, echoes []string
	for range 4 {
		for _, p := range contracts.Priorities() {
			narrow = append(narrow, b.submit(t, contracts.Submission{AgentKey: "narrow", Priority: p}))
			echoes = append(echoes, b.submit(t, contracts.Submission{AgentKey: "echo", Priority: p}))
		}
	}
	b.start(t, cfg)
	first := map[string]bool{<-begun: true, <-begun: true}
	for _, id := range echoes { // in the one slot that is left
		b.waitForEnd(t, id)
	}
	// A request at each queue may have stood when the last slot was taken: what these
	// brought was given back, and no more is asked for.
	handed, _ := b.handed(t, "narrow")
	for range 50 {
		b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "echo"}))
	}
	if n, _ := b.handed(t, "narrow"); handed > 8 || n != handed {
		t.Errorf("%d messages of an agent that may have 2 were taken, then %d", handed, n)
	}
	if len(begun) > 0 || most.Load() != 2 {
		t.Errorf("%d more were begun, %d at once", len(begun), most.Load())
	}
	b.start(t, cfg) // another worker
	if another, one := <-begun, <-begun; first[another] || first[one] {
		t.Error("the other worker has begun what the first one holds")
	}
	release()
	for _, id := range narrow {
		wantTypes(t, b.waitForEnd(t, id), "run.queued run.started run.succeeded")
	}
	if most.Load() > 4 {
		t.Errorf("%d at once at two workers", most.Load())
	}
	b.waitForNoWork(t)
}

// Of an agent that has all it may have nothing is asked for, though nothing is known to wait.
func TestConcurrencyOfAnIdleAgent(t *testing.T) {
	b := newBench(t)
	begun, goOn := make(chan struct{}), make(chan struct{})
	b.start(t, Config{Concurrency: 2, Agents: []agent.Agent{{Key: "echo", Run: echo}, {Key: "narrow", Concurrency: 1, Run: func(context.Context, *agent.Run) (agent.Result, error) {
		close(begun)
		<-goOn
		return agent.Result{}, nil
	}}}})
	defer close(goOn)
	b.submit(t, contracts.Submission{AgentKey: "narrow"})
	<-begun
	quiet := func() bool { _, asked := b.handed(t, "narrow"); return asked == 0 }
	waitFor(t, "the requests of before to end", quiet)
	for range 20 { // time to ask again
		b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "echo"}))
		if !quiet() {
			t.Fatal("it asks for what it cannot begin")
		}
	}
}
