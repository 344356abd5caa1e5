package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil/jstest"
	"longhaul/pkg/runlog"
)

func nothingUsed() (u agent.Usage) { return u }

// What waits for the log is bounded by its number and by its bytes: beyond
// that the agent waits, until there is room or its context ends. The order stays.
func TestWaitingEventsAreBounded(t *testing.T) {
	broker := jstest.StartFile(t)
	b := &bench{Broker: broker, runs: runlog.New(broker.JS)}
	const most = 300
	for size, want := range map[int]int{
		1:              256,                      // by number
		100 << 10:      maxWaiting / (100 << 10), // by bytes, of which the JSON takes a few
		800 << 10:      5,
		maxWaiting:     1,
		maxWaiting * 2: 1, // larger than all: alone
	} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			id := b.submit(t, contracts.Submission{AgentKey: "talk"})
			w := newWriter(t.Context(), b.runs, b.startByHand(t, id, "w-1"))
			w.usage = nothingUsed
			w.busy = true // as if the broker did not answer: nobody drains, of the largest not even to refuse them
			queued := 0
			for ; queued < most; queued++ {
				// The last one in vain: whoever waits is told why it waits no more.
				ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, agent.ErrTimeout)
				payload := json.RawMessage(fmt.Sprintf(`{"n":%d,"x":"%s"}`, queued, strings.Repeat("x", max(0, size-40))))
				err := w.emit(ctx, contracts.Draft{Type: "tick", Payload: payload})
				cancel()
				if err != nil {
					if !errors.Is(err, agent.ErrTimeout) {
						t.Errorf("event %d: %v", queued, err)
					}
					break
				}
			}
			if queued != want {
				t.Errorf("%d events of %d bytes were taken, want %d", queued, size, want)
			}
			go w.drain(nil) // ends with the commit
			if err := w.commit(t.Context(), func(contracts.Head) (contracts.Draft, error) {
				return contracts.Draft{Type: contracts.TypeSucceeded}, nil
			}); err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, e := range b.waitForEnd(t, id) {
				if e.Type == "tick" {
					if p := payload[struct{ N int }](t, e); p.N != n {
						t.Fatalf("event %d stands in place %d", p.N, n)
					}
					n++
				}
			}
			if size < 1<<20 && n != queued {
				t.Errorf("%d events were taken and %d written", queued, n)
			}
		})
	}
}

// Whoever waits for an event of its own leaves what came meanwhile to somebody
// else, who sees to it.
func TestEventBehindACommit(t *testing.T) {
	b := newBench(t)
	id := b.submit(t, contracts.Submission{AgentKey: "talk"})
	w := newWriter(t.Context(), b.runs, b.startByHand(t, id, "w-1"))
	w.usage = nothingUsed
	err := w.commit(t.Context(), func(contracts.Head) (contracts.Draft, error) {
		return contracts.Draft{Type: "first"}, w.emit(t.Context(), contracts.Draft{Type: "second"})
	})
	if err != nil {
		t.Fatal(err)
	}
	b.waitForEvent(t, id, "second")
	waitFor(t, "the writer to be idle", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return !w.busy
	})
}

// A lease that is lost ends the wait as well.
func TestWaitForRoomEndsWithTheLease(t *testing.T) {
	broker := jstest.StartFile(t)
	b := &bench{Broker: broker, runs: runlog.New(broker.JS)}
	id := b.submit(t, contracts.Submission{AgentKey: "talk"})
	writing, stopWriting := context.WithCancel(t.Context())
	w := newWriter(writing, b.runs, b.startByHand(t, id, "w-1"))
	w.usage = nothingUsed
	broker.Stop(t)
	large := contracts.Draft{Type: "tick", Payload: json.RawMessage(`"` + strings.Repeat("x", maxWaiting) + `"`)}
	if err := w.emit(t.Context(), large); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- w.emit(t.Context(), large) }()
	stopWriting()
	if err := <-ended; !errors.Is(err, agent.ErrLeaseLost) {
		t.Errorf("the wait ended with %v", err)
	}
	waitFor(t, "the writer to be idle", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return !w.busy
	})
}
