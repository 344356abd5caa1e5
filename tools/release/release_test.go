package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const root = "../.."

func mustSource(t *testing.T) source {
	t.Helper()
	abs, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	src, err := readSource(t.Context(), abs)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// mustCopy returns src at another place, as it stands in the work tree.
func mustCopy(t *testing.T, src source) source {
	t.Helper()
	names, err := command(t.Context(), src.Root, nil, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard",
		"--", "cmd", "internal", "pkg", "services", "go.mod", "go.sum", "*.md", "LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	from := src.Root
	src.Root = t.TempDir()
	for name := range strings.SplitSeq(strings.TrimRight(string(names), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(from, name))
		if os.IsNotExist(err) { // removed, and not committed yet
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(src.Root, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return src
}

func mustUnpack(t *testing.T, archive string) map[string]file {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]file{}
	for tr := tar.NewReader(gz); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(h.Name, "/")
		files[name] = file{name, h.FileInfo().Mode(), content}
	}
}

// One platform, this one: what is built can be asked, and all are made alike.
func TestRelease(t *testing.T) {
	src := mustSource(t)
	here := []platform{{runtime.GOOS, runtime.GOARCH}}
	out := filepath.Join(t.TempDir(), "dist")
	sums, err := release(t.Context(), src, out, here)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("longhaul_%s_%s_%s", src.Version, runtime.GOOS, runtime.GOARCH)
	files := mustUnpack(t, filepath.Join(out, name+".tar.gz"))

	t.Run("elsewhere it is the same", func(t *testing.T) {
		again, err := release(t.Context(), mustCopy(t, src), filepath.Join(t.TempDir(), "dist"), here)
		if err != nil {
			t.Fatal(err)
		}
		if string(again) != string(sums) {
			t.Errorf("checksums differ:\n%s\n%s", sums, again)
		}
	})
	t.Run("checksums", func(t *testing.T) {
		if n := bytes.Count(sums, []byte("\n")); n != 2 {
			t.Errorf("%d checksums, want the archive's and the bill's", n)
		}
		for line := range strings.Lines(string(sums)) {
			sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
			content, err := os.ReadFile(filepath.Join(out, name))
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%x", sha256.Sum256(content)); got != sum {
				t.Errorf("%s is %s, not %s", name, got, sum)
			}
		}
	})
	t.Run("contents", func(t *testing.T) {
		for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md", "THIRD_PARTY.md", "completions/longhaul.bash", "completions/_longhaul",
			"completions/longhaul.fish", "licenses/std/LICENSE", "licenses/github.com/nats-io/nats.go/LICENSE", "licenses/github.com/prometheus/client_golang/NOTICE"} {
			if len(files[name].content) == 0 {
				t.Errorf("no %s", name)
			}
		}
	})
	t.Run("binary", func(t *testing.T) {
		binary := filepath.Join(t.TempDir(), "longhaul")
		if err := os.WriteFile(binary, files["longhaul"].content, files["longhaul"].mode); err != nil {
			t.Fatal(err)
		}
		said, err := command(t.Context(), ".", nil, binary, "version", "--json")
		if err != nil {
			t.Fatal(err)
		}
		var v struct{ Version, Commit, Time string }
		if err := json.Unmarshal(said, &v); err != nil {
			t.Fatal(err)
		}
		if v.Version != src.Version || v.Commit != src.Commit || v.Time != src.Date.Format("2006-01-02T15:04:05Z") {
			t.Errorf("it says %s, want %+v", said, src)
		}
		if runtime.GOOS == "linux" {
			mustBeStatic(t, binary)
		}
	})
	t.Run("bill of materials", func(t *testing.T) {
		mustSatisfyCycloneDX(t, filepath.Join(out, name+".cdx.json"))
	})
}

func mustBeStatic(t *testing.T, binary string) {
	t.Helper()
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("it is linked at run time: %v", p.Type)
		}
	}
}

func mustFindModule(t *testing.T, path string) string {
	t.Helper()
	dir, err := command(t.Context(), ".", nil, "go", "list", "-m", "-f", "{{.Dir}}", path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(dir))
}

func mustSatisfyCycloneDX(t *testing.T, bom string) {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.UseLoader(local{filepath.Join(mustFindModule(t, "github.com/CycloneDX/cyclonedx-go"), "schema")})
	schema, err := c.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(bom)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(v); err != nil {
		t.Error(err)
	}
	if n := bytes.Count(content, []byte(`"purl": "pkg:golang/`)); n < 20 {
		t.Errorf("it lists %d modules", n)
	}
	v.(map[string]any)["components"].([]any)[0].(map[string]any)["type"] = "thing"
	if schema.Validate(v) == nil {
		t.Error("the schema takes anything")
	}
}

// local finds the schemas, which refer to one another by address, in a directory.
type local struct{ dir string }

func (l local) Load(url string) (any, error) {
	f, err := os.Open(filepath.Join(l.dir, filepath.Base(url)))
	if os.IsNotExist(err) { // jsf-0.82.schema.json is shipped under a misspelt name
		f, err = os.Open(filepath.Join(l.dir, strings.TrimSuffix(filepath.Base(url), ".json")+"x.json"))
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return jsonschema.UnmarshalJSON(f)
}

func TestThirdPartyIsTrue(t *testing.T) {
	abs, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	want, err := thirdParty(t.Context(), abs)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(root, thirdPartyFile))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is not what is linked: run `make third-party`. It should be\n%s", thirdPartyFile, want)
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "CHANGELOG.md"), []byte("# Changelog\n\n## [1.2.0] - to be tagged\n\n## [1.1.0] - 2026-11-23\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[string]string{
		"v1.1.0": "", "v1.1.0-3-gabcdef0": "", "abcdef0": "",
		"v1.1.0-dirty": "not committed", "v1.2.0": "no heading", "v1.10.0": "no heading",
	} {
		err := source{Root: dir, Version: version}.check()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", version, err, want)
		}
	}
}

func TestClassify(t *testing.T) {
	apache, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	copyleft, err := os.ReadFile(filepath.Join(mustFindModule(t, "github.com/google/licensecheck"), "testdata", "MPL-2.0.t1"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"copyleft":    string(copyleft),
		"own words":   "You may use this on Sundays.",
		"empty":       "",
		"free and so": string(apache) + strings.Repeat("The software shall be used for good, and only on weekdays before noon. ", 60),
	} {
		if ids, err := classify([]byte(text)); err == nil {
			t.Errorf("%s: taken as %v", name, ids)
		}
	}
	if ids, err := classify(apache); err != nil || len(ids) != 1 || ids[0] != "Apache-2.0" {
		t.Errorf("Apache: %v, %v", ids, err)
	}
}
