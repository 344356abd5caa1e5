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
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/internal/security"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
	"longhaul/test/cluster"
	"longhaul/test/secured"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if is, err := cluster.ServeBroker(); is {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	if os.Getenv(workerURL) != "" {
		return runStepsWorker()
	}
	if dir := os.Getenv(mcpServerDir); dir != "" {
		return runMCPServer(dir)
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

// securedEnv, in the environment, has all these tests run on a broker with TLS,
// accounts and a user per role, as longhaul security init makes it.
const securedEnv = "LONGHAUL_E2E_SECURED"

// clusterEnv, in the environment, has all these tests run on three brokers with
// three replicas of everything. Both may be there.
const clusterEnv = "LONGHAUL_E2E_CLUSTER"

// onThree reports whether tests run on three brokers.
func onThree() bool { return os.Getenv(clusterEnv) != "" }

// stage is a broker on a fixed address, or three, which may come and go, and
// the processes that use it.
type stage struct {
	dir     string
	port    int
	broker  *jsutil.Embedded
	nodes   []*cluster.Node     // in place of port and broker
	secured *secured.Deployment // in place of all of these

	mu        sync.Mutex
	processes []*process
}

// newStage reserves an address; startBroker makes it answer.
func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{dir: t.TempDir()}
	switch {
	case os.Getenv(securedEnv) != "":
		var plan security.Plan
		if onThree() {
			plan.Nodes = []security.Node{{Name: "n1"}, {Name: "n2"}, {Name: "n3"}}
		}
		s.secured = secured.New(t, plan)
		s.secured.Topology(t, "main", "echo", "count", "flaky", "deaf", "gated", "assistant", "clerk", "suicidal", "asks", "mails", "talks")
	case onThree():
		s.startCluster(t)
	default:
		s.startBroker(t) // once, to have a port of its own that is free
	}
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

// reach is how somebody of a role reaches the broker.
func (s *stage) reach(role string) jsutil.ConnectConfig {
	if s.secured != nil {
		if role == "worker" {
			role = "worker-any"
		}
		return jsutil.ConnectConfig{Context: s.secured.Context("main-" + role), Name: "e2e"}
	}
	if s.nodes != nil {
		return jsutil.ConnectConfig{URL: cluster.URLs(s.addrs()), Name: "e2e"}
	}
	return jsutil.ConnectConfig{URL: fmt.Sprintf("nats://127.0.0.1:%d", s.port), Name: "e2e"}
}

// flags are the same on the command line.
func (s *stage) flags(role string) []string {
	cfg := s.reach(role)
	if cfg.Context != "" {
		return []string{"--context", cfg.Context}
	}
	return []string{"--nats", cfg.URL}
}

// connect connects as somebody of a role.
func (s *stage) connect(t *testing.T, role string) *nats.Conn {
	t.Helper()
	return connectBy(t, s.reach(role))
}

// connectBy waits for the connection, and closes it with the test.
func connectBy(t *testing.T, cfg jsutil.ConnectConfig) *nats.Conn {
	t.Helper()
	cfg.Retry = true
	nc, err := jsutil.Connect(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if err := jsutil.WaitConnected(t.Context(), nc); err != nil {
		t.Fatal(err)
	}
	return nc
}

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
	args = append(args, s.flags(args[0])...)
	if onThree() {
		args = append(args, "--replicas", "3")
	}
	p := &process{cmd: exec.Command(binary, args...), name: args[0], out: new(syncBuffer)}
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
	if strings.Contains(strings.ToLower(p.out.String()), "permissions violation") {
		t.Errorf("%s lacks a right", p.name)
	}
	if t.Failed() {
		t.Logf("output of %s:\n%s", p.name, p.out)
	}
}

// cli runs a client command and returns its output and exit code.
func (s *stage) cli(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	role := "client"
	if slices.Contains([]string{"doctor", "checkpoints", "topology", "pause", "resume", "backup", "restore"}, args[0]) {
		role = "operator"
	}
	cmd := exec.CommandContext(ctx, binary, append(args, s.flags(role)...)...)
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
	js, err := jsutil.JetStream(s.connect(t, "operator"))
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
	patience := 40 * time.Second
	if onThree() { // leaders are chosen, which takes up to nine seconds each time
		patience *= 2
	}
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
