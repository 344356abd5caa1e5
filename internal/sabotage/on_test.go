//go:build sabotage

package sabotage

import (
	"strings"
	"testing"
)

func TestWhatTheVariableSays(t *testing.T) {
	t.Setenv(Env, "fencing, not-before")
	for _, s := range Switches() {
		if want := s == Fencing || s == NotBefore; Broken(s) != want {
			t.Errorf("%s is broken: %v, want %v", s, Broken(s), want)
		}
	}
	if none, err := parse(""); err != nil || len(none) > 0 {
		t.Errorf("nothing makes %v, %v", none, err)
	}
	if _, err := parse("fencing,fence"); err == nil || !strings.Contains(err.Error(), `"fence"`) {
		t.Errorf("an unknown name: %v", err)
	}
}
