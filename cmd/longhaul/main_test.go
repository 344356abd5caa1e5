package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// asProgram, in the environment of this test binary, makes it longhaul itself.
const asProgram = "RUN_AS_LONGHAUL"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// patience bounds every wait of these tests.
const patience = 30 * time.Second

// newProgram is a command that runs longhaul with args, towards the broker at url.
func newProgram(t *testing.T, url string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...) // cleanups outlive the context of a test
	cmd.Env = []string{asProgram + "=1", "LONGHAUL_NATS=" + url, "PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(),
		"GORACE=atexit_sleep_ms=0"} // else each of some 200 programs sleeps for a second at its end under -race
	if dir := os.Getenv("GOCOVERDIR"); dir != "" {
		cmd.Env = append(cmd.Env, "GOCOVERDIR="+dir)
	}
	return cmd
}

// result is what a program left.
type result struct {
	code           int
	stdout, stderr string
}

// longhaul runs it to its end.
func longhaul(t *testing.T, url, stdin string, args ...string) result {
	t.Helper()
	cmd := newProgram(t, url, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// program is longhaul in the background.
type program struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr *watchedBuffer
	rest   chan struct{} // closed when stderr is read to its end
}

// start starts longhaul; it is killed with the test if it has not ended by then.
func start(t *testing.T, url string, args ...string) *program {
	t.Helper()
	cmd := newProgram(t, url, args...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, cmd: cmd, stdout: bufio.NewReader(stdout), stderr: &watchedBuffer{}, rest: make(chan struct{})}
	go func() {
		defer close(p.rest)
		_, _ = io.Copy(p.stderr, stderr)
	}()
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			p.end()
		}
	})
	return p
}

// line reads the next line of stdout.
func (p *program) line() string {
	p.t.Helper()
	l, err := p.stdout.ReadString('\n')
	if err != nil {
		p.t.Fatalf("wait for a line: %v; stderr:\n%s", err, p.stderr)
	}
	return l
}

func (p *program) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// end waits until the program has ended and returns its exit code and the rest of stdout.
func (p *program) end() (code int, stdout string) {
	p.t.Helper()
	rest, _ := io.ReadAll(p.stdout)
	<-p.rest
	_ = p.cmd.Wait()
	return p.cmd.ProcessState.ExitCode(), string(rest)
}

// says waits until stderr holds text.
func (p *program) says(text string) {
	p.t.Helper()
	waitFor(p.t, "stderr to hold "+text, func() bool { return strings.Contains(p.stderr.String(), text) })
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("waited %s for %s", patience, what)
}

// watchedBuffer is written by one goroutine and read by another.
type watchedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *watchedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *watchedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// startDev starts everything and returns the broker's URL.
func startDev(t *testing.T, args ...string) string {
	t.Helper()
	p := start(t, "", append([]string{"dev", "--memory", "--port", "0", "--json"}, args...)...)
	var ready struct {
		URL    string   `json:"url"`
		Agents []string `json:"agents"`
	}
	mustDecode(t, p.line(), &ready)
	t.Cleanup(func() {
		p.signal(syscall.SIGTERM)
		if code, _ := p.end(); code != exitOK {
			t.Errorf("dev ended with %d; stderr:\n%s", code, p.stderr)
		}
	})
	return ready.URL
}

func mustDecode(t *testing.T, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
}

// mustSubmit submits a run and returns its id.
func mustSubmit(t *testing.T, url string, args ...string) string {
	t.Helper()
	r := longhaul(t, url, "", append([]string{"submit"}, args...)...)
	if r.code != exitOK {
		t.Fatalf("submit %v: exit code %d: %s", args, r.code, r.stderr)
	}
	return strings.TrimSpace(r.stdout)
}
