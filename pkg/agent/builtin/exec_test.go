package builtin_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/builtin"
)

// newExec returns an agent that runs this test binary as a program (see programs_test.go).
func newExec(t *testing.T, name string) agent.Agent {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return mustExec(t, builtin.ExecConfig{Command: []string{self}, Env: []string{program + "=" + name, "OWN=1"}, Grace: 300 * time.Millisecond})
}

func TestExecConfig(t *testing.T) {
	_, err := builtin.Exec(builtin.ExecConfig{
		Key: "No Key", Grace: -1, InputSchema: []byte("{"), Dir: "/no/such/dir", Env: []string{"novalue"}, PassEnv: []string{"A*B"},
		Timeout: -1, MaxOutput: -1, Limits: builtin.Limits{CPU: -1},
	})
	if err == nil {
		t.Fatal("a configuration full of faults is taken")
	}
	for _, field := range []string{"key", "command", "grace", "input_schema", "dir", "env[0]", "pass_env[0]", "timeout", "max_output", "limits"} {
		if !strings.Contains(err.Error(), field+": ") {
			t.Errorf("error %q does not name %s", err, field)
		}
	}
	if a := mustExec(t, builtin.ExecConfig{Command: []string{"true"}}); a.Key != builtin.KeyExec || a.Check() != nil {
		t.Errorf("key %q, check %v", a.Key, a.Check())
	}
}

func TestExecEvents(t *testing.T) {
	host := &recorder{}
	got, err := trial{params: `{"month":"11"}`}.run(t.Context(), newExec(t, "events"), host)
	if err != nil {
		t.Fatal(err)
	}
	if out := mustJSON(t, got.FinalOutput); out != `{"params":{"month":"11"}}` {
		t.Errorf("output %s", out)
	}
	if mustJSON(t, got.Usage) != `{"tokens":7}` || mustJSON(t, got.Artifacts) != `["a.txt"]` || len(got.FinalMessages) != 1 {
		t.Errorf("result %+v", got)
	}
	want := []string{
		`assistant.delta {"text":"hello from 0198c0de-7a11-7abc-8def-0123456789ab\n"}`,
		`assistant.delta {"text":"{\"no type\": \"is text\"}\n"}`,
		`tool.call {"name":"look"}`,
		`step {}`,
		`assistant.delta {"text":"more"}`,
	}
	if !slices.Equal(host.events, want) {
		t.Errorf("events\n%s\nwant\n%s", strings.Join(host.events, "\n"), strings.Join(want, "\n"))
	}
	if !slices.Equal(host.states, []string{`{"page":1}`}) {
		t.Errorf("checkpoints %q", host.states)
	}
}

func TestExecEnvironment(t *testing.T) {
	t.Setenv("LONGHAUL_CREDS", "/secret")
	host := &recorder{}
	if _, err := (trial{attempt: 2, state: `{"page":1}`}).run(t.Context(), newExec(t, "environment"), host); err != nil {
		t.Fatal(err)
	}
	want := "LONGHAUL_RUN_ID=0198c0de-7a11-7abc-8def-0123456789ab\nLONGHAUL_ATTEMPT=2\nLONGHAUL_STATE={\"page\":1}\nLONGHAUL_CREDS=\nOWN=1\n"
	if got := host.text(t); got != want {
		t.Errorf("the program saw\n%swant\n%s", got, want)
	}
}

func TestExecLargeState(t *testing.T) {
	host := &recorder{}
	state := `"` + strings.Repeat("x", 100_000) + `"`
	if _, err := (trial{state: state}).run(t.Context(), newExec(t, "environment"), host); err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(host.text(t), "\nfile ")
	fields := strings.Fields(line)
	if len(fields) != 3 || fields[1] != strconv.Itoa(len(state)) || fields[2] != "<nil>" {
		t.Fatalf("the program read %q, want a file of %d bytes", line, len(state))
	}
	if _, err := os.Stat(fields[0]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state's file is left behind: %v", err)
	}
}

func TestExecFailure(t *testing.T) {
	a := newExec(t, "fail")
	tr := trial{}
	_, err := tr.run(t.Context(), a, &recorder{})
	info := a.OnError(t.Context(), tr.newRun(t.Context(), &recorder{}), err)
	if info == nil {
		t.Fatalf("error %v is not classified", err)
	}
	if !info.Retriable || info.Type != "ExitError" || !strings.HasPrefix(info.Message, "exit status 3: … x") ||
		!strings.HasSuffix(info.Message, "\nthe end of it") || len(info.Message) > 5_000 {
		t.Errorf("error info %.100s…, %d bytes, retriable %v", info.Message, len(info.Message), info.Retriable)
	}
}

