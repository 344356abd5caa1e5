package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"time"

	"github.com/lmittmann/tint"
	"github.com/mattn/go-isatty"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/client"
	"longhaul/pkg/jsutil"
)

// globals are the flags of every command.
type globals struct {
	NATS     string  `name:"nats" group:"global" placeholder:"URL" help:"Broker to connect to (default nats://127.0.0.1:4222)."`
	Context  string  `group:"global" placeholder:"NAME" help:"NATS context to connect with, as made by the nats command."`
	Creds    string  `group:"global" placeholder:"FILE" help:"Credentials file."`
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

// connect connects a client command: it fails within seconds if there is no broker.
func (a *app) connect() (*nats.Conn, error) {
	return jsutil.Connect(jsutil.ConnectConfig{
		URL: a.NATS, Context: a.Context, Creds: a.Creds, Name: "longhaul cli " + hostname(), Logger: a.warnings,
	})
}

// dial connects and returns a client, with what closes its connection.
func (a *app) dial() (c *client.Client, hangUp func(), err error) {
	nc, err := a.connect()
	if err != nil {
		return nil, nil, err
	}
	c, err = client.New(nc)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return c, nc.Close, nil
}

// jetStream connects a command that looks at the broker itself; the connection,
// js.Conn(), is the caller's to close.
func (a *app) jetStream() (jetstream.JetStream, error) {
	nc, err := a.connect()
	if err != nil {
		return nil, err
	}
	js, err := jsutil.JetStream(nc)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return js, nil
}

// connectService connects a service: it goes on trying for ever.
func (a *app) connectService(name string, log *slog.Logger) (*nats.Conn, error) {
	return jsutil.Connect(jsutil.ConnectConfig{
		URL: a.NATS, Context: a.Context, Creds: a.Creds, Name: "longhaul " + name + " " + hostname(),
		Retry: true, Logger: log,
	})
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

// withoutSecrets returns a broker's URL as it may be logged: without user,
// password or token.
func withoutSecrets(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return "(not shown)"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}
