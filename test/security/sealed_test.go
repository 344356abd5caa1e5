package security

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/internal/security"
	"longhaul/pkg/agent"
	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
	"longhaul/pkg/seal"
	"longhaul/services/worker"
	"longhaul/test/secured"
)

// hush is in everything that a run is about, and nowhere else.
const hush = "hush-hush"

// confidant is an agent that says hush in every way there is.
func confidant(ctx context.Context, run *agent.Run) (agent.Result, error) {
	var params struct {
		What string `json:"what"`
	}
	if err := run.Params(&params); err != nil {
		return agent.Result{}, err
	}
	if params.What != hush || run.Messages[len(run.Messages)-1].Text() != hush+" please" {
		return agent.Result{}, agent.Permanent(fmt.Errorf("was given %q and %d messages", params.What, len(run.Messages)))
	}
	var state struct{ Kept string }
	resumed, err := run.State(&state)
	if err != nil || resumed && state.Kept != hush {
		return agent.Result{}, agent.Permanent(fmt.Errorf("resumed with %+v: %w", state, err))
	}
	if !resumed {
		err := errors.Join(run.Emit("secret.told", map[string]string{"to": hush}), run.Debug("secret.noted", hush), run.Delta(hush+" "), run.Delta("and "+hush),
			run.Message(contracts.Text("assistant", hush)))
		if err != nil {
			return agent.Result{}, err
		}
	}
	got, err := agent.Step(ctx, run, "whisper", func(context.Context) (string, error) { return hush, nil })
	if err != nil || got != hush {
		return agent.Result{}, fmt.Errorf("step: %q, %w", got, err)
	}
	if !resumed {
		if err := run.Checkpoint(ctx, map[string]string{"kept": hush}); err != nil {
			return agent.Result{}, err
		}
		return agent.Result{}, errors.New("failed with " + hush)
	}
	word, err := agent.Signal[string](ctx, run, "word", time.Hour)
	if err != nil {
		return agent.Result{}, err
	}
	if word == "panic" {
		panic(hush)
	}
	if word != hush {
		return agent.Result{}, agent.Permanent(fmt.Errorf("was told %q", word))
	}
	return agent.Result{FinalOutput: map[string]string{"out": hush}, Artifacts: []any{hush},
		FinalMessages: append(run.Messages[:len(run.Messages):len(run.Messages)], contracts.Text("assistant", "told "+hush))}, nil
}

// Everything a run is about is an envelope to the broker and to all who look at
// it without the key; to those who hold it nothing has changed. The same without
// keys shows that the test would see it.
func TestSealedRuns(t *testing.T) {
	line, err := seal.NewKey("k1")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := seal.ParseKeys(line)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("sealed", func(t *testing.T) {
		if seen := confide(t, keys); len(seen) > 0 {
			t.Errorf("in the clear: %s", strings.Join(seen, "\n"))
		}
	})
	t.Run("in the clear", func(t *testing.T) {
		seen := strings.Join(confide(t, nil), "\n")
		for _, where := range []string{"run.queued", "run.started", "secret.told", "assistant.delta", "assistant.message", "state.checkpoint", "step.completed", "run.retrying",
			"run.signalled", "run.succeeded", "run.failed", "KV_runs $KV.runs.checkpoint", "KV_runs $KV.runs.status", "RUNS_INBOX", "worker's log"} {
			if !strings.Contains(seen, where) {
				t.Errorf("nothing was seen in %s", where)
			}
		}
	})
}

