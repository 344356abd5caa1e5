package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestShort runs every part with few tries and bounds with slack, but of those on
// three brokers the one alone that kills the leader of everything, each as a program of its own: this one's agents and brokers must not be slowed down by
// the race detector, nor its processes be those of the test.
func TestShort(t *testing.T) {
	dir := t.TempDir()
	for _, pkg := range []string{"longhaul/cmd/longhaul", "longhaul/test/recovery"} {
		if out, err := exec.Command("go", "build", "-o", dir, pkg).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, out)
		}
	}
	for _, p := range parts() {
		if p.brokers > 1 && p.number != killOfBrokers {
			continue // make cluster
		}
		t.Run(strings.ReplaceAll(p.name, " ", "_"), func(t *testing.T) {
			t.Parallel() // most of it is waiting
			cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "recovery"),
				"-short", "-json", "-only", fmt.Sprint(p.number), "-longhaul", filepath.Join(dir, "longhaul"))
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
			cmd.WaitDelay = 30 * time.Second
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			runErr := cmd.Run()
			var r report
			if err := json.Unmarshal(out.Bytes(), &r); err != nil || len(r.Parts) != 1 {
				t.Fatalf("%v, %v\n%s\n%s", runErr, err, out.Bytes(), errs.Bytes())
			}
			for _, f := range r.Parts[0].Figures {
				if f.ok() {
					t.Log(f)
				} else {
					t.Error(f)
				}
			}
			for _, s := range r.Parts[0].Faults {
				t.Error(s)
			}
			if s := r.Parts[0].Error; s != "" {
				t.Error(s)
			}
			for _, s := range r.Parts[0].Notes {
				t.Log(s)
			}
			if runErr != nil && !t.Failed() {
				t.Errorf("%v\n%s", runErr, errs.Bytes())
			}
		})
	}
}
