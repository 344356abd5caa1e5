package docs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A page that says something untrue is found out, and the place is told.
func TestUntrue(t *testing.T) {
	const fence = "```"
	for name, c := range map[string]struct{ page, want string }{
		"another output":           {"console\n$ echo one\n$ echo two; echo three\ntwo\nfour\n", "line 4: $ echo two; echo three: it printed"},
		"more output":              {"console\n$ echo one; echo two\none\n", "line 3"},
		"less output":              {"console\n$ echo one\none\ntwo\n", "line 3"},
		"a failure":                {"console\n$ false\n", "ended with exit code 1"},
		"another failure":          {"console\n$ (exit 3)\n$ echo $?\n4\n", "line 4: $ echo $?: it printed\n3"},
		"output of no command":     {"console\none\n", "is printed by no command"},
		"neither file nor command": {"go\npackage main\n", "neither commands nor a file"},
		"another id":               {"console\n$ echo run 1\nrun 0198c0de-7a11-7abc-8def-0123456789ab\n", "line 3"},
	} {
		page := filepath.Join(t.TempDir(), "page.md")
		if err := os.WriteFile(page, []byte("Text:\n"+fence+c.page+fence+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := follow(t, page, t.TempDir()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// A page that is true is followed: files, terminals, what stays, ^C, what
// differs from day to day.
func TestTrue(t *testing.T) {
	page := strings.ReplaceAll("Put this into a file, `in/it.txt`:\n\n'''\none\n\ntwo\n'''\n\n"+
		"In a first terminal, leave it running:\n\n'''console\n$ cat in/it.txt; sleep 100\none\n\ntwo\n'''\n\n"+
		"In a second terminal:\n\n'''console\n$ mkdir d && cd d\n$ printf 'at 12:13:14.567 on w-abcdef012345\\nand\\nmore\\nlast'\nat 01:02:03.004 on w-0123456789ab\n…\nlast\n"+
		"$ echo a; \\\n  echo b\na\nb\n$ sh -c 'echo go; sleep 100'\ngo\n^C\n$ (exit 3)\n$ echo $?\n3\n'''\n\nThis is `here`:\n\n'''\n1\n'''\n\nNow:\n\n'''console\n$ cat ../d/here\n1\n'''\n", "'''", "```")
	file := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := follow(t, file, t.TempDir()); err != nil {
		t.Error(err)
	}
}
