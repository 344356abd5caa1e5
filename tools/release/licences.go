package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// module is one of those that are linked into a binary; Go itself is one, too.
type module struct {
	Path, Version string
	Licences      []string // SPDX identifiers
	Files         []file   // licences and notices, as the module has them
}

// notices are m's files as they stand in an archive: most licences ask that
// they go along with the binary.
func (m module) notices() []file {
	var files []file
	for _, f := range m.Files {
		files = append(files, file{"licenses/" + m.Path + "/" + f.name, 0o644, f.content})
	}
	return files
}

var (
	licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense)([-_.].*)?$`)
	noticeFile  = regexp.MustCompile(`(?i)^(notice|patents)([-_.].*)?$`)
)

// free are the licences that ask for no more than to be passed on with a binary.
var free = []string{"0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "Unlicense"}

// linkedModules are the modules of which packages are linked into the binary for p, by path.
func linkedModules(ctx context.Context, root string, p platform) ([]module, error) {
	const format = "{{with .Module}}{{if not .Main}}{{.Path}}\t{{.Version}}\t{{.Dir}}\t{{$.Dir}}{{end}}{{end}}"
	out, err := command(ctx, root, p.env(), "go", "list", "-deps", "-f", format, "./cmd/longhaul")
	if err != nil {
		return nil, err
	}
	goroot, err := command(ctx, root, nil, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	found := map[string]*module{"std": {Path: "std", Version: strings.TrimPrefix(runtime.Version(), "go")}}
	seen := make(map[string]bool) // directories
	var errs []error
	errs = append(errs, found["std"].read(strings.TrimSpace(string(goroot)), "", seen))
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) != 4 {
			continue
		}
		m := found[f[0]]
		if m == nil {
			m = &module{Path: f[0], Version: f[1]}
			found[f[0]] = m
		}
		// A package may have a licence of its own, below that of its module.
		for dir := f[3]; ; dir = filepath.Dir(dir) {
			rel, err := filepath.Rel(f[2], dir)
			errs = append(errs, err, m.read(f[2], rel, seen))
			if dir == f[2] || err != nil {
				break
			}
		}
	}
	var modules []module
	for _, m := range found {
		if len(m.Licences) == 0 {
			errs = append(errs, fmt.Errorf("%s: no licence found", m.Path))
		}
		slices.Sort(m.Licences)
		m.Licences = slices.Compact(m.Licences)
		modules = append(modules, *m)
	}
	slices.SortFunc(modules, func(a, b module) int { return cmp.Compare(a.Path, b.Path) })
	return modules, errors.Join(errs...)
}

// read adds the licences and notices in one directory of m, once.
func (m *module) read(root, rel string, seen map[string]bool) error {
	dir := filepath.Join(root, rel)
	if seen[dir] {
		return nil
	}
	seen[dir] = true
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		licence := licenceFile.MatchString(e.Name())
		if !e.Type().IsRegular() || strings.HasSuffix(e.Name(), ".go") || !licence && !noticeFile.MatchString(e.Name()) {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		name := filepath.ToSlash(filepath.Join(rel, e.Name()))
		m.Files = append(m.Files, file{name, 0o644, content})
		if !licence {
			continue
		}
		ids, err := classify(content)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", m.Path, name, err))
		}
		m.Licences = append(m.Licences, ids...)
	}
	return errors.Join(errs...)
}

// classify returns the licences in a text, or why it cannot be passed on with a binary.
func classify(text []byte) ([]string, error) {
	coverage := licensecheck.Scan(text)
	// Below this is a text with terms that nobody has read.
	if coverage.Percent < 75 {
		return nil, fmt.Errorf("only %.0f %% of it is a licence that is known", coverage.Percent)
	}
	var ids []string
	for _, match := range coverage.Match {
		if match.IsURL {
			continue
		}
		if !slices.Contains(free, match.ID) {
			return nil, fmt.Errorf("%s is not among the licences that only ask to be passed on: %s", match.ID, strings.Join(free, ", "))
		}
		ids = append(ids, match.ID)
	}
	return ids, nil
}

// thirdParty is the page that lists all modules and their licences, on all platforms.
func thirdParty(ctx context.Context, root string) ([]byte, error) {
	all := make(map[string]string)
	for _, p := range platforms {
		modules, err := linkedModules(ctx, root, p)
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", p.OS, p.Arch, err)
		}
		for _, m := range modules {
			all[m.Path] = strings.Join(m.Licences, ", ")
		}
	}
	page := []byte(`# Licences of what is linked into longhaul

Made by ` + "`make third-party`" + `, which refuses licences that ask for more than to be passed on. Every archive of a release has
their texts, and a bill of materials with the versions beside it. ` + "`std`" + ` is Go's own library.

| module | licence |
| --- | --- |
`)
	paths := make([]string, 0, len(all))
	for path := range all {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		page = fmt.Appendf(page, "| %s | %s |\n", path, all[path])
	}
	return page, nil
}
