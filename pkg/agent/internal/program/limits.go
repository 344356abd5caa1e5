package program

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Limits are bounds that the system puts on each process of a program; zero is
// no bound but the worker's own.
type Limits struct {
	// CPU is time on a processor, in whole seconds.
	CPU time.Duration
	// Memory is address space, in bytes. Some languages reserve far more of it than they use.
	Memory int64
	// FileSize is the largest file that may be written, in bytes.
	FileSize int64
	// OpenFiles is how many files may be open at once.
	OpenFiles int
}

// Check says what is wrong with them.
func (l Limits) Check() error {
	switch {
	case l == (Limits{}):
		return nil
	case l.CPU < 0 || l.Memory < 0 || l.FileSize < 0 || l.OpenFiles < 0:
		return errors.New("must not be negative")
	case !Groups:
		return errors.New("there are none on this system")
	}
	_, err := exec.LookPath("sh")
	return err
}

// Wrap has a shell set the limits and then become the program. It is given the
// command as arguments, and reads none of it. A limit that is set on a process
// after its start would come too late for what it has started itself.
func (l Limits) Wrap(command []string) []string {
	var script []string
	limit := func(flag string, value int64) {
		if value > 0 {
			script = append(script, fmt.Sprintf("ulimit -%s %d", flag, value))
		}
	}
	up := func(value, unit int64) int64 { return (value + unit - 1) / unit }
	limit("t", up(int64(l.CPU), int64(time.Second)))
	limit("v", up(l.Memory, 1<<10))
	limit("f", up(l.FileSize, 512))
	limit("n", int64(l.OpenFiles))
	if len(script) == 0 {
		return command
	}
	script = append(script, `exec "$@"`)
	if path, err := exec.LookPath(command[0]); err == nil && filepath.Base(command[0]) == command[0] {
		command = append([]string{path}, command[1:]...) // found as without limits, not by the program's own PATH
	}
	return append([]string{"sh", "-c", strings.Join(script, " && "), "sh"}, command...)
}
