// Package e2e runs the built binary as a user does: a broker, the services as
// processes, and nothing of ours inside the test but the run log to look at.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv(workerURL) != "" {
		return runStepsWorker()
	}
	dir, err := os.MkdirTemp("", "longhaul-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "longhaul")
	if out, err := exec.Command("go", "build", "-o", binary, "longhaul/cmd/longhaul").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// stage is a broker on a fixed address, which may come and go, and the
// processes that use it.
type stage struct {
	dir    string
	port   int
	broker *jsutil.Embedded

	mu        sync.Mutex
	processes []*process
}

// newStage reserves an address; startBroker makes it answer.
func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{dir: t.TempDir()}
	// Started once to have a port of its own that is free.
	s.startBroker(t)
	t.Cleanup(func() {
		s.mu.Lock()
		all := s.processes
		s.mu.Unlock()
		for _, p := range all {
			p.end(t)
		}
		s.stopBroker()
	})
	return s
}

func (s *stage) startBroker(t *testing.T) {
	t.Helper()
	var err error
	s.broker, err = jsutil.StartEmbedded(jsutil.EmbeddedConfig{Dir: s.dir, Port: s.port})
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(s.broker.URL(), "nats://"), ":")
	if _, err := fmt.Sscan(port, &s.port); err != nil {
		t.Fatalf("port of %s: %v", s.broker.URL(), err)
	}
}

func (s *stage) stopBroker() {
	if s.broker != nil {
		s.broker.Shutdown()
		s.broker = nil
	}
}

func (s *stage) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", s.port) }

// process is one running command.
type process struct {
	cmd  *exec.Cmd
	name string
	out  *syncBuffer
	once sync.Once
}

// syncBuffer takes a process's output while others look at it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start starts the binary with the broker's address.
func (s *stage) start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(binary, append(args, "--nats", s.url())...), name: args[0], out: new(syncBuffer)}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.processes = append(s.processes, p)
	s.mu.Unlock()
	return p
}

// kill is kill -9.
func (p *process) kill() { p.signal(syscall.SIGKILL) }

func (p *process) signal(sig syscall.Signal) {
	p.once.Do(func() {
		_ = p.cmd.Process.Signal(sig) // it may have ended by itself
		_ = p.cmd.Wait()
	})
}

// end stops the process as an operator would; what it printed is shown if the test failed.
func (p *process) end(t *testing.T) {
	p.once.Do(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
		defer kill.Stop()
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
	})
	if t.Failed() {
		t.Logf("output of %s:\n%s", p.name, p.out)
	}
}

// cli runs a client command and returns its output and exit code.
func (s *stage) cli(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append(args, "--nats", s.url())...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", args, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// log opens the run log.
func (s *stage) log(t *testing.T) *runlog.Log {
	t.Helper()
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: s.url(), Name: "e2e", Retry: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if err := jsutil.WaitConnected(t.Context(), nc); err != nil {
		t.Fatal(err)
	}
	js, err := jsutil.JetStream(nc)
	if err != nil {
		t.Fatal(err)
	}
	return runlog.New(js)
}

// checkLog follows a run to its end and checks what DESIGN's invariants say of
// one log: events follow one another by Apply, and the run ends once.
func checkLog(t *testing.T, log *runlog.Log, runID string) []runlog.Entry {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var all []runlog.Entry
	var head contracts.Head
	ends := 0
	for e, err := range log.Follow(ctx, runID, runlog.FollowOptions{UntilEnd: true}) {
		if err != nil {
			t.Fatalf("run %s after %d events: %v", runID, len(all), err)
		}
		if head, err = contracts.Apply(head, e.Event); err != nil {
			t.Fatal(err)
		}
		if e.Type.Terminal() {
			ends++
		}
		all = append(all, e)
	}
	if ends != 1 {
		t.Errorf("run %s has %d terminal events", runID, ends)
	}
	return all
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
