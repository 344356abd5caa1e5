package statekeeper

import (
	"context"
	"errors"
	"testing"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil/jstest"
)

// TestStopsForAnyReason: a host may end the context with a cause of its own.
// That is a stop as any other: what is folded is written first.
func TestStopsForAnyReason(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	s, err := New(b.Connect(t), Config{Topology: b.TopologyOptions(), Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	s.projector.window = time.Second
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	p := newPlayer(t, b)
	head, id := p.submit(contracts.Submission{})
	waitFor(t, "the event to be folded", func() (bool, string) { return s.projector.counters.stats().Events == 1, "" })
	cancel(errors.New("another service of this host has failed"))
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	there, err := p.records.get(t.Context(), id)
	if err != nil || there.rec.LogSequence != head.Sequence {
		t.Errorf("record %+v, %v after the stop, want that of sequence %d", there.rec, err, head.Sequence)
	}
}
