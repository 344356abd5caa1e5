// Package docs follows the tutorial and the examples' pages to the letter: it
// types their commands into shells, writes their files, and holds what is
// printed against what they say is printed.
//
// A page is followed by rules that its reader follows as well:
//
//   - A block of type console holds commands, behind "$ ", and below each what
//     it prints. "…" stands for anything within a line, or, alone on one, for any
//     lines; times, dates, ids of runs and of workers are those of the day. A
//     command without a line below it may print anything. "^C" interrupts it.
//   - It is typed into the terminal that the paragraph before it names ("in a
//     second terminal"), else into the last one. If that paragraph says "leave it
//     running" the last command is not waited for.
//   - A command that fails must be followed by "$ echo $?".
//   - Any other block is a file, whose name stands last in the paragraph before
//     it, `like this`:
package docs

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// home is a newcomer's home directory, with a clone in the directory longhaul.
var home string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if home, err = os.MkdirTemp("", "longhaul-docs-"); err == nil {
		defer os.RemoveAll(home)
		err = clone("../..", filepath.Join(home, "longhaul"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// clone copies what git would, and what is new and not ignored.
func clone(from, to string) error {
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = from
	files, err := list.Output()
	if err != nil {
		return fmt.Errorf("list the files of the repository: %w", err)
	}
	for name := range strings.SplitSeq(string(bytes.TrimSuffix(files, []byte{0})), "\x00") {
		info, err := os.Stat(filepath.Join(from, name))
		if err != nil {
			continue // deleted, and not committed yet
		}
		text, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(to, name)), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), text, info.Mode()&fs.ModePerm)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// environment is that of a newcomer who has Go, with its caches as they are here.
func environment(t *testing.T, url, port string) []string {
	t.Helper()
	bin := filepath.Join(home, "go", "bin")
	env := []string{"HOME=" + home, "PATH=" + bin + string(filepath.ListSeparator) + os.Getenv("PATH"), "TERM=dumb", "USER=newcomer",
		"GOPATH=" + filepath.Join(home, "go"), "LONGHAUL_NATS=" + url, "LONGHAUL_DEV_PORT=" + port}
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPROXY", "GOSUMDB", "GONOSUMDB", "GOTOOLCHAIN", "GOROOT"} {
		value, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, name+"="+strings.TrimSpace(string(value)))
	}
	// What is built does not depend on where the clone is, and is what `make build` has built: the cache holds it.
	return append(env, "CGO_ENABLED=0", "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -trimpath"))
}
