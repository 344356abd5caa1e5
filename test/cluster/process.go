// Package cluster is what the programs under test/ have in common: brokers and
// services as processes of their own, which can be killed, stopped and started
// again, and links between them that can be cut, held and slowed down.
//
// It stands on pkg/jsutil and the broker's library; what is measured or judged
// is the business of whoever imports it.
package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Process is one that this program has started. Its methods may be called from
// several goroutines.
type Process struct {
	Name string
	// Log is the file that takes its output.
	Log string

	cmd  *exec.Cmd
	done chan struct{} // closed when it is gone; err is set before
	err  error
}

// StartProcess starts cmd with a log of its own in dir, to which it appends. A
// cmd that has a stdout keeps it. The process does not outlive this one where
// the system can see to that, and gets no signals from this one's terminal.
func StartProcess(cmd *exec.Cmd, name, dir string) (*Process, error) {
	p := &Process{Name: name, cmd: cmd, Log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer func() { _ = log.Close() }() // the process has its own handle of it
	cmd.Stderr = log
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.SysProcAttr = attributes()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { // ends with the process, which every owner of one waits for
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID is its number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process is gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// Running reports whether it is there still, even if stopped.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Wait returns when the process is gone, with its exit code as an error if that is not 0.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Kill is kill -9, of a stopped one too. It returns when the process is gone.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.Name, err)
	}
	<-p.done
	return nil
}

// Signal sends a signal. A process that is gone is an error.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("send %s to %s: %w", sig, p.Name, err)
	}
	return nil
}

// Terminate is an operator's stop: SIGTERM, and patience. It reports the exit
// code as an error if it is not 0.
func (p *Process) Terminate(patience time.Duration) error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.Name, err)
	}
	kill := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	if err := p.Wait(); err != nil {
		return fmt.Errorf("%s, told to stop: %w", p.Name, err)
	}
	return nil
}