// confide has runs tell secrets, and returns where an onlooker can read them.
func confide(t *testing.T, keys *seal.Keys) (seen []string) {
	d := secured.New(t, security.Plan{AgentSets: []security.AgentSet{{Name: "mail", Agents: []string{"confidant"}}}})
	js := d.Topology(t, "main", "confidant")
	s := &stage{d: d}
	statekeeper := s.start(t, "statekeeper", "statekeeper")
	look := func(where string, data []byte) {
		if bytes.Contains(data, []byte(hush)) {
			seen = append(seen, where)
		}
	}

	c, err := client.New(d.Connect(t, "main-client", nil), client.WithKeys(keys))
	if err != nil {
		t.Fatal(err)
	}
	submission := contracts.Submission{AgentKey: "confidant", ConversationID: "c1", MaxAttempts: 2, Input: contracts.Input{
		Messages: []contracts.Message{contracts.Text("user", hush+" please")}, Params: json.RawMessage(`{"what":"` + hush + `"}`)}}
	var ids []string
	for range 2 { // the second is given what the first has said
		id, err := c.Submit(t.Context(), submission)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	scan(t, js.Conn(), "RUNS_INBOX", look) // while it is all there
	dispatcher := s.start(t, "dispatcher", "dispatcher", "--accept-unknown-agents")

	log := new(output)
	def := agent.Agent{Key: "confidant", Run: confidant, InputSchema: json.RawMessage(`{"type":"object","required":["what"]}`)}
	if keys != nil {
		if def, err = agent.Sealed(def, keys); err != nil {
			t.Fatal(err)
		}
	}
	w, err := worker.New(d.Connect(t, "main-worker-mail", nil), worker.Config{Agents: []agent.Agent{def}, RetryBackoffBase: 0.1,
		Logger: slog.New(slog.NewTextHandler(io.MultiWriter(log, io.Discard), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	for i, id := range ids {
		waitFor(t, "run "+id+" to wait for its signal", func() bool {
			e, err := c.Head(t.Context(), id)
			return err == nil && e.WaitsFor == "word"
		})
		if i == 0 {
			scan(t, js.Conn(), "RUNS_WORK", look)
			scan(t, js.Conn(), "KV_runs", look)
		}
		if err := c.Signal(t.Context(), id, contracts.SignalCommand{Name: "word", Payload: json.RawMessage([]string{`"` + hush + `"`, `"panic"`}[i])}); err != nil {
			t.Fatal(err)
		}
		out, err := c.Wait(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		told(t, c, id, out, i == 0)
	}
	for _, stream := range []string{"RUNS_INBOX", "RUNS_LOG", "RUNS_WORK", "RUNS_SCHEDULE", "KV_runs", "KV_agents"} {
		scan(t, js.Conn(), stream, look)
	}
	look("worker's log", []byte(log.String()))
	look("dispatcher's log", []byte(dispatcher.out.String()))
	look("statekeeper's log", []byte(statekeeper.out.String()))
	return seen
}

// told looks at a run as the one who submitted it does.
func told(t *testing.T, c *client.Client, id string, out client.Outcome, first bool) {
	t.Helper()
	var all []string
	for e, err := range c.History(t.Context(), id, 1) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(e.Type)+" "+string(e.Payload))
	}
	text := strings.Join(all, "\n")
	for _, want := range []string{`"what":"` + hush + `"`, `{"to":"` + hush + `"}`, hush + " and " + hush, "failed with " + hush, `"kept":"` + hush + `"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the log of run %s lacks %s:\n%s", id, want, text)
		}
	}
	if strings.Contains(text, "sealed:1:") {
		t.Errorf("something was not opened:\n%s", text)
	}
	got, err := c.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if first {
		result, err := out.Result()
		if err != nil || string(result.FinalOutput) != `{"out":"`+hush+`"}` || len(result.FinalMessages) != 2 || result.FinalMessages[1].Text() != "told "+hush ||
			!strings.Contains(string(got.Result), hush) {
			t.Errorf("result %+v, %v\nget: %s", result, err, got.Result)
		}
		return
	}
	if err := out.Err(); err == nil || !strings.Contains(err.Error(), "panic: "+hush) {
		t.Errorf("a panic is told as %v", err)
	}
	if got.Run.Error == nil || !strings.Contains(got.Run.Error.Message, hush) || !strings.Contains(text, "told "+hush) {
		t.Errorf("get: %+v", got.Run.Error)
	}
}

// scan looks at every message of a stream.
func scan(t *testing.T, nc *nats.Conn, stream string, look func(where string, data []byte)) {
	t.Helper()
	for seq := uint64(1); ; seq++ {
		m, err := jsutil.GetFromLeader(t.Context(), nc, stream, jsutil.GetRequest{Seq: seq, NextFor: ">"})
		if errors.Is(err, jsutil.ErrNotFound) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		seq = m.Sequence
		kind := ""
		if e, err := runlog.Decode(m.Subject, m.Sequence, m.Data); err == nil {
			kind = string(e.Type)
		}
		look(stream+" "+m.Subject+" "+kind, m.Data)
	}
}
