package main

import (
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
)

// build is what is known of this binary.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Time     string `json:"time,omitempty"` // of the commit
	Modified bool   `json:"modified"`       // built with changes that are not committed
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// buildVersion reads it from the linker's flag and from what the Go tool writes
// into a binary.
func buildVersion() build {
	b := build{Version: version, Commit: commit, Time: date, Modified: strings.HasSuffix(version, "-dirty"),
		Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if ok {
		if b.Version == "" && info.Main.Version != "(devel)" {
			b.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			if commit != "" {
				break // said already, of the same tree
			}
			switch s.Key {
			case "vcs.revision":
				b.Commit = s.Value
			case "vcs.time":
				b.Time = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
	}
	if b.Version == "" {
		b.Version = "devel"
	}
	return b
}

var semanticForm = regexp.MustCompile(`^\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?$`)

// semantic is the version as NATS micro services want it; empty if it has no such form.
func (b build) semantic() string {
	v := strings.TrimPrefix(b.Version, "v")
	if !semanticForm.MatchString(v) {
		return ""
	}
	return v
}

// versionCmd shows the version.
type versionCmd struct{}

// Run runs the command.
func (versionCmd) Run(a *app) error {
	b := buildVersion()
	if a.JSON {
		return a.printJSON(b)
	}
	details := []string{b.Go, b.Platform}
	if b.Commit != "" {
		commit := "commit " + b.Commit[:min(12, len(b.Commit))]
		if b.Time != "" {
			commit += " of " + b.Time
		}
		if b.Modified {
			commit += " with changes"
		}
		details = append([]string{commit}, details...)
	}
	a.out.printf("longhaul %s %s\n", b.Version, a.out.dim("("+strings.Join(details, ", ")+")"))
	return nil
}
