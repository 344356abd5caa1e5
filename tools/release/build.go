package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// platform is what a binary is for.
type platform struct{ OS, Arch string }

// env sets what could change the binary. The variants of the processors are
// the least ones, which every machine can execute.
func (p platform) env() []string {
	return append(os.Environ(), "GOOS="+p.OS, "GOARCH="+p.Arch, "CGO_ENABLED=0", "GOFLAGS=", "GOEXPERIMENT=", "GOWORK=off",
		"GOAMD64=v1", "GOARM64=v8.0")
}

// source is what is released.
type source struct {
	Root    string // directory of the repository
	Version string // as git describes it
	Commit  string
	Date    time.Time // of the commit, in UTC: the only time in a release
}

func readSource(ctx context.Context, root string) (source, error) {
	src := source{Root: root}
	var date string
	for _, ask := range []struct {
		into *string
		args []string
	}{
		{&src.Version, []string{"describe", "--tags", "--always", "--dirty"}},
		{&src.Commit, []string{"rev-parse", "HEAD"}},
		{&date, []string{"log", "-1", "--format=%cI"}},
	} {
		out, err := command(ctx, root, nil, "git", ask.args...)
		if err != nil {
			return source{}, err
		}
		*ask.into = strings.TrimSpace(string(out))
	}
	t, err := time.Parse(time.RFC3339, date)
	if err != nil {
		return source{}, fmt.Errorf("date of the commit: %w", err)
	}
	src.Date = t.UTC()
	return src, nil
}

var versionTag = regexp.MustCompile(`^v(\d+\.\d+\.\d+)$`)

// check refuses to release what nobody could build again, or a version of
// which the changelog does not tell.
func (src source) check() error {
	if strings.HasSuffix(src.Version, "-dirty") {
		return errors.New("the tree has changes that are not committed: nobody could build this again")
	}
	m := versionTag.FindStringSubmatch(src.Version)
	if m == nil {
		return nil // a snapshot between two versions
	}
	changes, err := os.ReadFile(filepath.Join(src.Root, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	heading := regexp.MustCompile(`(?m)^## \[` + regexp.QuoteMeta(m[1]) + `\] - \d{4}-\d{2}-\d{2}$`)
	if !heading.Match(changes) {
		return fmt.Errorf("CHANGELOG.md has no heading `## [%s] - YYYY-MM-DD`", m[1])
	}
	return nil
}

// binary is where the binary for p is built; archives are named alike.
func (src source) binary(work string, p platform) string {
	return filepath.Join(work, fmt.Sprintf("longhaul_%s_%s_%s", src.Version, p.OS, p.Arch))
}

// build writes the binary for p.
func (src source) build(ctx context.Context, p platform, binary string) error {
	flags := fmt.Sprintf("-s -w -X main.version=%s -X main.commit=%s -X main.date=%s", src.Version, src.Commit, src.Date.Format(time.RFC3339))
	_, err := command(ctx, src.Root, p.env(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", binary, "./cmd/longhaul")
	return err
}

// release makes out anew, fills it, and returns the checksums that it has written there.
func release(ctx context.Context, src source, out string, platforms []platform) ([]byte, error) {
	if err := os.RemoveAll(out); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp("", "longhaul-release-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	host := platform{runtime.GOOS, runtime.GOARCH}
	if err := src.build(ctx, host, src.binary(work, host)); err != nil {
		return nil, err
	}
	common, err := src.commonFiles(ctx, src.binary(work, host))
	if err != nil {
		return nil, err
	}
	var sums []byte
	for _, p := range platforms {
		binary := src.binary(work, p)
		name := filepath.Base(binary)
		if p != host {
			if err := src.build(ctx, p, binary); err != nil {
				return nil, err
			}
		}
		modules, err := linkedModules(ctx, src.Root, p)
		if err != nil {
			return nil, err
		}
		content, err := os.ReadFile(binary)
		if err != nil {
			return nil, err
		}
		files := append(slices.Clone(common), file{"longhaul", 0o755, content})
		for _, m := range modules {
			files = append(files, m.notices()...)
		}
		archive, err := pack(name, src.Date, files)
		if err != nil {
			return nil, err
		}
		bom, err := materials(src, p, content, modules)
		if err != nil {
			return nil, err
		}
		for _, f := range []file{{name + ".cdx.json", 0o644, bom}, {name + ".tar.gz", 0o644, archive}} {
			if err := os.WriteFile(filepath.Join(out, f.name), f.content, f.mode); err != nil {
				return nil, err
			}
			sums = fmt.Appendf(sums, "%x  %s\n", sha256.Sum256(f.content), f.name)
		}
	}
	return sums, os.WriteFile(filepath.Join(out, "SHA256SUMS"), sums, 0o644)
}

// commonFiles are those that are the same on every platform. The scripts for
// shells are in the words of a binary that this machine can execute.
func (src source) commonFiles(ctx context.Context, host string) ([]file, error) {
	var files []file
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md", thirdPartyFile} {
		content, err := os.ReadFile(filepath.Join(src.Root, name))
		if err != nil {
			return nil, err
		}
		files = append(files, file{name, 0o644, content})
	}
	for shell, name := range map[string]string{"bash": "longhaul.bash", "zsh": "_longhaul", "fish": "longhaul.fish"} {
		script, err := command(ctx, src.Root, nil, host, "completion", shell)
		if err != nil {
			return nil, err
		}
		files = append(files, file{"completions/" + name, 0o644, script})
	}
	return files, nil
}

// command returns what a program prints. Its complaints are in the error.
func command(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return out, nil
}
