package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// What a short run may show at worst. Both are generous: the machine that
// tests has other work, too. Processor time hardly depends on that, so it is
// what tells a regression by half.
const (
	mostCPU   = 7.0  // times that of the ideal run
	leastRate = 0.08 // of the ideal run's
)

// spent is the processor time of all rounds.
func (l *line) spent() (sum float64) {
	for _, s := range l.Samples {
		sum += s.cpu()
	}
	return sum
}

// TestShort measures some thousand runs, ours and ideal ones in turn.
func TestShort(t *testing.T) {
	dir := t.TempDir()
	for _, pkg := range []string{"longhaul/cmd/longhaul", "longhaul/test/bench"} {
		if out, err := exec.Command("go", "build", "-o", dir, pkg).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, out)
		}
	}
	file := filepath.Join(dir, "report.json")
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "bench"), "-longhaul", filepath.Join(dir, "longhaul"),
		"-only", "end-to-end", "-rounds", "3", "-runs", "1500", "-json", file)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	ideal, ours := r.find("end-to-end", ideal64), r.find("end-to-end", ours64)
	if ideal == nil || ours == nil || len(ours.Samples) != 3 {
		t.Fatalf("not measured:\n%s", data)
	}
	if ours.Ratio < leastRate || ours.Ratio > 3 {
		t.Errorf("runs: %.2f of the ideal run's rate, want at least %.2f (and 3 would be too good to be true)\n%s", ours.Ratio, leastRate, out)
	}
	times := ours.spent() / ideal.spent()
	t.Logf("%.2f of the ideal run's rate, %.1f times its processor time", ours.Ratio, times)
	if times > mostCPU || times < 0.5 {
		t.Errorf("processor time: %.1f times that of the ideal run, want at most %.1f\n%s", times, mostCPU, out)
	}
	for _, kind := range kinds {
		if ours.Median.CPU[kind] <= 0 {
			t.Errorf("no processor time of the %s is measured\n%s", kind, out)
		}
	}
}
