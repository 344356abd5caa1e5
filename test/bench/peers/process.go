package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// upTime bounds the start of a server, stopTime its stop.
const upTime, stopTime = 30 * time.Second, 20 * time.Second

// process is one that this program has started, with a log.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan error
}

// startProcess starts cmd with a log of its own; it is killed with this program.
func startProcess(cmd *exec.Cmd, log string) (*process, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // the process has its own handle of it
	if cmd.Stdout == nil {
		cmd.Stdout = f
	}
	cmd.Stderr = f
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: log, done: make(chan error, 1)}
	go func() { p.done <- cmd.Wait() }() // stop waits for it
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop sends sig and waits; a process that does not end is killed.
func (p *process) stopBy(sig syscall.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(stopTime):
		return errors.Join(fmt.Errorf("%s did not stop", p.cmd.Path), p.cmd.Process.Kill())
	}
}

func (p *process) stop() error { return p.stopBy(syscall.SIGTERM) }

// up polls until ok, or says what the process has said.
func (p *process) up(ctx context.Context, ok func() error) error {
	deadline := time.Now().Add(upTime)
	for {
		err := ok()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			said, _ := os.ReadFile(p.log) // without it the error has to do
			return fmt.Errorf("%s is not up: %w\n%.2000s", p.cmd.Path, err, said)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// freePort is one where nobody listens now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// clockTick is the unit of a process's times in /proc (Linux).
const clockTick = 10 * time.Millisecond

// cpuTime is what a process has spent, all threads of it.
func cpuTime(pid int) (time.Duration, error) {
	t, err := times(pid)
	return t[0] + t[1], err
}

// familyTime is what a process and its children have spent, those that are gone included.
func familyTime(pid int) (time.Duration, error) {
	t, err := times(pid)
	if err != nil {
		return 0, err
	}
	sum := t[0] + t[1] + t[2] + t[3]
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0, err
	}
	for _, child := range strings.Fields(string(children)) {
		n, err := strconv.Atoi(child)
		if err != nil {
			return 0, err
		}
		d, err := cpuTime(n)
		if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH) {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// times are a process's own in user and system mode, and those of the children that it has waited for.
func times(pid int) (t [4]time.Duration, err error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return t, err
	}
	_, rest, ok := strings.Cut(string(stat), ") ") // behind the name, which may hold anything
	fields := strings.Fields(rest)
	if !ok || len(fields) < 15 {
		return t, fmt.Errorf("/proc/%d/stat has not the form that is known: %.100q", pid, stat)
	}
	for i := range t {
		ticks, err := strconv.ParseInt(fields[11+i], 10, 64)
		if err != nil {
			return t, err
		}
		t[i] = time.Duration(ticks) * clockTick
	}
	return t, nil
}

// beWorker is the first argument of a process that is to be a worker.
const beWorker = "-be-worker"

// workerConfig is a worker process's.
type workerConfig struct {
	Kind        string `json:"kind"` // asynq or river
	Address     string `json:"address"`
	Concurrency int    `json:"concurrency"`
	Tuned       bool   `json:"tuned"`
	Dir         string `json:"-"`
}

// startWorker starts a worker process, this program once more, and returns when
// it takes jobs.
func startWorker(w workerConfig) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	arg, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // read to its end, or given up
	cmd := exec.Command(self, beWorker, string(arg))
	cmd.Stdout = in
	p, err := startProcess(cmd, filepath.Join(w.Dir, "worker.log"))
	_ = in.Close() // the process has its own handle of it
	if err != nil {
		return nil, err
	}
	if err := out.SetReadDeadline(time.Now().Add(upTime)); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		said, _ := os.ReadFile(p.log) // without it the error has to do
		return nil, errors.Join(fmt.Errorf("the worker is not up: %w\n%.2000s", err, said), p.stop())
	}
	return p, nil
}

// serveWorker makes this process a worker until ctx ends.
func serveWorker(ctx context.Context) error {
	var w workerConfig
	if err := json.Unmarshal([]byte(os.Args[2]), &w); err != nil {
		return err
	}
	ready := func() { fmt.Println("ready") }
	switch w.Kind {
	case "asynq":
		return workAsynq(ctx, w, ready)
	case "river":
		return workRiver(ctx, w, ready)
	}
	return fmt.Errorf("there is no worker for %q", w.Kind)
}
