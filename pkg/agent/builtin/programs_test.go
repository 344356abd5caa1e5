package builtin_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"longhaul/pkg/agent/builtin"
	"longhaul/pkg/contracts"
)

// forLong is how long a program stays that is to be ended.
const forLong = time.Minute

// runTestProgram is this test binary as one of the programs below.
func runTestProgram(name string) int {
	out := bufio.NewWriter(os.Stdout)
	defer func() { _ = out.Flush() }()
	say := func(format string, args ...any) {
		_, _ = fmt.Fprintf(out, format+"\n", args...)
		_ = out.Flush()
	}
	switch name {
	case "flaky-exit":
		_, _ = trial{params: `{"exit": true}`}.run(context.Background(), builtin.Flaky(), &recorder{})
		return 0
	case "events":
		return sayEvents(say)
	case "environment":
		for _, name := range []string{"LONGHAUL_RUN_ID", "LONGHAUL_ATTEMPT", "LONGHAUL_STATE", "LONGHAUL_CREDS", "OWN"} {
			say("%s=%s", name, os.Getenv(name))
		}
		if file := os.Getenv("LONGHAUL_STATE_FILE"); file != "" {
			state, err := os.ReadFile(file)
			say("file %s %d %v", file, len(state), err)
		}
	case "whole-environment":
		for _, kv := range os.Environ() {
			say("%s", kv)
		}
	case "worker", "worker-tool": // which is killed with a program of its own under way
		cfg := builtin.ExecConfig{Command: []string{"sh", "-c", "echo $$ > " + os.Getenv("PID_FILE") + "; exec sleep 60"}}
		if name == "worker-tool" {
			tool, _ := builtin.ExecTool(cfg, "nap", "", nil)
			_, _ = tool.Do(context.Background(), nil)
			return 0
		}
		a, _ := builtin.Exec(cfg)
		_, _ = trial{}.run(context.Background(), a, &recorder{})
	case "sleeps":
		say("yawn")
		time.Sleep(forLong)
	case "talks":
		for {
			say("%s", strings.Repeat("x", 1000))
		}
	case "fail":
		say("working")
		fmt.Fprint(os.Stderr, strings.Repeat("x", 100_000), "\nthe end of it\n")
		return 3
	case "fail-for-good":
		say(`{"type":"error","payload":{"type":"BadInput","message":"no such month","retriable":false}}`)
		return 1
	case "reserved":
		say(`{"type":"run.succeeded","payload":{}}`)
		time.Sleep(forLong)
	case "long-event":
		say(`{"type":"note","payload":"%s"}`, strings.Repeat("x", 600<<10))
		time.Sleep(forLong)
	case "long-text":
		say("%s", strings.Repeat("ä", 50_000))
	case "polite":
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		say(`{"type":"checkpoint","payload":"ready"}`)
		<-signals
		say("bye")
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		child := exec.Command("sleep", "60") //nolint:noctx // outlives its parent on purpose
		if err := child.Start(); err != nil {
			return 1
		}
		say(`{"type":"checkpoint","payload":%d}`, child.Process.Pid)
		time.Sleep(forLong)
	case "leaves-child":
		child := exec.Command("sleep", "60") //nolint:noctx // outlives its parent on purpose
		child.Stdout = os.Stdout
		if err := child.Start(); err != nil {
			return 1
		}
		say(`{"type":"result","payload":%d}`, child.Process.Pid)
	case "daemon":
		child := exec.Command("sleep", "5") //nolint:noctx // outlives its parent on purpose
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := child.Start(); err != nil {
			return 1
		}
		say(`{"type":"result","payload":%d}`, child.Process.Pid)
	}
	return 0
}

// sayEvents says one of everything, about the submission that it is given.
func sayEvents(say func(string, ...any)) int {
	data, err := io.ReadAll(os.Stdin)
	if err != nil {
		return 1
	}
	var s contracts.Submission
	if err := json.Unmarshal(data, &s); err != nil {
		return 1
	}
	say("hello from %s", s.RunID)
	say(`{"no type": "is text"}`)
	say(`{"type":"tool.call","payload":{"name":"look"}}`)
	say(`{"type":"step"}`)
	say(`{"type":"assistant.delta","payload":{"text":"more"}}`)
	say(`{"type":"checkpoint","payload":{"page":1}}`)
	say(`{"type":"result","payload":{"params":%s},"usage":{"tokens":7},"artifacts":["a.txt"],"final_messages":[{"role":"assistant","content":"done"}]}`, s.Input.Params)
	return 0
}
