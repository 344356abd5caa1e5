// Package program holds what running a program takes, whether it is an agent,
// a tool or a server of tools: what it is given of the worker's environment,
// the bounds that the system puts on it, and an end that reaches its children.
package program

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"longhaul/pkg/contracts"
)

// Spec says which program. No part of it ever comes from a submission.
type Spec struct {
	// Command is the program and its arguments. No shell reads it.
	Command []string
	// Dir is its working directory; empty is the worker's. A command with a
	// slash in it is looked for from there.
	Dir string
	// PassEnv are the variables of the worker's environment that it gets, by
	// name, or by the beginning of it with a * behind. Nil is all of them.
	PassEnv []string
	// Env is added to them, each as NAME=value.
	Env []string
	// Limits are the system's, for the program and each of its children.
	Limits Limits
}

// Check says what is wrong with it, by the names that fields have in a worker's file.
func (s Spec) Check() contracts.Faults {
	var faults contracts.Faults
	fault := func(field, format string, args ...any) {
		faults = append(faults, contracts.Fault{Field: field, Message: fmt.Sprintf(format, args...)})
	}
	if len(s.Command) == 0 || s.Command[0] == "" {
		fault("command", "must name a program")
	} else if err := s.find(); err != nil { // now, not at its every run
		fault("command", "%v", err)
	}
	if info, err := os.Stat(s.Dir); s.Dir != "" && (err != nil || !info.IsDir()) {
		fault("dir", "must be a directory, not %s", s.Dir)
	}
	for i, kv := range s.Env {
		if name, _, ok := strings.Cut(kv, "="); !ok || name == "" {
			fault(fmt.Sprintf("env[%d]", i), "must be NAME=value")
		}
	}
	for i, name := range s.PassEnv {
		if plain := strings.TrimSuffix(name, "*"); name == "" || strings.ContainsAny(plain, "*=") {
			fault(fmt.Sprintf("pass_env[%d]", i), "must be a name, with or without a * at its end, not %q", name)
		}
	}
	if err := s.Limits.Check(); err != nil {
		fault("limits", "%v", err)
	}
	return faults
}

// find looks for the program.
func (s Spec) find() error {
	name := s.Command[0]
	if filepath.Base(name) != name && !filepath.IsAbs(name) {
		name = filepath.Join(s.Dir, name)
		if !filepath.IsAbs(name) {
			name = "." + string(filepath.Separator) + name
		}
	}
	_, err := exec.LookPath(name)
	return err
}

// Environment is what the program gets of the worker's, and its own.
func (s Spec) Environment() (env []string) {
	for _, kv := range os.Environ() {
		// The worker's own settings, credentials among them, are not the program's business.
		if name, _, _ := strings.Cut(kv, "="); !strings.HasPrefix(name, "LONGHAUL_") && s.passes(name) {
			env = append(env, kv)
		}
	}
	return append(env, s.Env...)
}

// passes reports whether the program gets a variable of the worker's.
func (s Spec) passes(name string) bool {
	return s.PassEnv == nil || slices.ContainsFunc(s.PassEnv, func(admitted string) bool {
		begin, any := strings.CutSuffix(admitted, "*")
		return name == admitted || any && strings.HasPrefix(name, begin)
	})
}

// PlainEnv is a PassEnv for programs that need no secrets of the worker's:
// where things are, who and where they run for, and how the network is reached.
func PlainEnv() []string {
	return []string{"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_*", "TZ", "TMPDIR", "SSL_CERT_*",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}
}
