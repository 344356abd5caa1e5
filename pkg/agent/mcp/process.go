package mcp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"longhaul/pkg/agent/internal/program"
	"longhaul/pkg/agent/internal/remote"
	"longhaul/pkg/contracts"
)

const (
	// writeTimeout is how long a program may leave what it is told unread.
	writeTimeout = 10 * time.Second
	// maxStderrLine bounds a line of stderr in the log, and maxLastWords what an error says of it.
	maxStderrLine = 4 << 10
	maxLastWords  = 512
	// afterExit is how long output may still come from what a program left behind.
	afterExit = time.Second
)

// process is a server's program that runs.
type process struct {
	cmd    *exec.Cmd
	grace  time.Duration
	stdin  *stdin
	stdout *os.File
	last   atomic.Pointer[string] // line on stderr
	exited atomic.Bool            // from then on its number may be another's
	done   chan struct{}          // closed when its group is killed as well, and its stderr is read
}

// startProcess starts the program. When it has ended, ended is told why.
func startProcess(cfg Config, ended func(error)) (*process, error) {
	spec := cfg.program()
	command := spec.Limits.Wrap(spec.Command)
	p := &process{cmd: exec.Command(command[0], command[1:]...), grace: cfg.Grace, done: make(chan struct{})} // its life is the link's
	p.cmd.Dir, p.cmd.Env = spec.Dir, spec.Environment()
	program.OwnGroup(p.cmd)
	program.DieWithParent(p.cmd)
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		closeAll(inR, inW)
		return nil, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		closeAll(inR, inW, outR, outW)
		return nil, err
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = inR, outW, errW
	p.stdin, p.stdout = &stdin{inW}, outR
	started := make(chan error)
	go func() {
		// The system ends the program when the thread that started it ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		closeAll(inR, outW, errW)
		started <- err
		if err == nil {
			p.attend(cfg.Log, errR, ended)
		}
	}()
	if err := <-started; err != nil {
		closeAll(inW, outR, errR)
		return nil, err
	}
	return p, nil
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		_ = f.Close() // a pipe's end has nothing to lose
	}
}

// attend stays with the program until it has ended.
func (p *process) attend(log *slog.Logger, stderr *os.File, ended func(error)) {
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.listen(log, stderr)
	}()
	err := p.cmd.Wait()
	program.KillGroup(p.cmd.Process)
	p.exited.Store(true)
	deadline := time.Now().Add(afterExit)
	_, _ = stderr.SetReadDeadline(deadline), p.stdout.SetReadDeadline(deadline)
	<-read
	closeAll(stderr)
	why := "it has ended"
	if err != nil {
		why += ": " + err.Error()
	}
	if line := p.last.Load(); line != nil {
		why += ": " + contracts.Shorten(*line, maxLastWords)
	}
	ended(remote.Fail(remote.TypeUnreachable, true, "%s", why))
	close(p.done)
}

// listen has the log say what the program says on stderr.
func (p *process) listen(log *slog.Logger, stderr io.Reader) {
	r := bufio.NewReaderSize(stderr, maxStderrLine)
	for skip := false; ; {
		line, err := r.ReadSlice('\n')
		text := strings.TrimSpace(strings.ToValidUTF8(string(line), "\uFFFD"))
		if text != "" && !skip {
			p.last.Store(&text)
			log.Info("the mcp server says", "line", text)
		}
		skip = errors.Is(err, bufio.ErrBufferFull) // the rest of a line that is too long
		if err != nil && !skip {
			return
		}
	}
}

// end ends the program: first by the end of its input, then by a signal, then
// by one that it cannot ignore.
func (p *process) end() {
	_ = p.stdin.Close() // which may be closed already
	if p.ended() {
		return
	}
	_ = program.Terminate(p.cmd.Process)
	if p.ended() {
		return
	}
	p.kill()
	<-p.done
	closeAll(p.stdout)
}

// ended waits for the end, for as long as the grace.
func (p *process) ended() bool {
	timer := time.NewTimer(p.grace)
	defer timer.Stop()
	select {
	case <-p.done:
		closeAll(p.stdout)
		return true
	case <-timer.C:
		return false
	}
}

// kill ends the program and its group at once.
func (p *process) kill() {
	if !p.exited.Load() {
		program.KillGroup(p.cmd.Process)
		_ = p.cmd.Process.Kill()
	}
}

// stdin is a program's input, which it has to read in time.
type stdin struct{ *os.File }

func (s *stdin) Write(b []byte) (int, error) {
	_ = s.SetWriteDeadline(time.Now().Add(writeTimeout))
	n, err := s.File.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("it has read nothing for %v", writeTimeout)
	}
	return n, err
}
