package builtin_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/builtin"
	"longhaul/pkg/contracts"
)

// program, in the environment of this test binary, makes it a program for exec
// to run, or a worker for flaky to end (see programs_test.go).
const program = "BUILTIN_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if name := os.Getenv(program); name != "" {
		os.Exit(runTestProgram(name))
	}
	goleak.VerifyTestMain(m)
}

// recorder is a Host that keeps what is reported to it.
type recorder struct {
	agent.Host // none of its steps
	mu         sync.Mutex
	events     []string // type and payload
	states     []string
	// onCheckpoint, if set, is called with each checkpoint; its error is Checkpoint's.
	onCheckpoint func(n int) error
}

func (r *recorder) Emit(_ context.Context, t contracts.EventType, _ contracts.Visibility, payload json.RawMessage) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, string(t)+" "+string(payload))
	return nil
}

func (r *recorder) Delta(ctx context.Context, text string) error {
	payload, err := contracts.Encode(contracts.Delta{Text: text})
	if err != nil {
		return err
	}
	return r.Emit(ctx, contracts.TypeDelta, contracts.VisibilityUser, payload)
}

func (r *recorder) Checkpoint(ctx context.Context, state contracts.State) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.states = append(r.states, string(state.Data))
	if r.onCheckpoint != nil {
		return r.onCheckpoint(len(r.states))
	}
	return nil
}

// text is all text that was streamed.
func (r *recorder) text(t *testing.T) string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var all strings.Builder
	for _, e := range r.events {
		if raw, ok := strings.CutPrefix(e, "assistant.delta "); ok {
			var d contracts.Delta
			if err := json.Unmarshal([]byte(raw), &d); err != nil {
				t.Fatal(err)
			}
			all.WriteString(d.Text)
		}
	}
	return all.String()
}

// trial is one attempt of an agent.
type trial struct {
	params   string
	messages []contracts.Message
	attempt  int
	state    string
}

// newRun makes the Run of the trial under ctx.
func (tr trial) newRun(ctx context.Context, host agent.Host) *agent.Run {
	s := contracts.Submission{
		RunID: "0198c0de-7a11-7abc-8def-0123456789ab", AgentKey: "test",
		Input: contracts.Input{Messages: tr.messages, Params: json.RawMessage(tr.params)},
	}
	start := agent.Start{Submission: s, Attempt: max(1, tr.attempt), MaxAttempts: 3, Epoch: 1, Host: host, Log: func() *slog.Logger { return slog.New(slog.DiscardHandler) }}
	if tr.state != "" {
		start.State = &contracts.State{Data: []byte(tr.state)}
	}
	return agent.NewRun(ctx, start)
}

func (tr trial) run(ctx context.Context, a agent.Agent, host agent.Host) (agent.Result, error) {
	return a.Run(ctx, tr.newRun(ctx, host))
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func mustExec(t *testing.T, cfg builtin.ExecConfig) agent.Agent {
	t.Helper()
	a, err := builtin.Exec(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