func TestExecFailureOfItsOwnWords(t *testing.T) {
	a, host := newExec(t, "fail-for-good"), &recorder{}
	tr := trial{}
	_, err := tr.run(t.Context(), a, host)
	info := a.OnError(t.Context(), tr.newRun(t.Context(), host), err)
	if info == nil || info.Retriable || info.Type != "BadInput" || info.Message != "no such month" {
		t.Errorf("error info %+v", info)
	}
	if len(host.events) != 1 || !strings.HasPrefix(host.events[0], "error ") {
		t.Errorf("events %q, want the error as one", host.events)
	}
}

func TestExecNoSuchProgram(t *testing.T) {
	if _, err := builtin.Exec(builtin.ExecConfig{Command: []string{"/no/such/program"}}); err == nil || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("an agent without a program: %v, want an error that names it", err)
	}
	// One that is removed later fails its runs, for good.
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	a := mustExec(t, builtin.ExecConfig{Command: []string{program}})
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	if _, err := (trial{}).run(t.Context(), a, &recorder{}); !agent.IsPermanent(err) {
		t.Errorf("error %v, want a permanent one", err)
	}
}

func TestExecProtocolFaults(t *testing.T) {
	for name, want := range map[string]string{"reserved": `"run.succeeded"`, "long-event": "in one line"} {
		began := time.Now()
		_, err := trial{}.run(t.Context(), newExec(t, name), &recorder{})
		if !agent.IsPermanent(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want a permanent one with %s", name, err, want)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: the program was left alone for %s", name, took)
		}
	}
}

func TestExecLongText(t *testing.T) {
	host := &recorder{}
	if _, err := (trial{}).run(t.Context(), newExec(t, "long-text"), host); err != nil {
		t.Fatal(err)
	}
	if got, want := host.text(t), strings.Repeat("ä", 50_000)+"\n"; got != want {
		t.Errorf("%d bytes of text, want %d; characters were cut: %v", len(got), len(want), strings.Contains(got, "\uFFFD"))
	}
	if len(host.events) < 2 {
		t.Error("a line without an end is held in memory")
	}
}

// cancelOnCheckpoint runs an agent and cancels it when it saves a checkpoint.
func cancelOnCheckpoint(t *testing.T, a agent.Agent, cause error) (*recorder, error) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	host := &recorder{onCheckpoint: func(int) error { cancel(cause); return nil }}
	_, err := trial{}.run(ctx, a, host)
	return host, err
}

func TestExecCancelPolitely(t *testing.T) {
	host, err := cancelOnCheckpoint(t, newExec(t, "polite"), agent.ErrCancelled)
	if !errors.Is(err, agent.ErrCancelled) {
		t.Errorf("error %v, want the context's cause", err)
	}
	if got := host.text(t); got != "bye\n" {
		t.Errorf("text %q, want the program's last words", got)
	}
}

func TestExecCancelByForce(t *testing.T) {
	host, err := cancelOnCheckpoint(t, newExec(t, "stubborn"), agent.ErrTimeout)
	if !errors.Is(err, agent.ErrTimeout) {
		t.Errorf("error %v, want the context's cause", err)
	}
	waitGone(t, host.states[0])
}

func TestExecEndsItsGroup(t *testing.T) {
	got, err := trial{}.run(t.Context(), newExec(t, "leaves-child"), &recorder{})
	if err != nil {
		t.Fatal(err)
	}
	waitGone(t, mustJSON(t, got.FinalOutput))
}

// A daemon that left the group and holds the pipes must not hold the run.
func TestExecDoesNotWaitForDaemons(t *testing.T) {
	began := time.Now()
	got, err := trial{}.run(t.Context(), newExec(t, "daemon"), &recorder{})
	if err != nil || got.FinalOutput == nil {
		t.Fatalf("got %v, %v", got, err)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("it took %s", took)
	}
}

// waitGone waits until the process that pid names has ended, or is a zombie that
// nobody has buried yet.
func waitGone(t *testing.T, pid string) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
			return
		}
		if stat, err := os.ReadFile("/proc/" + pid + "/stat"); err == nil && strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("waited 10 s for process %d to end", n)
}
