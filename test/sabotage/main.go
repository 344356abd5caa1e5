// Command sabotage tests the testers: it has a tester run on services with one
// guarantee after the other taken out (internal/sabotage), and sees whether it
// goes red: `make recovery-sabotage`, `make torture-sabotage`. With none taken
// out the tester has to be green. The exit code is 0 only if all of it is as it
// should be.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"longhaul/internal/sabotage"
)

// trial is one start of the tester with one guarantee taken out, or none.
type trial struct {
	without string // the switch's name; whole for none
	args    []string
	// red is what stands in a line by which the tester says that it has noticed;
	// any of them will do. Without any its exit code alone counts.
	red []string
}

// whole is the name of the trials with nothing taken out.
const whole = "none"

// tester is a program and what it has to notice.
type tester struct {
	pkg    string
	trials []trial
	// tags are what it and the program are built with.
	tags string
}

// redCode is the testers' exit code for a guarantee that is broken, among others.
const redCode = 1

func testers() map[string]tester {
	recovery := func(s sabotage.Switch, part string, red ...string) trial {
		return trial{without: s.String(), args: []string{"-short", "-only", part}, red: red}
	}
	return map[string]tester{
		"recovery": {pkg: "longhaul/test/recovery", tags: "sabotage", trials: []trial{
			{without: whole, args: []string{"-short", "-only", "1,3,4"}},
			recovery(sabotage.Takeover, "1", "missed"),
			recovery(sabotage.Fencing, "3", "missed", "broken:"),
			recovery(sabotage.AskFirst, "4", "missed", "broken:"),
		}},
		// The harness takes the variable off itself and hands it to the services.
		"torture": {pkg: "longhaul/test/torture", tags: "sabotage", trials: tortures()},
	}
}

func main() {
	all := testers()
	only := flag.String("only", "", "the switches to try, such as fencing,takeover, "+whole+" for none of them (default all)")
	verbose := flag.Bool("v", false, "show all that the tester says")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: sabotage [-v] [-only switches] recovery|torture")
		flag.PrintDefaults()
	}
	flag.Parse()
	t, known := all[flag.Arg(0)]
	if !known || flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := t.run(ctx, *only, *verbose)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sabotage:", err)
		os.Exit(1)
	}
}

func (t tester) run(ctx context.Context, only string, verbose bool) error {
	dir, err := os.MkdirTemp("", "longhaul-sabotage-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	build := exec.CommandContext(ctx, "go", "build", "-tags", t.tags, "-o", dir, "longhaul/cmd/longhaul", t.pkg)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build %s: %w", t.pkg, err)
	}
	var wrong []error
	for _, tr := range t.trials {
		if only != "" && !slices.Contains(strings.Split(only, ","), tr.without) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := tr.try(ctx, dir, filepath.Base(t.pkg), verbose); err != nil {
			fmt.Println("    ", err)
			wrong = append(wrong, err)
		}
	}
	return errors.Join(wrong...)
}

// try runs the tester once and says what it saw.
func (tr trial) try(ctx context.Context, dir, name string, verbose bool) error {
	cmd := exec.CommandContext(ctx, filepath.Join(dir, name), append(slices.Clone(tr.args), "-longhaul", filepath.Join(dir, "longhaul"))...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	cmd.Env = append(os.Environ(), sabotage.Env+"="+strings.TrimPrefix(tr.without, whole))
	if tr.without != whole { // what it keeps of a red run is worth nothing here
		cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if verbose {
		cmd.Stdout = io.MultiWriter(&out, os.Stderr)
		cmd.Stderr = cmd.Stdout
	}
	begun := time.Now()
	err := cmd.Run()
	code := cmd.ProcessState.ExitCode()
	title := "without " + tr.without
	if tr.without == whole {
		title = "with nothing taken out"
	}
	seen := tr.noticed(out.String())
	fmt.Printf("%-24s exit code %d after %s (%s %s)\n", title, code, time.Since(begun).Round(time.Second), name, strings.Join(tr.args, " "))
	for _, line := range seen[:min(len(seen), 6)] {
		fmt.Println("     ", line)
	}
	switch {
	case tr.without == whole && err == nil:
		return nil
	case tr.without == whole:
		return fmt.Errorf("%s is red %s: %w\n%s", name, title, err, out.Bytes())
	case code == 0:
		return fmt.Errorf("%s is green %s: it does not see it", name, title)
	case code != redCode || len(tr.red) > 0 && len(seen) == 0:
		return fmt.Errorf("%s did not see it %s, or something else: %w\n%s", name, title, err, out.Bytes())
	}
	return nil
}

// noticed are the lines in which the tester says that it has noticed, once each.
func (tr trial) noticed(said string) (lines []string) {
	for line := range strings.Lines(said) {
		has := func(word string) bool { return strings.Contains(line, word) }
		if slices.ContainsFunc(tr.red, has) && !slices.Contains(lines, strings.TrimSpace(line)) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}
