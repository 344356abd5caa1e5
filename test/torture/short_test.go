package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestShort tortures one broker and three for a quarter of a minute each, with
// fixed seeds and every fault but wrong clocks, which take a build of their own: as programs of their own, since the race
// detector would slow them down, and their processes are not the test's.
func TestShort(t *testing.T) {
	dir := t.TempDir()
	for _, pkg := range []string{"longhaul/cmd/longhaul", "longhaul/test/torture"} {
		if out, err := exec.Command("go", "build", "-o", dir, pkg).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, out)
		}
	}
	for name, args := range map[string][]string{
		"one_broker":    {"-cluster", "1", "-seed", "11"},
		"three_brokers": {"-cluster", "3", "-seed", "13"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			args = append(args, "-duration", "15s", "-faults", "all,-clock-skew", "-longhaul", filepath.Join(dir, "longhaul"))
			cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "torture"), args...)
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
			cmd.WaitDelay = 30 * time.Second
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			t.Logf("%s", out)
			// It is a torture only if it hurt: faults were done, and what they
			// endanger was put to the test; conversations too.
			for _, want := range []string{"faults done: ", "all has ended", "16  holds ", "17  holds "} {
				if !strings.Contains(string(out), want) {
					t.Errorf("it does not say %q", want)
				}
			}
		})
	}
}
