package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"longhaul/internal/shell"
	"longhaul/pkg/tracing"
)

// globals are the flags of every command.
type globals struct {
	shell.Broker
	JSON bool `name:"json" group:"global" help:"Print JSON: one document, or one a line where there may be many."`
	shell.Log
}

// app is what a command has to work with: the global flags, the streams of the
// process and what is made of both.
type app struct {
	globals
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	now            func() time.Time

	out, err console      // on stdout and stderr
	log      *slog.Logger // of services
	warnings *slog.Logger // of client commands: what a person should see
	tracer   *tracing.Tracer
}

func newApp(stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) *app {
	return &app{stdin: stdin, stdout: stdout, stderr: stderr, getenv: getenv, now: time.Now,
		out: console{w: stdout}, err: console{w: stderr}}
}

// setUp makes what depends on the flags.
func (a *app) setUp() {
	a.out = newConsole(a.stdout, a.Plain(a.getenv), a.now)
	a.err = newConsole(a.stderr, a.Plain(a.getenv), a.now)
	a.log, a.warnings = a.logger(slog.LevelInfo), a.logger(slog.LevelWarn)
}

// logger logs to stderr.
func (a *app) logger(level slog.Level) *slog.Logger { return a.Logger(a.stderr, a.getenv, level) }

// fail prints err, if there is something to print, and returns its exit code.
func (a *app) fail(err error) int {
	code := exitCode(err)
	var coded *codedError
	if err == nil || errors.As(err, &coded) && coded.err == nil {
		return code
	}
	if a.JSON {
		doc := errorDocument{Error: err.Error(), ExitCode: code}
		_ = json.NewEncoder(a.stderr).Encode(doc)
		return code
	}
	a.err.printf("%s %v\n", a.err.red("longhaul:"), err)
	if h := hint(err); h != "" {
		a.err.printf("%s\n", a.err.dim("          "+h))
	}
	return code
}

// errorDocument is what --json prints, on stderr, in place of an error's words.
type errorDocument struct {
	Error    string `json:"error"`
	ExitCode int    `json:"exit_code"`
}

// printJSON prints v as one line of JSON.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	return nil
}

func (a *app) printLines(lines []string) {
	for _, l := range lines {
		_, _ = fmt.Fprintln(a.stdout, l)
	}
}
