package jsutil_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

func TestWaitTopologyOutlastsAnOutage(t *testing.T) {
	b := jstest.StartFile(t)
	if err := b.JS.DeleteStream(t.Context(), contracts.StreamAgents); err != nil {
		t.Fatal(err)
	}
	b.Stop(t)
	result := make(chan error, 1)
	go func() { result <- jsutil.WaitTopology(t.Context(), b.JS, b.Topology(), slog.New(slog.DiscardHandler)) }()
	b.Restart(t)
	select {
	case err := <-result:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(3 * patience):
		t.Fatalf("waited %s for the topology", 3*patience)
	}
	if diffs := mustVerify(t, b); len(diffs) > 0 {
		t.Errorf("differences after WaitTopology: %+v", diffs)
	}
}

func TestWaitTopologyEndsWithItsContext(t *testing.T) {
	b := jstest.Start(t)
	b.Stop(t)
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	result := make(chan error, 1)
	go func() { result <- jsutil.WaitTopology(ctx, b.JS, b.Topology(), nil) }()
	cancel(cause)
	select {
	case err := <-result:
		if !errors.Is(err, cause) {
			t.Errorf("got %v, want the cause", err)
		}
	case <-time.After(patience):
		t.Fatalf("waited %s for WaitTopology to end", patience)
	}
}
