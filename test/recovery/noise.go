package main

import (
	"context"
	"sync"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/test/cluster"
)

// noise is what the machine does to everybody: how long the broker takes for a
// question that costs it nothing, asked all the while. A slow figure while this
// was slow, too, says more about the machine than about the system.
type noise struct {
	mu      sync.Mutex
	answers []answer
}

// answer is one question's: when it was asked, how long it took.
type answer struct {
	at   time.Time
	took time.Duration
}

// noisePause is between two questions. They are to cost nobody anything.
const noisePause = 20 * time.Millisecond

// measure asks until ctx ends.
func (n *noise) measure(ctx context.Context, s *stage) {
	nobody := contracts.NewRunID()
	for cluster.Sleep(ctx, noisePause) == nil {
		asked := time.Now()
		_, _ = s.client.Head(ctx, nobody) // there is none; that it was looked for is enough
		took := time.Since(asked)
		n.mu.Lock()
		n.answers = append(n.answers, answer{asked, took})
		n.mu.Unlock()
	}
}

// all are the times of the answers so far.
func (n *noise) all() []time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []time.Duration
	for _, a := range n.answers {
		all = append(all, a.took)
	}
	return all
}

// slowest is the longest answer to a question that was open in a span of time.
func (n *noise) slowest(from, to time.Time) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	var worst time.Duration
	for _, a := range n.answers {
		if a.at.Before(to) && a.at.Add(a.took).After(from) {
			worst = max(worst, a.took)
		}
	}
	return worst
}
