package shell

import (
	"context"
	"io"
	"log/slog"
	"net/url"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/lmittmann/tint"
	"github.com/mattn/go-isatty"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"

	"longhaul/pkg/jsutil"
	"longhaul/pkg/tracing"
	"longhaul/pkg/tracing/otlp"
)

// Runner is a service.
type Runner interface {
	Run(ctx context.Context) error
}

// Process is a process that has one service.
type Process struct {
	Service string // dispatcher, worker, statekeeper
	Version string
	// Reach is how it reaches the broker, and Shown how that is told.
	Reach    jsutil.ConnectConfig
	Shown    string
	Ports    Ports
	Topology jsutil.TopologyOptions
	Settings []any // for the log: names and values
	Logger   *slog.Logger
}

// flushTimeout bounds how long the last messages of a service may take to leave.
const flushTimeout = 2 * time.Second

// Run connects, says how the service is configured, and runs it until ctx ends.
// It goes on trying to connect for ever. What build refuses is an error of usage.
func (p Process) Run(ctx context.Context, build func(*nats.Conn, prometheus.Registerer) (Runner, error)) error {
	defer runtime.KeepAlive(Ballast())
	m, err := p.Ports.Open(p.Version, p.Logger)
	if err != nil {
		return err
	}
	defer m.Close()
	p.Reach.Retry, p.Reach.Logger = true, p.Logger
	nc, err := jsutil.Connect(p.Reach)
	if err != nil {
		return err
	}
	defer HangUp(nc)
	if err := m.Watch(p.Service, nc, p.Topology); err != nil {
		return err
	}
	s, err := build(nc, m.Registerer())
	if err != nil {
		return Usage(err)
	}
	p.Logger.Info("configuration", append(append([]any{"version", p.Version, "nats", p.Shown}, p.Settings...),
		"replicas", p.Topology.Replicas, "storage", strings.ToLower(p.Topology.Storage.String()))...)
	if err := s.Run(ctx); err != nil {
		return err
	}
	p.Logger.Info("stopped")
	return nil
}

// Ballast returns memory that is never touched, and so is none, but counts as
// live to the garbage collector. What really lives in a service is a few MB,
// and would have it collect dozens of times a second under load, which takes a
// tenth of the processor; so it collects after this much has been allocated.
func Ballast() []byte { return make([]byte, 64<<20) }

// HangUp closes nc once what was published has left.
func HangUp(nc *nats.Conn) {
	if nc.IsConnected() {
		_ = nc.FlushTimeout(flushTimeout) // nobody is left to be told
	}
	nc.Close()
}

// Log are the flags of a program's log.
type Log struct {
	LogLevel *string `group:"global" enum:"debug,info,warn,error" placeholder:"LEVEL" help:"Least level that is logged: debug, info, warn or error (default info for a service, else warn)."`
	NoColor  bool    `group:"global" env:"LONGHAUL_NO_COLOR" help:"No colours (nor with NO_COLOR set, nor when not on a terminal)."`
}

// Plain says that there are to be no colours, also on a terminal.
func (l Log) Plain(getenv func(string) string) bool {
	return l.NoColor || getenv("NO_COLOR") != "" || getenv("TERM") == "dumb"
}

// Logger logs to w, from the level that --log-level names or else from level:
// words on a terminal, JSON otherwise.
func (l Log) Logger(w io.Writer, getenv func(string) string, level slog.Level) *slog.Logger {
	if l.LogLevel != nil {
		_ = level.UnmarshalText([]byte(*l.LogLevel)) // the grammar admits levels alone
	}
	if IsTerminal(w) {
		return slog.New(tint.NewTextHandler(w, &tint.Options{Level: level, TimeFormat: "15:04:05.000", NoColor: l.Plain(getenv)}))
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, attr slog.Attr) slog.Attr {
		if attr.Value.Kind() == slog.KindDuration {
			attr.Value = slog.StringValue(attr.Value.Duration().String()) // 30s, not 30000000000
		}
		return attr
	}}))
}

// IsTerminal reports whether f, a stream of the process, is a terminal.
func IsTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && isatty.IsTerminal(file.Fd())
}

// traceFlush is how long the last spans of a process may take to leave.
const traceFlush = 3 * time.Second

// Trace sends spans where the environment says, if it names a collector; else the
// Tracer is nil. flush sends what is left.
func Trace(ctx context.Context, getenv func(string) string, service, version string, log *slog.Logger) (t *tracing.Tracer, flush func(), err error) {
	e, err := otlp.FromEnv(ctx, getenv, service, version)
	if err != nil || e == nil {
		return nil, func() {}, err
	}
	hide := hider(getenv)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("spans could not be sent", "error", hide.Replace(err.Error())) }))
	return e.Tracer, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), traceFlush)
		defer cancel()
		if err := e.Close(ctx); err != nil {
			log.Warn("the last spans could not be sent", "error", hide.Replace(err.Error()))
		}
	}, nil
}

// hider takes the headers that a collector is sent, which are for secrets, out of
// what it answers: the exporter repeats that in its errors.
func hider(getenv func(string) string) *strings.Replacer {
	var pairs []string
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"} {
		for header := range strings.SplitSeq(getenv(name), ",") {
			_, value, _ := strings.Cut(header, "=")
			value = strings.TrimSpace(value)
			if value == "" {
				continue
			}
			pairs = append(pairs, value, "(hidden)")
			if plain, err := url.PathUnescape(value); err == nil && plain != value {
				pairs = append(pairs, plain, "(hidden)")
			}
		}
	}
	return strings.NewReplacer(pairs...)
}

// NameEnvironment gives every flag of a grammar its environment variable. Those
// of a client command carry the command's name: a worker configured with
// LONGHAUL_AGENT must not filter what `longhaul list` shows, and the
// LONGHAUL_RUN_ID that an exec agent's program is given must not become the id
// of what it submits.
func NameEnvironment(k *kong.Kong) error {
	upper := strings.NewReplacer("-", "_", " ", "_")
	var name func(node *kong.Node, prefix string)
	name = func(node *kong.Node, prefix string) {
		for _, f := range node.Flags {
			if f.Name == "help" || len(f.Envs) > 0 {
				continue
			}
			env := strings.ToUpper(upper.Replace(prefix + f.Name))
			f.Envs, f.Tag.Envs = []string{env}, []string{env}
		}
		for _, child := range node.Children {
			p := prefix + child.Name + "-"
			switch child.Name {
			case "dispatcher", "worker", "statekeeper":
				p = prefix
			}
			name(child, p)
		}
	}
	name(k.Model.Node, "longhaul-")
	return nil
}

// InEnvironment reports whether the environment says what a flag is.
func InEnvironment(flag *kong.Flag) bool {
	for _, name := range flag.Envs {
		if _, there := os.LookupEnv(name); there {
			return true
		}
	}
	return false
}
