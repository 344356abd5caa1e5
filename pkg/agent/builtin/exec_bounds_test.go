package builtin_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/builtin"
)

// bounded is newExec with bounds.
func bounded(t *testing.T, name string, bound func(*builtin.ExecConfig)) agent.Agent {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg := builtin.ExecConfig{Command: []string{self}, Env: []string{program + "=" + name}, Grace: 300 * time.Millisecond}
	bound(&cfg)
	return mustExec(t, cfg)
}

// A program gets the variables that it is to have, and no other.
func TestExecPassEnv(t *testing.T) {
	t.Setenv("SOME_API_KEY", "secret")
	t.Setenv("APP_ONE", "1")
	t.Setenv("APP_TWO", "2")
	t.Setenv("LONGHAUL_CREDS", "/secret")
	for _, c := range []struct {
		pass []string
		want []string
	}{
		{[]string{}, nil},
		{[]string{"APP_*"}, []string{"APP_ONE=1", "APP_TWO=2"}},
		{[]string{"APP_ONE", "LONGHAUL_CREDS"}, []string{"APP_ONE=1"}},
		{nil, []string{"APP_ONE=1", "APP_TWO=2", "SOME_API_KEY=secret"}},
	} {
		host := &recorder{}
		a := bounded(t, "whole-environment", func(cfg *builtin.ExecConfig) { cfg.PassEnv = c.pass })
		if _, err := (trial{}).run(t.Context(), a, host); err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(host.text(t)) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "APP_") || strings.Contains(line, "secret") {
				got = append(got, line)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("of %q the program saw %q, want %q", c.pass, got, c.want)
		}
		if c.pass != nil && strings.Contains(host.text(t), "HOME=") {
			t.Errorf("of %q the program saw HOME", c.pass)
		}
	}
	if !slices.Contains(builtin.PlainEnv(), "PATH") {
		t.Error("a plain program has no PATH")
	}
}

func TestExecTimeout(t *testing.T) {
	a := bounded(t, "sleeps", func(cfg *builtin.ExecConfig) { cfg.Timeout = 200 * time.Millisecond })
	begun := time.Now()
	_, err := trial{}.run(t.Context(), a, &recorder{})
	info := a.OnError(t.Context(), nil, err)
	if info == nil || info.Type != "ProgramTimeout" || !info.Retriable || time.Since(begun) > 10*time.Second {
		t.Errorf("after %v: %v, %+v", time.Since(begun), err, info)
	}
}

func TestExecMaxOutput(t *testing.T) {
	a := bounded(t, "talks", func(cfg *builtin.ExecConfig) { cfg.MaxOutput = 100_000 })
	host := &recorder{}
	_, err := trial{}.run(t.Context(), a, host)
	if !agent.IsPermanent(err) || !strings.Contains(err.Error(), "more than 100000 bytes") {
		t.Errorf("error %v", err)
	}
	if got := len(host.text(t)); got > 100_000 || got < 50_000 {
		t.Errorf("%d bytes were taken", got)
	}
}

func TestExecLimits(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	err := os.WriteFile(script, []byte("#!/bin/sh\nulimit -t; ulimit -v; ulimit -n\necho \"$1\"\nhead -c 9000 /dev/zero > big\n"), 0o700)
	if err != nil {
		t.Fatal(err)
	}
	a := mustExec(t, builtin.ExecConfig{Command: []string{"./script", "$(echo no shell; exit)"}, Dir: dir,
		Limits: builtin.Limits{CPU: 1500 * time.Millisecond, Memory: 1 << 30, OpenFiles: 50, FileSize: 4096}})
	host := &recorder{}
	_, err = trial{}.run(t.Context(), a, host)
	if got := host.text(t); got != "2\n1048576\n50\n$(echo no shell; exit)\n" {
		t.Errorf("the program has the limits %q", got)
	}
	if info, statErr := os.Stat(filepath.Join(dir, "big")); statErr != nil || info.Size() > 4096 {
		t.Errorf("it wrote a file of %v, %v", info, statErr)
	}
	var failed *builtin.ExecError
	if !errors.As(err, &failed) {
		t.Errorf("error %v, want the program's", err)
	}
}

// A worker that is killed leaves no program behind: its run goes on elsewhere at once.
func TestKilledWorkerLeavesNoProgram(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // the system has no means for it
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"worker", "worker-tool"} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "pid")
			worker := exec.CommandContext(t.Context(), self)
			worker.Env = append(os.Environ(), program+"="+name, "PID_FILE="+file)
			if err := worker.Start(); err != nil {
				t.Fatal(err)
			}
			var pid int
			waitFor(t, "the program to start", func() bool {
				said, _ := os.ReadFile(file)
				pid, err = strconv.Atoi(strings.TrimSuffix(string(said), "\n"))
				return err == nil && strings.HasSuffix(string(said), "\n")
			})
			defer func() { _ = syscall.Kill(pid, syscall.SIGKILL) }() // if it is left after all
			if err := worker.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = worker.Wait() // which was killed
			waitFor(t, "the program to end", func() bool {
				state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)) // nobody may be there to collect it
				return err != nil || strings.Contains(string(state), ") Z ")
			})
		})
	}
}

func waitFor(t *testing.T, what string, there func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !there(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
