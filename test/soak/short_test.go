package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestShort runs the whole of it for some seconds: everything ends, and every
// quantity is recorded. Whether something grows only a long run can tell.
func TestShort(t *testing.T) {
	dir := t.TempDir()
	for _, pkg := range []string{"longhaul/cmd/longhaul", "longhaul/test/soak"} {
		if out, err := exec.Command("go", "build", "-o", dir, pkg).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, out)
		}
	}
	file := filepath.Join(dir, "record.jsonl")
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "soak"), "-longhaul", filepath.Join(dir, "longhaul"),
		"-runs", "400", "-duration", "12s", "-every", "500ms", "-retention", "3s", "-record", file)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	runErr := cmd.Run() // which also judges
	rec, err := readRecord(file)
	if err != nil || len(rec) < leastSamples {
		t.Fatalf("%d samples, %v, %v\n%s", len(rec), err, runErr, &out)
	}
	last := rec[len(rec)-1]
	if last.Submitted != 400 || last.Ended != 400 || last.Waiting != 0 {
		t.Errorf("%+v\n%s", last, &out)
	}
	if last.Followed == 0 {
		t.Errorf("no run was followed\n%s", &out)
	}
	for _, s := range rec.series() {
		if s.name != "RUNS_INBOX messages" && s.name != "RUNS_WORK messages" && s.name != "RUNS_SCHEDULE messages" && s.quarter(4) == 0 {
			text, _ := json.Marshal(last) //nolint:errchkjson // for a person's eyes
			t.Errorf("%s is not recorded: %s", s.name, text)
		}
	}
}
