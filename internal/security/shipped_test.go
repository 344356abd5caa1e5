package security

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the shipped files anew")

// What is shipped in deploy comes out of the same template as what init
// generates: go test ./internal/security -update writes it.
func TestShippedFiles(t *testing.T) {
	open, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	samples, err := Samples()
	if err != nil {
		t.Fatal(err)
	}
	all := []BrokerFile{{"nats.conf", open}}
	for _, s := range samples {
		all = append(all, BrokerFile{filepath.Join("secured", s.Path), s.Text})
	}
	if len(all) != 5 {
		t.Fatalf("%d files", len(all))
	}
	for _, f := range all {
		path := filepath.Join("..", "..", "deploy", f.Path)
		if *update {
			if err := os.WriteFile(path, []byte(f.Text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		there, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(there) != f.Text {
			t.Errorf("deploy/%s is not what the template makes; is it to be? go test ./internal/security -update", f.Path)
		}
		for _, secret := range []string{"SU", "PRIVATE KEY"} {
			if strings.Contains(f.Text, " "+secret) {
				t.Errorf("%s holds a secret: %s", f.Path, secret)
			}
		}
	}
}
