package docs

import (
	"path/filepath"
	"testing"
)

// The examples' pages are for the root of a clone.
func TestExamples(t *testing.T) {
	for _, name := range []string{"research", "tally", "pipeline"} {
		t.Run(name, func(t *testing.T) {
			if err := follow(t, filepath.Join("../../examples", name, "README.md"), filepath.Join(home, "longhaul")); err != nil {
				t.Error(err)
			}
		})
	}
}

// The README has blocks that are no commands, and commands that need more than there is here.
func TestReadme(t *testing.T) {
	if err := follow(t, "../../README.md", filepath.Join(home, "longhaul"), commandsAlone); err != nil {
		t.Error(err)
	}
}

// The tutorial is for a home directory with a clone in it.
func TestTutorial(t *testing.T) {
	if err := follow(t, "../../docs/tutorial.md", home); err != nil {
		t.Error(err)
	}
}
