package docs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience bounds the wait for a command: it may build something, on a busy machine.
const patience = 2 * time.Minute

// terminal is a shell that commands are typed into.
type terminal struct {
	cmd   *exec.Cmd
	keys  *os.File // what is typed
	ended chan struct{}

	mu      sync.Mutex
	printed strings.Builder
	more    chan struct{} // closed and replaced when something was printed

	dir  string // where it is
	jobs []int  // process groups that were in the background when the command began
	from int    // what was printed before the command that runs
	busy bool   // a command has not been seen to end
}

// openTerminal starts a shell that has each command in a process group of its
// own, as one that is talked to: ^C reaches what is in the foreground alone.
func openTerminal(dir string, env []string) (*terminal, error) {
	script, keys, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = script.Close() }()
	t := &terminal{keys: keys, ended: make(chan struct{}), more: make(chan struct{}), dir: dir}
	t.cmd = exec.Command("bash", "--noprofile", "--norc", "/dev/fd/3")
	t.cmd.Dir, t.cmd.Env, t.cmd.ExtraFiles = dir, env, []*os.File{script}
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := t.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	t.cmd.Stderr = t.cmd.Stdout
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	go t.read(out)
	return t, t.key("set -m; trap : INT") // a program that dies of a ^C does not take the shell with it
}

func (t *terminal) key(line string) error {
	_, err := t.keys.WriteString(line + "\n")
	return err
}

func (t *terminal) read(out io.Reader) {
	defer close(t.ended)
	buf := make([]byte, 4096)
	for {
		n, err := out.Read(buf)
		t.mu.Lock()
		t.printed.Write(buf[:n])
		close(t.more)
		t.more = make(chan struct{})
		t.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// endMark is printed behind each command: its exit code and where the shell is.
var endMark = regexp.MustCompile(`\n?\x1e(\d+) (.*)\x1e\n`)

// jobsDone is what a shell that is not talked to says of a background job that was killed.
var jobsDone = regexp.MustCompile(`(?m)^/dev/fd/3: line \d+: +\d+ (Killed|Terminated) .*\n`)

// typeIn begins a command.
func (t *terminal) typeIn(command string) error {
	if t.busy {
		return errors.New("the command before it still runs in this terminal")
	}
	t.mu.Lock()
	t.from = t.printed.Len()
	t.mu.Unlock()
	jobs, err := t.groups()
	if err != nil {
		return err
	}
	t.jobs, t.busy = jobs, true
	return t.key(command + "\n" + `__code=$?; printf '\n\036%d %s\036\n' $__code "$PWD"; (exit $__code)`)
}

// output is what the command has printed so far, and its exit code once it has ended, -1 before.
func (t *terminal) output() (text string, code int, more <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text, code, more = t.printed.String()[t.from:], -1, t.more
	if at := endMark.FindStringSubmatchIndex(text); at != nil {
		code, _ = strconv.Atoi(text[at[2]:at[3]])
		t.dir, t.busy = text[at[4]:at[5]], false
		text = text[:at[0]]
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
	}
	text = jobsDone.ReplaceAllString(strings.ReplaceAll(text, "\r", ""), "")
	return text, code, more
}

// wait waits until done says so of what the command has printed and its exit code.
func (t *terminal) wait(what string, done func(text string, code int) bool) error {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		text, code, more := t.output()
		if done(text, code) {
			return nil
		}
		if code >= 0 {
			return fmt.Errorf("it has ended with exit code %d before %s; it has printed:\n%s", code, what, text)
		}
		select {
		case <-more:
		case <-t.ended:
			if _, code, _ := t.output(); code < 0 {
				return fmt.Errorf("the shell has ended; it has printed:\n%s", text)
			}
		case <-late.C:
			return fmt.Errorf("waited %v for %s; it has printed:\n%s", patience, what, text)
		}
	}
}

// groups are the process groups of what the shell has started and what still runs.
func (t *terminal) groups() ([]int, error) {
	list, err := exec.Command("ps", "-A", "-o", "ppid=,pgid=").Output()
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	var groups []int
	for line := range strings.Lines(string(list)) {
		var parent, group int
		if n, _ := fmt.Sscan(line, &parent, &group); n == 2 && parent == t.cmd.Process.Pid && !slices.Contains(groups, group) {
			groups = append(groups, group)
		}
	}
	return groups, nil
}

// interrupt is ^C.
func (t *terminal) interrupt() error {
	groups, err := t.groups()
	for _, g := range groups {
		if !slices.Contains(t.jobs, g) {
			err = errors.Join(err, syscall.Kill(-g, syscall.SIGINT))
		}
	}
	return err
}

// close ends the shell and all that runs in it.
func (t *terminal) close() error {
	groups, err := t.groups()
	groups = append(groups, t.cmd.Process.Pid)
	all := func(s syscall.Signal) {
		for _, g := range groups {
			_ = syscall.Kill(-g, s) // it may have ended
		}
	}
	_ = t.keys.Close()
	all(syscall.SIGTERM)
	kill := time.AfterFunc(20*time.Second, func() { all(syscall.SIGKILL) })
	<-t.ended // nobody holds its output any more
	if !kill.Stop() {
		err = errors.Join(err, errors.New("what ran in a terminal did not end within 20 s of SIGTERM"))
	}
	_ = t.cmd.Wait()
	return err
}
