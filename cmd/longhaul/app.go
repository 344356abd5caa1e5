package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"
	"github.com/mattn/go-isatty"

	"longhaul/pkg/tracing"
)

// globals are the flags of every command.
type globals struct {
	NATS     string  `name:"nats" group:"global" placeholder:"URL" help:"Broker to connect to (default nats://127.0.0.1:4222)."`
	Context  string  `group:"global" placeholder:"NAME" help:"NATS context to connect with, as made by the nats command."`
	Creds    string  `group:"global" placeholder:"FILE" help:"Credentials file."`
	NKey     string  `name:"nkey" group:"global" placeholder:"FILE" help:"File with the seed of the user's nkey."`
	TLSCA    string  `name:"tls-ca" group:"global" placeholder:"FILE" help:"Certificates that vouch for the broker's (default: the system's)."`
	TLSCert  string  `name:"tls-cert" group:"global" placeholder:"FILE" help:"Certificate to show the broker, if it asks for one."`
	TLSKey   string  `name:"tls-key" group:"global" placeholder:"FILE" help:"Key of that certificate."`
	Inbox    string  `name:"inbox-prefix" group:"global" placeholder:"SUBJECT" help:"Where answers are received (default _INBOX, with --nkey _INBOX.<public key>)."`
	SealKeys string  `group:"global" placeholder:"FILE" help:"Keys of longhaul security key: submit and read, or execute, runs that nobody else can read."`
	JSON     bool    `name:"json" group:"global" help:"Print JSON: one document, or one a line where there may be many."`
	LogLevel *string `group:"global" enum:"debug,info,warn,error" placeholder:"LEVEL" help:"Least level that is logged: debug, info, warn or error (default info for a service, else warn)."`
	NoColor  bool    `group:"global" env:"LONGHAUL_NO_COLOR" help:"No colours (nor with NO_COLOR set, nor when not on a terminal)."`
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
	plain := a.NoColor || a.getenv("NO_COLOR") != "" || a.getenv("TERM") == "dumb"
	a.out = newConsole(a.stdout, plain, a.now)
	a.err = newConsole(a.stderr, plain, a.now)
	a.log, a.warnings = a.logger(slog.LevelInfo), a.logger(slog.LevelWarn)
}

// logger logs to stderr, from the level that --log-level names or else from
// level: words on a terminal, JSON otherwise.
func (a *app) logger(level slog.Level) *slog.Logger {
	if a.LogLevel != nil {
		_ = level.UnmarshalText([]byte(*a.LogLevel)) // the grammar admits levels alone
	}
	if a.err.terminal {
		return slog.New(tint.NewTextHandler(a.stderr, &tint.Options{Level: level, TimeFormat: "15:04:05.000", NoColor: !a.err.color}))
	}
	return slog.New(slog.NewJSONHandler(a.stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, attr slog.Attr) slog.Attr {
		if attr.Value.Kind() == slog.KindDuration {
			attr.Value = slog.StringValue(attr.Value.Duration().String()) // 30s, not 30000000000
		}
		return attr
	}}))
}

// isTerminal reports whether f, a stream of the process, is a terminal.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && isatty.IsTerminal(file.Fd())
}

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
