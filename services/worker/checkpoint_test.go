package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// What an agent hands to Checkpoint in its first attempt, State gives back in
// its second one, byte for byte: any JSON, any bytes, of any size up to the
// limit. The event says the size, and the state itself if it is small.
func TestStatesOfEveryKind(t *testing.T) {
	b := newBench(t)
	large := bytes.Repeat([]byte{0xff, 0, '\n', '"'}, 50_000)
	text := strings.Repeat("x", 100_000)
	most := bytes.Repeat([]byte{7}, int(b.NC.MaxPayload())-envelopeRoom)
	cases := map[string]struct {
		state    any
		into     func() any
		want     any
		inlined  string
		isBinary bool
	}{
		"struct":       {map[string]int{"i": 3}, func() any { return new(map[string]int) }, &map[string]int{"i": 3}, `{"i":3}`, false},
		"bytes":        {[]byte{0, 0xfe, 0xff}, func() any { return new([]byte) }, &[]byte{0, 0xfe, 0xff}, "\x00\xfe\xff", true},
		"no bytes":     {[]byte{}, func() any { return new([]byte) }, &[]byte{}, "", true},
		"JSON bytes":   {[]byte(`{"i":3}`), func() any { return new(map[string]int) }, &map[string]int{"i": 3}, `{"i":3}`, true},
		"large JSON":   {text, func() any { return new(string) }, &text, "", false},
		"large bytes":  {large, func() any { return new([]byte) }, &large, "", true},
		"at the limit": {most, func() any { return new([]byte) }, &most, "", true},
	}
	got := make(chan any, 1)
	run := func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		c := cases[run.Metadata["case"]]
		if run.Attempt == 1 {
			if err := run.Checkpoint(ctx, c.state); err != nil {
				return agent.Result{}, agent.Permanent(err)
			}
			return agent.Result{}, errors.New("once more")
		}
		v := c.into()
		found, err := run.State(v)
		if err != nil || !found {
			return agent.Result{}, agent.Permanent(fmt.Errorf("state found: %v, %w", found, err))
		}
		got <- v
		return agent.Result{}, nil
	}
	w, _ := b.start(t, Config{RetryBackoffBase: 0.01, Agents: []agent.Agent{{Key: "saver", Run: run}}})
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			all := b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "saver", Metadata: map[string]string{"case": name}}))
			wantTypes(t, all, "run.queued run.started state.checkpoint run.retrying run.started run.succeeded")
			if t.Failed() {
				t.Fatalf("%s", last(all).Payload)
			}
			if v := <-got; !reflect.DeepEqual(v, c.want) {
				t.Errorf("the second attempt read %.100v", v)
			}
			p := payload[contracts.Checkpointed](t, all[2])
			if s := string(p.State) + string(p.Binary); s != c.inlined || (p.Binary != nil) != (c.isBinary && c.inlined != "") {
				t.Errorf("the event repeats %q, %q", p.State, p.Binary)
			}
			m, _, err := w.resume(t.Context(), all[2].Head())
			if err != nil || m.Binary != c.isBinary || len(m.Data) != p.Size {
				t.Errorf("stored are %d bytes, binary %v, %v; the event says %d", len(m.Data), m.Binary, err, p.Size)
			}
		})
	}
}

// One byte above the limit is refused for good, and the words say all that the
// agent's author has to know. The checkpoint before it stands.
func TestStateAboveTheLimit(t *testing.T) {
	b := newBench(t)
	w, _ := b.start(t, Config{Agents: []agent.Agent{{Key: "big", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		if err := run.Checkpoint(ctx, 1); err != nil {
			return agent.Result{}, err
		}
		return agent.Result{}, run.Checkpoint(ctx, make([]byte, 1<<20-4<<10+1))
	}}}})
	if limit := w.payloadLimit(); limit != 1<<20-4<<10 {
		t.Fatalf("the limit is %d", limit)
	}
	all := b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "big"}))
	wantTypes(t, all, "run.queued run.started state.checkpoint run.failed")
	p := payload[contracts.Failed](t, last(all))
	for _, want := range []string{"1044481 bytes", "limit of 1044480", "max_payload of 1048576", "object store"} {
		if !strings.Contains(p.Message, want) || p.Retriable || p.Attempts != 1 {
			t.Errorf("run.failed says %+v, without %q", p, want)
		}
	}
	if last(all).Checkpoint.N != 1 {
		t.Errorf("the head names checkpoint %d", last(all).Checkpoint.N)
	}
}

// A state in the wrong hands: the error is permanent and says what to do.
func TestBytesReadAsSomethingElse(t *testing.T) {
	run := agent.NewRun(t.Context(), agent.Start{State: &contracts.State{Data: []byte("plain"), Binary: true}})
	var n int
	found, err := run.State(&n)
	if !found || !agent.IsPermanent(err) || !strings.Contains(err.Error(), "*[]byte, not *int") {
		t.Errorf("got %v, %v", found, err)
	}
	// Before []byte was stored as it is, it was a JSON string.
	run = agent.NewRun(t.Context(), agent.Start{State: &contracts.State{Data: []byte(`"cGxhaW4="`)}})
	var s []byte
	if found, err := run.State(&s); !found || err != nil || string(s) != "plain" {
		t.Errorf("got %q, %v, %v", s, found, err)
	}
}

// A run whose state has been deleted, or written over by hand, cannot go on, and
// must not begin anew by itself: it ends, and says so.
func TestCheckpointLost(t *testing.T) {
	b := newBench(t)
	stream, err := b.JS.Stream(t.Context(), contracts.StreamRuns)
	if err != nil {
		t.Fatal(err)
	}
	b.start(t, Config{RetryBackoffBase: 0.01, Agents: []agent.Agent{{Key: "loser", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		if err := run.Checkpoint(ctx, 1); err != nil {
			return agent.Result{}, err
		}
		key := contracts.KVSubject(contracts.BucketRuns, contracts.CheckpointKey(run.ID, 1, 1))
		var err error
		if run.Metadata["how"] == "deleted" {
			err = stream.Purge(ctx, jetstream.WithPurgeSubject(key))
		} else {
			_, err = b.JS.Publish(ctx, key, []byte("2"))
		}
		if err != nil {
			return agent.Result{}, err
		}
		return agent.Result{}, errors.New("half way")
	}}}})
	for _, how := range []string{"deleted", "written over"} {
		all := b.waitForEnd(t, b.submit(t, contracts.Submission{AgentKey: "loser", Metadata: map[string]string{"how": how}}))
		wantTypes(t, all, "run.queued run.started state.checkpoint run.retrying run.failed")
		if p := payload[contracts.Failed](t, last(all)); p.Type != contracts.ErrorTypeCheckpointLost || p.Retriable || p.Attempts != 1 ||
			!strings.Contains(p.Message, "checkpoint 1 has gone") {
			t.Errorf("%s: run.failed says %+v", how, p)
		}
	}
	b.waitForNoWork(t)
}
