package builtin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/internal/program"
	"longhaul/pkg/contracts"
	"longhaul/pkg/tracing"
)

// ExecTool returns a tool that runs a program for each call: it reads the
// arguments as JSON on stdin, and what it writes to stdout is the answer. An
// exit code other than 0 is an error, with the end of stderr, that the model is
// told of. LONGHAUL_TOOL_CALL in its environment is the call's key, the same
// if the call has to be made again. Of cfg only what is about the program
// counts; name, description and schema are the tool's.
func ExecTool(cfg ExecConfig, name, description string, schema json.RawMessage) (agent.Tool, error) {
	cfg.Key, cfg.InputSchema = "tool", nil
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return agent.Tool{}, err
	}
	return agent.Tool{Name: name, Description: description, Schema: schema, Timeout: cfg.Timeout,
		Do: func(ctx context.Context, args json.RawMessage) (any, error) { return callProgram(ctx, cfg, args) }}, nil
}

// maxToolOutput is how much of a tool's output is kept; agent.Tools cuts the answer.
const maxToolOutput = 1 << 20

func callProgram(ctx context.Context, cfg ExecConfig, args json.RawMessage) (string, error) {
	command := cfg.Limits.Wrap(cfg.Command)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	var stdout, stderr endless
	stdout.left, stderr.left = maxToolOutput, stderrTail
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = cfg.Dir, bytes.NewReader(args), &stdout, &stderr, cfg.Grace
	cmd.Env = tracing.Environ(ctx, append(cfg.program().Environment(), "LONGHAUL_TOOL_CALL="+agent.StepKey(ctx)))
	cmd.Cancel = func() error { return program.Terminate(cmd.Process) }
	program.OwnGroup(cmd)
	program.DieWithParent(cmd) // the call may be made again at once
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start the program: %w", err)
	}
	err := cmd.Wait()
	program.KillGroup(cmd.Process)
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) { // the latter: stdin was left unread
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.text()))
	}
	return stdout.text(), nil
}

// endless takes everything, and keeps the beginning of it.
type endless struct {
	buf  []byte
	left int
}

func (e *endless) Write(p []byte) (int, error) {
	n := min(len(p), e.left)
	e.buf, e.left = append(e.buf, p[:n]...), e.left-n
	return len(p), nil
}

func (e *endless) text() string {
	return contracts.Shorten(strings.ToValidUTF8(string(e.buf), "\uFFFD"), maxToolOutput)
}
