package e2e

import (
	"os/exec"
	"strings"
	"testing"
)

// TestDemo is `make demo`: it checks itself, a kill -9 and a takeover included.
func TestDemo(t *testing.T) {
	out, err := exec.Command(binary, "demo").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "All as it should be.") {
		t.Fatalf("%v\n%s", err, out)
	}
}
