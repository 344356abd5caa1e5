package builtin_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/builtin"
	"longhaul/pkg/contracts"
)

func TestAgentsAreWellDefined(t *testing.T) {
	for _, a := range builtin.All() {
		if err := a.Check(); err != nil {
			t.Error(err)
		}
		if got, ok := builtin.Named(a.Key); !ok || got.Key != a.Key {
			t.Errorf("Named(%q) does not find it", a.Key)
		}
	}
	if _, ok := builtin.Named("exec"); ok {
		t.Error("exec needs a configuration and is no agent by name alone")
	}
}

// The schemas must admit what the agents admit.
func TestSchemas(t *testing.T) {
	for _, tc := range []struct {
		agent  agent.Agent
		params string
		ok     bool
	}{
		{builtin.Echo(), `{}`, true},
		{builtin.Echo(), `{"x": 1}`, false},
		{builtin.Count(), `{"n": 0, "pause_ms": 10}`, true},
		{builtin.Count(), `{"n": -1}`, false},
		{builtin.Count(), `{"n": 1.5}`, false},
		{builtin.Count(), `{"n": 1000001}`, false},
		{builtin.Count(), `{"m": 1}`, false},
		{builtin.Flaky(), `{"fail_times": 0, "retriable": false, "panic": true, "exit": false}`, true},
		{builtin.Flaky(), `{"fail_times": "1"}`, false},
	} {
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(tc.agent.InputSchema)))
		if err != nil {
			t.Fatal(err)
		}
		c := jsonschema.NewCompiler()
		if err := c.AddResource("params.json", doc); err != nil {
			t.Fatal(err)
		}
		schema, err := c.Compile("params.json")
		if err != nil {
			t.Fatal(err)
		}
		params, err := jsonschema.UnmarshalJSON(strings.NewReader(tc.params))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(params); (err == nil) != tc.ok {
			t.Errorf("%s: schema on %s: %v, want ok %v", tc.agent.Key, tc.params, err, tc.ok)
		}
		if strings.Contains(tc.params, "panic") {
			continue
		}
		_, err = trial{params: tc.params}.run(t.Context(), tc.agent, &recorder{})
		if (err == nil) != tc.ok {
			t.Errorf("%s: run with %s: %v, want ok %v", tc.agent.Key, tc.params, err, tc.ok)
		}
		if err != nil && !agent.IsPermanent(err) {
			t.Errorf("%s: bad params %s are worth another attempt", tc.agent.Key, tc.params)
		}
	}
}

func TestEcho(t *testing.T) {
	host := &recorder{}
	in := []contracts.Message{contracts.Text("system", "be brief"), contracts.Text("user", "hi <b>")}
	got, err := trial{messages: in}.run(t.Context(), builtin.Echo(), host)
	if err != nil {
		t.Fatal(err)
	}
	if got.FinalOutput != "hi <b>" {
		t.Errorf("final output %q", got.FinalOutput)
	}
	want := append(slices.Clone(in), contracts.Text("assistant", "hi <b>"))
	if g, w := mustJSON(t, got.FinalMessages), mustJSON(t, want); g != w {
		t.Errorf("final messages %s, want %s", g, w)
	}
	if len(host.events) != 1 || host.events[0] != `assistant.message {"role":"assistant","content":"hi <b>"}` {
		t.Errorf("events %q", host.events)
	}
}

func TestEchoOfNothing(t *testing.T) {
	got, err := trial{}.run(t.Context(), builtin.Echo(), &recorder{})
	if err != nil || got.FinalOutput != "" || len(got.FinalMessages) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestCount(t *testing.T) {
	host := &recorder{}
	got, err := trial{params: `{"n": 3, "pause_ms": 1}`}.run(t.Context(), builtin.Count(), host)
	if err != nil {
		t.Fatal(err)
	}
	if out := mustJSON(t, got.FinalOutput); out != `{"count":3}` {
		t.Errorf("output %s", out)
	}
	if want := []string{`{"i":1}`, `{"i":2}`, `{"i":3}`}; !slices.Equal(host.states, want) {
		t.Errorf("checkpoints %q", host.states)
	}
	if got := host.text(t); got != "1 of 3\n2 of 3\n3 of 3\n" {
		t.Errorf("text %q", got)
	}
}

func TestCountResumes(t *testing.T) {
	host := &recorder{}
	got, err := trial{params: `{"n": 5}`, state: `{"i": 3}`, attempt: 2}.run(t.Context(), builtin.Count(), host)
	if err != nil {
		t.Fatal(err)
	}
	if out := mustJSON(t, got.FinalOutput); out != `{"count":5}` {
		t.Errorf("output %s", out)
	}
	if want := []string{`{"i":4}`, `{"i":5}`}; !slices.Equal(host.states, want) {
		t.Errorf("checkpoints %q, want %q", host.states, want)
	}
}

func TestCountEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	host := &recorder{onCheckpoint: func(n int) error {
		if n == 2 {
			cancel(agent.ErrCancelled)
		}
		return nil
	}}
	_, err := trial{params: `{"n": 100000, "pause_ms": 1}`}.run(ctx, builtin.Count(), host)
	if !errors.Is(err, agent.ErrCancelled) {
		t.Errorf("error %v, want the context's cause", err)
	}
	if len(host.states) != 2 {
		t.Errorf("%d steps after a cancel in the second", len(host.states))
	}
}

func TestFlaky(t *testing.T) {
	run := func(attempt int, params string) (agent.Result, error) {
		return trial{params: params, attempt: attempt}.run(t.Context(), builtin.Flaky(), &recorder{})
	}
	if _, err := run(2, `{"fail_times": 2}`); err == nil || agent.IsPermanent(err) {
		t.Errorf("attempt 2 of failing 2: %v, want a retriable error", err)
	}
	if got, err := run(3, `{"fail_times": 2}`); err != nil || mustJSON(t, got.FinalOutput) != `{"attempt":3}` {
		t.Errorf("attempt 3 of failing 2: %v, %v", got, err)
	}
	if _, err := run(1, `{"retriable": false}`); !agent.IsPermanent(err) {
		t.Errorf("not retriable: %v, want a permanent error", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("panic: there was none")
		}
	}()
	_, _ = run(1, `{"panic": true}`)
}

func TestFlakyEndsTheProcess(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), program+"=flaky-exit")
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != builtin.FlakyExitCode {
		t.Errorf("ended with %v, want exit code %d", err, builtin.FlakyExitCode)
	}
}
