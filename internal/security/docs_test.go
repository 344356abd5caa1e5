package security

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// docs/security.md shows every role's rights as they are: go test
// ./internal/security -update writes them.
func TestRightsInTheDocs(t *testing.T) {
	const key = "<own key>"
	var b strings.Builder
	for _, u := range []User{submitter(key), subscriber(key), client(key), viewer(key, "0198c0de-0000-7000-8000-000000000001"),
		worker(key, AgentSet{Name: "mail", Agents: []string{"triage"}}), dispatcher(key), statekeeper(key), operator(key), system(key)} {
		fmt.Fprintf(&b, "\n### %s\n\n%s.\n\n| may | subject | why |\n| --- | --- | --- |\n", u.Name, strings.ToUpper(u.What[:1])+u.What[1:])
		for _, r := range u.Publish {
			fmt.Fprintf(&b, "| publish | `%s` | %s |\n", r.Subject, r.Why)
		}
		for _, r := range u.Subscribe {
			fmt.Fprintf(&b, "| subscribe | `%s` | %s |\n", r.Subject, r.Why)
		}
	}
	path := filepath.Join("..", "..", "docs", "security.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const from, to = "<!-- rights -->\n", "\n<!-- /rights -->"
	before, rest, ok := strings.Cut(string(text), from)
	_, after, ok2 := strings.Cut(rest, strings.TrimPrefix(to, "\n"))
	if !ok || !ok2 {
		t.Fatal("docs/security.md has no place for the rights")
	}
	want := before + from + strings.TrimRight(b.String(), "\n") + "\n" + to + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if string(text) != want {
		t.Error("docs/security.md does not show the rights as they are: go test ./internal/security -update")
	}
}
