package builtin_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/agent/builtin"
	"longhaul/pkg/agent/schema"
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
		s, err := schema.Compile(tc.agent.InputSchema)
		if err != nil {
			t.Fatal(err)
		}
		if faults := s.Check(json.RawMessage(tc.params), "params"); (faults == nil) != tc.ok {
			t.Errorf("%s: schema on %s: %v, want ok %v", tc.agent.Key, tc.params, faults, tc.ok)
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

// Wherever its worker dies, count goes on behind its last checkpoint.
func TestCountSurvivesCrashes(t *testing.T) {
	for n := range uint64(5) {
		for name, script := range map[string]func(*agenttest.Trial, func(contracts.Event) agenttest.Act){
			"before": func(tr *agenttest.Trial, s func(contracts.Event) agenttest.Act) { tr.Before = s },
			"after":  func(tr *agenttest.Trial, s func(contracts.Event) agenttest.Act) { tr.After = s },
		} {
			trial := agenttest.New(builtin.Count(), agenttest.Params(map[string]int{"n": 5}))
			script(trial, func(e contracts.Event) agenttest.Act {
				if e.Epoch == 1 && e.Type == contracts.TypeCheckpoint && e.Checkpoint.N == n+1 {
					return agenttest.Crash
				}
				return agenttest.GoOn
			})
			o := trial.Run(t.Context())
			if string(o.FinalOutput) != `{"count":5}` {
				t.Errorf("%s checkpoint %d: %s, output %s", name, n+1, o.Status, o.FinalOutput)
			}
			i := 0
			for _, e := range trial.Events() {
				if e.Type == contracts.TypeCheckpoint {
					if i++; string(e.Payload) != fmt.Sprintf(`{"n":%d,"size":7,"state":{"i":%d}}`, i, i) {
						t.Errorf("%s checkpoint %d: the %dth is %s", name, n+1, i, e.Payload)
					}
				}
			}
			if i != 5 || o.Status != contracts.StatusSucceeded {
				t.Errorf("%s checkpoint %d: %d checkpoints, %s", name, n+1, i, o.Status)
			}
		}
	}
}

func TestCountEndsWithItsContext(t *testing.T) {
	trial := agenttest.New(builtin.Count(), agenttest.Params(map[string]int{"n": 100_000, "pause_ms": 1}))
	n := 0
	trial.After = func(e contracts.Event) agenttest.Act {
		if e.Type == contracts.TypeCheckpoint {
			if n++; n == 2 {
				return agenttest.Cancel
			}
		}
		return agenttest.GoOn
	}
	if o := trial.Run(t.Context()); o.Status != contracts.StatusCancelled || n != 2 {
		t.Errorf("%s after %d steps, cancelled in the second", o.Status, n)
	}
}

func TestFlaky(t *testing.T) {
	for _, c := range []struct {
		params   map[string]any
		status   contracts.Status
		attempts int
		errType  string
	}{
		{map[string]any{"fail_times": 2}, contracts.StatusSucceeded, 3, contracts.ErrorTypeAgent},
		{map[string]any{"fail_times": 3}, contracts.StatusFailed, 3, contracts.ErrorTypeAgent},
		{map[string]any{"retriable": false}, contracts.StatusFailed, 1, contracts.ErrorTypeAgent},
		{map[string]any{"panic": true}, contracts.StatusSucceeded, 2, contracts.ErrorTypePanic},
	} {
		trial := agenttest.New(builtin.Flaky(), agenttest.Params(c.params))
		o := trial.Run(t.Context())
		events := trial.Events()
		if last := events[len(events)-1]; o.Status != c.status || last.Attempt != c.attempts || o.Error.Type != c.errType {
			t.Errorf("%v: %s in attempt %d, the last error %+v", c.params, o.Status, last.Attempt, o.Error)
		}
		if want := fmt.Sprintf(`{"attempt":%d}`, c.attempts); c.status == contracts.StatusSucceeded && string(o.FinalOutput) != want {
			t.Errorf("%v: output %s, want %s", c.params, o.FinalOutput, want)
		}
	}
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
