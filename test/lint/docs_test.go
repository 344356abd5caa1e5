package lint

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// words are all words of the code and of deploy, tests left out.
func words(t *testing.T) map[string]bool {
	t.Helper()
	word := regexp.MustCompile(`\w+`)
	found := map[string]bool{}
	for _, dir := range []string{"pkg", "services", "cmd", "deploy", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			src, err := os.ReadFile(path)
			for _, w := range word.FindAllString(string(src), -1) {
				found[w] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// TestDocsNameWhatExists keeps the code map and the tables of
// docs/ARCHITECTURE.md true: what stands there between backquotes and looks
// like a Go name must be one.
func TestDocsNameWhatExists(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs", "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	exists := words(t)
	symbols := regexp.MustCompile("`([A-Za-z]\\w*(?:\\.[A-Za-z]\\w*)*)`").FindAllStringSubmatch(string(text), -1)
	if len(symbols) < 50 {
		t.Fatalf("found only %d names; has the form changed?", len(symbols))
	}
	for _, s := range symbols {
		for _, part := range strings.Split(s[1], ".") {
			if !exists[part] {
				t.Errorf("docs/ARCHITECTURE.md names %s; there is no %s in the code", s[1], part)
			}
		}
	}
}

// TestLinksResolve checks every relative link between the pages.
func TestLinksResolve(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	code := regexp.MustCompile("(?s)\n```.*?\n```") // where Go's type parameters look like links
	pages := []string{"README.md", "CHANGELOG.md"}
	for _, dir := range []string{"docs", "examples"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if filepath.Ext(path) == ".md" {
				rel, relErr := filepath.Rel(root, path)
				pages = append(pages, rel)
				return relErr
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, page := range pages {
		text, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(string(text), ""), -1) {
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			}
		}
	}
}
