package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// process is one that this program has started.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string // the file that takes its output
	wait func() error
}

// startProcess starts cmd with a log of its own in dir. A cmd that has a
// stdout keeps it.
func startProcess(cmd *exec.Cmd, name, dir string) (*process, error) {
	p := &process{name: name, cmd: cmd, log: filepath.Join(dir, name+".log")}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the process has its own handle of it
	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.wait = sync.OnceValue(cmd.Wait)
	return p, nil
}

// kill is kill -9. It returns when the process is gone.
func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.name, err)
	}
	_ = p.wait() // says that it was killed
	return nil
}

func (p *process) signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("send %s to %s: %w", sig, p.name, err)
	}
	return nil
}

// terminate is an operator's stop: SIGTERM, and patience. It reports the exit
// code as an error if it is not 0.
func (p *process) terminate(patience time.Duration) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	kill := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	if err := p.wait(); err != nil {
		return fmt.Errorf("%s, told to stop: %w", p.name, err)
	}
	return nil
}
