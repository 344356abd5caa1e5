package statekeeper

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil/jstest"
)

// supervised runs projectors as a Statekeeper would.
type supervised struct {
	projectors []*projector
	running    sync.WaitGroup
	cancels    []context.CancelFunc
}

func (s *supervised) start(t *testing.T, p *projector) {
	ctx, cancel := context.WithCancel(t.Context())
	s.projectors, s.cancels = append(s.projectors, p), append(s.cancels, cancel)
	s.running.Go(func() {
		for ctx.Err() == nil {
			if err := p.run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				t.Logf("projector %s: %v", p.consumer, err)
			}
		}
	})
	t.Cleanup(func() { s.stop(t) })
}

func (s *supervised) stop(t *testing.T) {
	t.Helper()
	for _, cancel := range s.cancels {
		cancel()
	}
	s.running.Wait()
}

// watchRegress counts the writes of status records whose log sequence is not
// above that of the write before.
func watchRegress(t *testing.T, b *jstest.Broker) func() int {
	t.Helper()
	cons, err := b.JS.OrderedConsumer(t.Context(), contracts.StreamRuns, jetstream.OrderedConsumerConfig{FilterSubjects: []string{allStatusSubjects()}})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	last, count := make(map[string]uint64), 0
	consuming, err := cons.Consume(func(m jetstream.Msg) {
		var rec contracts.StatusRecord
		if err := json.Unmarshal(m.Data(), &rec); err != nil {
			t.Errorf("record %s: %v", m.Data(), err)
		}
		mu.Lock()
		defer mu.Unlock()
		if rec.LogSequence <= last[rec.RunID] {
			count++
		}
		last[rec.RunID] = rec.LogSequence
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { consuming.Stop(); <-consuming.Closed() })
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return count
	}
}
