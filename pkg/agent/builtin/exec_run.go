package builtin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/builtin/internal/lines"
	"longhaul/pkg/agent/internal/program"
	"longhaul/pkg/contracts"
	"longhaul/pkg/tracing"
)

const (
	// maxEnvState keeps LONGHAUL_STATE below Linux' 128 KiB for one variable.
	maxEnvState = 64 << 10
	// stderrTail is how much of stderr an error message can show.
	stderrTail = 4 << 10
	// afterExit is how long output may still come from what a program left
	// behind outside of its process group, where no signal of ours reaches.
	afterExit = time.Second
)

// runProgram runs cfg.Command for one attempt. It returns when the program, its
// process group and the goroutines that read its output have ended.
func runProgram(ctx context.Context, cfg ExecConfig, run *agent.Run) (agent.Result, error) {
	input, err := contracts.Encode(run.Submission)
	if err != nil {
		return agent.Result{}, agent.Permanent(fmt.Errorf("encode the submission: %w", err))
	}
	env, cleanup, err := programEnv(cfg, run)
	if err != nil {
		return agent.Result{}, err
	}
	defer cleanup()
	env = tracing.Environ(ctx, env)

	// A program that breaks the protocol is stopped as if it were cancelled.
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if cfg.Timeout > 0 {
		late := time.AfterFunc(cfg.Timeout, func() { stop(errTooLate(cfg.Timeout)) })
		defer late.Stop()
	}
	command := cfg.Limits.Wrap(cfg.Command)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.WaitDelay = cfg.Dir, env, bytes.NewReader(input), cfg.Grace
	cmd.Cancel = func() error { return program.Terminate(cmd.Process) }
	program.OwnGroup(cmd)
	program.DieWithParent(cmd) // its run is taken over at once: none is to go on beside its successor
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	// Plain pipes, read here: with the ones that exec makes for a writer, the
	// program's end would cut off output that waits for room in the log.
	stdout, stderr, closeWriters, err := openPipes(cmd)
	if err != nil {
		return agent.Result{}, err
	}
	if err := cmd.Start(); err != nil {
		closeWriters()
		stdout.close()
		stderr.close()
		return agent.Result{}, agent.Permanent(fmt.Errorf("start the program: %w", err))
	}
	closeWriters()

	out := &outputReader{sink: lines.Sink{Ctx: ctx, Run: run}, left: cfg.MaxOutput, max: cfg.MaxOutput}
	tail := &tailBuffer{limit: stderrTail}
	outDone, errDone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(outDone)
		out.read(stdout, stop)
	}()
	go func() {
		defer close(errDone)
		_, _ = tail.ReadFrom(stderr)
	}()

	waitErr := cmd.Wait()
	program.KillGroup(cmd.Process)
	stdout.programEnded()
	stderr.programEnded()
	<-outDone
	<-errDone
	stdout.close()
	stderr.close()
	return out.finish(context.Cause(ctx), waitErr, tail.String())
}

// openPipes gives cmd pipes as stdout and stderr and returns their read ends;
// closeWriters closes this process's copies of the write ends.
func openPipes(cmd *exec.Cmd) (stdout, stderr *pipeReader, closeWriters func(), err error) {
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open a pipe for stdout: %w", err)
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		_, _ = outR.Close(), outW.Close()
		return nil, nil, nil, fmt.Errorf("open a pipe for stderr: %w", err)
	}
	cmd.Stdout, cmd.Stderr = outW, errW
	return &pipeReader{file: outR}, &pipeReader{file: errR}, func() { _, _ = outW.Close(), errW.Close() }, nil
}

// pipeReader reads a program's output to its end; once the program has ended,
// it waits no longer than afterExit for more.
type pipeReader struct {
	file  *os.File
	ended atomic.Bool
}

func (p *pipeReader) Read(b []byte) (int, error) {
	if p.ended.Load() {
		_ = p.file.SetReadDeadline(time.Now().Add(afterExit))
	}
	n, err := p.file.Read(b)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		// The deadline may have passed while an event waited for room: what
		// lies in the pipe by now is still read.
		_ = p.file.SetReadDeadline(time.Now().Add(afterExit))
		n, err = p.file.Read(b)
	}
	return n, err
}

func (p *pipeReader) programEnded() {
	p.ended.Store(true)
	_ = p.file.SetReadDeadline(time.Now().Add(afterExit))
}

func (p *pipeReader) close() { _ = p.file.Close() }

// programEnv returns the environment of the program, and what removes the
// state's file, if there is one.
func programEnv(cfg ExecConfig, run *agent.Run) (env []string, cleanup func(), err error) {
	env = append(cfg.program().Environment(),
		"LONGHAUL_RUN_ID="+run.ID,
		"LONGHAUL_ATTEMPT="+strconv.Itoa(run.Attempt),
		"LONGHAUL_MAX_ATTEMPTS="+strconv.Itoa(run.MaxAttempts),
		"LONGHAUL_AGENT_KEY="+run.AgentKey)
	state := run.RawState()
	if len(state) == 0 {
		return env, func() {}, nil
	}
	if len(state) <= maxEnvState && json.Valid(state) { // else of a former agent, in Go, that saved bytes
		return append(env, "LONGHAUL_STATE="+string(state)), func() {}, nil
	}
	dir, err := os.MkdirTemp("", "longhaul-state-")
	if err != nil {
		return nil, nil, fmt.Errorf("make a directory for the state: %w", err)
	}
	cleanup = func() { _ = os.RemoveAll(dir) }
	file := filepath.Join(dir, "state")
	if err := os.WriteFile(file, state, 0o600); err != nil {
		cleanup()
		return nil, nil, fmt.Errorf("write the state: %w", err)
	}
	return append(env, "LONGHAUL_STATE_FILE="+file), cleanup, nil
}

// tailBuffer keeps the end of what is written to it.
type tailBuffer struct {
	limit int
	buf   []byte
	cut   bool
}

// ReadFrom reads r to its end.
func (t *tailBuffer) ReadFrom(r *pipeReader) (int64, error) {
	var total int64
	chunk := make([]byte, 4<<10)
	for {
		n, err := r.Read(chunk)
		total += int64(n)
		t.buf = append(t.buf, chunk[:n]...)
		if over := len(t.buf) - t.limit; over > 0 {
			t.buf, t.cut = append(t.buf[:0], t.buf[over:]...), true
		}
		if err != nil {
			return total, err
		}
	}
}

func (t *tailBuffer) String() string {
	s := strings.TrimSpace(strings.ToValidUTF8(string(t.buf), "\uFFFD"))
	if t.cut {
		s = "… " + s
	}
	return s
}
