// Package host is the main function of a program that hosts agents of its own.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"longhaul/internal/shell"
	"longhaul/services/worker"
)

// Config is a worker's configuration: Agents is all that is required.
type Config = worker.Config

// Main hosts the agents of cfg, and is to its operator what `longhaul worker` is:
// every flag of that command but --agent, --exec, --config, --check and --once has
// its variable here, such as LONGHAUL_NATS, LONGHAUL_CONTEXT, LONGHAUL_NKEY,
// LONGHAUL_TLS_CA, LONGHAUL_HTTP, LONGHAUL_CONCURRENCY, LONGHAUL_SEAL_KEYS or
// LONGHAUL_LOG_LEVEL (longhaul worker --help has them all), and
// OTEL_EXPORTER_OTLP_ENDPOINT has spans sent. The environment wins over cfg,
// which wins over the defaults. Tracer and Logger, if cfg has them, are what it
// says, and so is Metrics, with which LONGHAUL_HTTP is refused. Arguments of the
// program are its own: Main reads none.
//
// It executes runs until SIGINT or SIGTERM, when it drains; a second signal ends
// the program at once. What is wrong is printed, and the exit code is 1, or 2 if
// it is a setting.
func Main(cfg Config) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		if shell.IsUsage(err) {
			fmt.Fprintln(os.Stderr, "(each flag is a variable here: --log-level is LONGHAUL_LOG_LEVEL)")
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// settings are what the environment may say.
type settings struct {
	shell.Broker
	shell.Log
	shell.Worker
	shell.Topology
	shell.Ports
}

func run(ctx context.Context, cfg Config) error {
	s, err := read(cfg)
	if err != nil {
		return err
	}
	if cfg.Logger == nil {
		cfg.Logger = s.Logger(os.Stderr, os.Getenv, slog.LevelInfo).With("service", "worker")
	}
	if cfg.Metrics != nil && s.Ports != (shell.Ports{}) {
		return shell.Usage(errors.New("LONGHAUL_HTTP and LONGHAUL_PPROF: this program has its metrics elsewhere, and serves none by itself"))
	}
	if err := s.Configure(&cfg); err != nil {
		return err
	}
	if cfg.Agents, err = s.Sealed(cfg.Agents); err != nil {
		return err
	}
	cfg.Topology = s.Options()
	reach, err := s.Reach("longhaul worker")
	if err != nil {
		return err
	}
	version := buildVersion()
	if cfg.Tracer == nil {
		tracer, flush, err := shell.Trace(ctx, os.Getenv, "longhaul-worker", version, cfg.Logger)
		if err != nil {
			return err
		}
		defer flush()
		cfg.Tracer = tracer
	}
	p := shell.Process{Service: "worker", Version: version, Reach: reach, Shown: s.Shown(), Ports: s.Ports, Topology: cfg.Topology,
		Settings: shell.Described(cfg), Logger: cfg.Logger}
	return p.Run(ctx, func(nc *nats.Conn, r prometheus.Registerer) (shell.Runner, error) {
		if cfg.Metrics == nil {
			cfg.Metrics = r
		}
		return worker.New(nc, cfg)
	})
}

// read is what the environment says, and cfg where it says nothing.
func read(cfg Config) (s settings, err error) {
	parser, err := kong.New(&s, kong.Name("worker"), kong.NoDefaultHelp(), kong.Writers(io.Discard, io.Discard),
		kong.PostBuild(shell.NameEnvironment), kong.Resolvers(kong.ResolverFunc(
			func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
				if said := shell.Stated(cfg, flag.Name); said != "" && !shell.InEnvironment(flag) {
					return said, nil
				}
				return nil, nil
			})))
	if err != nil {
		return s, fmt.Errorf("build the settings: %w", err)
	}
	if _, err = parser.Parse(nil); err != nil {
		return s, shell.Usage(err)
	}
	return s, s.Check()
}

// buildVersion is the program's, as the Go tool has written it into the binary.
func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}
