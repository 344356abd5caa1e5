package docs

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// follow does what a page says, from a directory, and returns the first thing
// that is not as it says. Blocks that are not chosen are left out.
func follow(t *testing.T, page, from string, choose ...func(block) bool) (err error) {
	t.Helper()
	blocks, err := readPage(page)
	if err != nil {
		return err
	}
	w := walk{t: t, dir: from, env: newcomer(t), terminals: map[string]*terminal{}}
	defer func() { err = errors.Join(err, w.close()) }()
	for _, b := range blocks {
		if len(choose) > 0 && !choose[0](b) {
			continue
		}
		if err := w.do(b); err != nil {
			return fmt.Errorf("%s: %w", page, err)
		}
	}
	return nil
}

func commandsAlone(b block) bool { return b.language == "console" }

// newcomer is the environment of somebody on a machine of his own, where the
// port that a broker has by default is free: here another one stands for it.
func newcomer(t *testing.T) []string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return environment(t, "nats://127.0.0.1:"+port, port)
}

// walk is the way through a page.
type walk struct {
	t         *testing.T
	dir       string
	env       []string
	terminals map[string]*terminal
	order     []*terminal
	last      *terminal
}

func (w *walk) do(b block) error {
	if b.language != "console" {
		return w.write(b)
	}
	if err := w.enter(b); err != nil {
		return err
	}
	commands, err := b.commands()
	if err != nil {
		return err
	}
	for i, c := range commands {
		stays := b.stays() && i == len(commands)-1
		mayFail := i+1 < len(commands) && commands[i+1].text == "echo $?"
		begun := time.Now()
		err := w.execute(c, stays, mayFail)
		w.t.Logf("%5.1fs  $ %s", time.Since(begun).Seconds(), c.text)
		if err != nil {
			return fmt.Errorf("line %d: $ %s: %w", c.line, c.text, err)
		}
	}
	return nil
}

// enter goes to the terminal that the block names.
func (w *walk) enter(b block) (err error) {
	name := b.terminal()
	switch {
	case name == "" && w.last != nil:
		return nil
	case name == "":
		name = "first terminal"
	}
	if w.terminals[name] == nil {
		if w.terminals[name], err = openTerminal(w.dir, w.env); err != nil {
			return err
		}
		w.order = append(w.order, w.terminals[name])
	}
	w.last = w.terminals[name]
	return nil
}

// write writes a file into the directory of the terminal.
func (w *walk) write(b block) error {
	name, ok := b.file()
	if !ok {
		return fmt.Errorf("line %d: this block is neither commands nor a file: the paragraph before it has no name for it at its end", b.line)
	}
	if err := w.enter(b); err != nil {
		return err
	}
	path := filepath.Join(w.last.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(strings.Join(b.lines, "\n")+"\n"), 0o644)
}

func (w *walk) execute(c command, stays, mayFail bool) error {
	begins, err := regexp.Compile(c.says())
	if err != nil {
		return err
	}
	all := regexp.MustCompile(begins.String() + "$")
	if err := w.last.typeIn(c.text); err != nil {
		return err
	}
	if stays || c.interrupted {
		if err := w.last.wait("it printed what the page says", func(text string, code int) bool {
			return code < 0 && begins.MatchString(text)
		}); err != nil || stays {
			return err
		}
		if err := w.last.interrupt(); err != nil {
			return err
		}
		return w.last.wait("its end, after a ^C", func(_ string, code int) bool { return code >= 0 })
	}
	var text string
	var code int
	if err := w.last.wait("its end", func(s string, c int) bool { text, code = s, c; return c >= 0 }); err != nil {
		return err
	}
	if code != 0 && !mayFail {
		return fmt.Errorf("it ended with exit code %d and printed:\n%s", code, text)
	}
	if len(c.output) > 0 && !all.MatchString(text) {
		return fmt.Errorf("it printed\n%s\nand not\n%s", text, strings.Join(c.output, "\n"))
	}
	return nil
}

// close ends what runs, the last begun first.
func (w *walk) close() (err error) {
	for _, t := range slices.Backward(w.order) {
		err = errors.Join(err, t.close())
	}
	return err
}
