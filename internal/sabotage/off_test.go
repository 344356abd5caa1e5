//go:build !sabotage

package sabotage_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"longhaul/internal/sabotage"
)

func names() string {
	var all []string
	for _, s := range sabotage.Switches() {
		all = append(all, s.String())
	}
	return strings.Join(all, ",")
}

func TestADefaultBuildHearsNothing(t *testing.T) {
	t.Setenv(sabotage.Env, names())
	for _, s := range sabotage.Switches() {
		if sabotage.Broken(s) {
			t.Errorf("%s is broken in a build without the tag", s)
		}
	}
}

// The program itself, as it is shipped, does not even know the variable's name;
// with the tag it does, or this test would not see a thing.
func TestTheShippedProgramDoesNotReadTheVariable(t *testing.T) {
	for _, c := range []struct {
		tags  string
		knows bool
	}{{"", false}, {"sabotage", true}} {
		binary := filepath.Join(t.TempDir(), "longhaul")
		if out, err := exec.Command("go", "build", "-tags", c.tags, "-o", binary, "longhaul/cmd/longhaul").CombinedOutput(); err != nil {
			t.Fatalf("build with tags %q: %v\n%s", c.tags, err, out)
		}
		code, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		if knows := bytes.Contains(code, []byte(sabotage.Env)); knows != c.knows {
			t.Errorf("built with tags %q: the variable is known: %v, want %v", c.tags, knows, c.knows)
		}
	}
}

// The tests of the other build, which `go test ./...` leaves out.
func TestATaggedBuildKeepsToTheVariable(t *testing.T) {
	if out, err := exec.Command("go", "test", "-tags", "sabotage", ".").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
