// Package security runs Longhaul on the brokers that longhaul security init
// configures, each role with its own user, and then attacks it.
package security

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

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/builtin"
	"longhaul/pkg/host"
	"longhaul/test/secured"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv(asHost) != "" {
		host.Main(host.Config{Agents: []agent.Agent{builtin.Echo()}})
		return 0
	}
	dir, err := os.MkdirTemp("", "longhaul-security-")
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

// asHost, in the environment, makes this program one that hosts an agent.
const asHost = "LONGHAUL_TEST_AS_HOST"

// stage is a deployment, one of its tenants, and processes that use it.
type stage struct {
	d         *secured.Deployment
	tenant    string
	processes []*process
}

// process is a service.
type process struct {
	name string
	cmd  *exec.Cmd
	out  *output
	once sync.Once
}

// output takes what a process prints while others look at it.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func (s *stage) user(role string) string {
	if s.tenant == "" {
		return "main-" + role
	}
	return s.tenant + "-" + role
}

// start starts a service as the user of a role; it is stopped with the test.
func (s *stage) start(t *testing.T, role string, args ...string) *process {
	t.Helper()
	return s.launch(t, strings.Join(args, " "), command(append(args, "--context", s.d.Context(s.user(role)))...))
}

// command is the program with these arguments; a cleanup outlives the test's context.
func command(args ...string) *exec.Cmd { return exec.Command(binary, args...) }

func (s *stage) launch(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{name: name, cmd: cmd, out: new(output)}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.processes = append(s.processes, p)
	t.Cleanup(func() { p.end(t) })
	return p
}

// end stops the process as an operator would. A service with the grants of its
// role is refused nothing, whatever it does.
func (p *process) end(t *testing.T) {
	p.once.Do(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
		defer kill.Stop()
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("%s: %v", p.name, err)
		}
	})
	for line := range strings.Lines(p.out.String()) {
		if strings.Contains(strings.ToLower(line), "permissions violation") {
			t.Errorf("%s lacks a grant: %s", p.name, line)
		}
	}
	if t.Failed() {
		t.Logf("output of %s:\n%s", p.name, p.out)
	}
}

// kill is kill -9.
func (p *process) kill() {
	p.once.Do(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
}

// cli runs a client command as the user of a role.
func (s *stage) cli(t *testing.T, role string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return s.flags(t, append(args, "--context", s.d.Context(s.user(role)))...)
}

// flags runs a client command with nothing but these.
func (s *stage) flags(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", args, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must is cli for what has to succeed.
func (s *stage) must(t *testing.T, role string, args ...string) string {
	t.Helper()
	out, errs, code := s.cli(t, role, args...)
	if code != 0 {
		t.Fatalf("%s as %s: exit code %d\n%s%s", strings.Join(args, " "), role, code, out, errs)
	}
	if strings.Contains(strings.ToLower(errs), "permissions violation") {
		t.Errorf("%s as %s lacks a grant: %s", strings.Join(args, " "), role, errs)
	}
	return out
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
