package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"longhaul/internal/shell"
	"longhaul/internal/window"
	"longhaul/pkg/agent"
	"longhaul/pkg/agent/builtin"
	"longhaul/pkg/agent/builtin/agentfile"
	"longhaul/pkg/contracts"
	"longhaul/services/dispatcher"
	"longhaul/services/statekeeper"
	"longhaul/services/worker"
)

// runner is a service.
type runner = shell.Runner

// serve runs a service in a process of its own until ctx ends.
func (a *app) serve(ctx context.Context, name string, f serviceFlags, settings []any, build func(*nats.Conn, prometheus.Registerer) (runner, error)) error {
	reach, err := a.reach(name)
	if err != nil {
		return err
	}
	p := shell.Process{Service: name, Version: buildVersion().Version, Reach: reach, Shown: a.Shown(), Ports: f.Ports, Topology: f.Options(),
		Settings: settings, Logger: a.log.With("service", name)}
	return p.Run(ctx, func(nc *nats.Conn, r prometheus.Registerer) (runner, error) {
		s, err := build(nc, r)
		if err != nil {
			err = &codedError{code: exitUsage, err: err, hint: "see longhaul " + name + " --help"}
		}
		return s, err
	})
}

// serviceFlags are those of every service.
type serviceFlags struct {
	shell.Topology
	shell.Ports
}

// dispatcherCmd runs a dispatcher.
type dispatcherCmd struct {
	serviceFlags
	AcceptUnknownAgents bool    `help:"Accept runs for agents that no worker has ever registered; they wait for one."`
	MaxTimeoutSeconds   float64 `default:"2592000" placeholder:"S" help:"Longest --timeout that a submission may ask for (default ${default}, 30 days, which is also the most)."`
}

// Help is shown below the command's summary.
func (dispatcherCmd) Help() string {
	return `Any number may run; they share the work. It waits for the broker, and creates what is missing there. The first SIGINT or SIGTERM lets it finish what it has begun, the second ends it at once.

Example:

    longhaul dispatcher --nats nats://broker:4222`
}

// Validate checks what the grammar cannot say.
func (d *dispatcherCmd) Validate() error {
	return shell.Above("--max-timeout-seconds", d.MaxTimeoutSeconds)
}

// Run runs the service.
func (d *dispatcherCmd) Run(ctx context.Context, a *app) error {
	longest := time.Duration(d.MaxTimeoutSeconds * float64(time.Second))
	settings := []any{"accept_unknown_agents", d.AcceptUnknownAgents, "max_timeout", longest}
	return a.serve(ctx, "dispatcher", d.serviceFlags, settings, func(nc *nats.Conn, r prometheus.Registerer) (runner, error) {
		return dispatcher.New(nc, dispatcher.Config{AcceptUnknownAgents: d.AcceptUnknownAgents, MaxTimeout: longest,
			Topology: d.Options(), Metrics: r, Tracer: a.tracer, Logger: a.log.With("service", "dispatcher")})
	})
}

// statekeeperCmd runs a statekeeper.
type statekeeperCmd struct {
	RetentionDays     float64           `default:"7" placeholder:"DAYS" help:"How long a run is kept after its end (default ${default})."`
	RetentionFor      map[string]string `mapsep:"," placeholder:"STATUS=TIME,…" help:"The same for runs that ended with a status, where it differs: failed=30d,succeeded=12h."`
	CheckpointHistory int               `default:"50" placeholder:"N" help:"Checkpoints that are kept of each run, the newest (default ${default})."`
	serviceFlags
}

// Help is shown below the command's summary.
func (statekeeperCmd) Help() string {
	return `Any number may run; one works, the others stand by and answer queries. The first SIGINT or SIGTERM lets it finish what it has begun, the second ends it at once.

A run that has not ended is kept, however long it waits or works. What has ended goes with its log, checkpoints and idempotency key.

Examples:

    longhaul statekeeper --nats nats://broker:4222
    longhaul statekeeper --retention-days 3 --retention-for failed=30d,timed_out=30d`
}

// Validate checks what the grammar cannot say.
func (s *statekeeperCmd) Validate() error {
	if s.RetentionDays <= 0 {
		return fmt.Errorf("--retention-days: must be more than 0, not %v", s.RetentionDays)
	}
	if s.CheckpointHistory < 1 {
		return fmt.Errorf("--checkpoint-history: must be at least 1, not %d: a run resumes from its newest", s.CheckpointHistory)
	}
	return nil
}

// retentionFor reads --retention-for. Which statuses there are is statekeeper's to say.
func (s *statekeeperCmd) retentionFor() (map[contracts.Status]time.Duration, error) {
	kept := make(map[contracts.Status]time.Duration)
	for status, text := range s.RetentionFor {
		d, err := parseDuration(text)
		if err != nil {
			return nil, usagef("--retention-for %s: %w", status, err)
		}
		kept[contracts.Status(status)] = d
	}
	return kept, nil
}

// Run runs the service.
func (s *statekeeperCmd) Run(ctx context.Context, a *app) error {
	retention := time.Duration(s.RetentionDays * 24 * float64(time.Hour))
	kept, err := s.retentionFor()
	if err != nil {
		return err
	}
	settings := []any{"retention", retention, "retention_for", s.RetentionFor, "checkpoint_history", s.CheckpointHistory}
	return a.serve(ctx, "statekeeper", s.serviceFlags, settings, func(nc *nats.Conn, r prometheus.Registerer) (runner, error) {
		log := a.log.With("service", "statekeeper")
		keeper, err := statekeeper.New(nc, statekeeper.Config{Topology: s.Options(), Version: buildVersion().semantic(),
			Retention: retention, RetentionFor: kept, CheckpointHistory: s.CheckpointHistory, Metrics: r, Logger: log})
		return withWindow{keeper, nc, log}, err
	})
}

// withWindow is a statekeeper, and beside it what shows single runs to those who
// may see no other.
type withWindow struct {
	*statekeeper.Statekeeper
	nc  *nats.Conn
	log *slog.Logger
}

// Run runs both until ctx ends.
func (w withWindow) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	shown := make(chan error, 1)
	go func() { shown <- window.Serve(ctx, w.nc, w.log) }()
	err := w.Statekeeper.Run(ctx)
	cancel()
	return errors.Join(err, <-shown)
}

// workerCmd runs a worker.
type workerCmd struct {
	Config configFile `type:"path" placeholder:"FILE" help:"File of YAML or JSON that says which agents to host, and settings. A flag or the environment wins over its settings."`
	agentFlags
	shell.Worker
	Check bool `help:"Check the configuration, and end."`
	Once  bool `help:"Execute one run that waits, and end: exit code 8 if none waits."`

	serviceFlags
}

// Help is shown below the command's summary.
func (workerCmd) Help() string {
	return `Times are in seconds. The first SIGINT or SIGTERM drains the worker, the second ends it at once; its runs are then taken over.

Built-in agents: echo (answers with its messages), count (counts, with checkpoints), flaky (fails on demand; whoever submits to it can end the worker). --exec hosts any program: it reads the submission as JSON on stdin and writes events as JSON lines on stdout, as docs/protocol.md has it.

Examples:

    longhaul worker --agent echo --agent count --concurrency 50
    longhaul worker --exec 'summarize=python3 summarize.py --fast'
    longhaul worker --config agents.yaml
    longhaul worker --config agents.yaml --check
    longhaul worker --agent echo --agent count --agent-concurrency count=2
    longhaul worker --agent echo --once`
}

// Validate checks what the grammar cannot say.
func (w *workerCmd) Validate() error {
	if len(w.Agent) == 0 && len(w.Exec) == 0 && w.Config == "" {
		return fmt.Errorf("say what to execute: --config FILE, --agent (built in: %s) or --exec NAME=COMMAND", strings.Join(builtinKeys(), ", "))
	}
	if w.Check && w.Once {
		return errors.New("--check: nothing is executed, so --once is out of place")
	}
	if w.Once && w.Ports != (shell.Ports{}) {
		return errors.New("--once: --http and --pprof are for a worker that stays")
	}
	return w.Worker.Check()
}

// Run runs the service.
func (w *workerCmd) Run(ctx context.Context, a *app) error {
	cfg, file, err := w.config(a.log.With("service", "worker"))
	if err == nil {
		defer file.Close()
		cfg.Agents, err = a.Sealed(cfg.Agents)
	}
	if err != nil {
		return err
	}
	if w.Check {
		return w.checked(ctx, a, cfg, file.Servers)
	}
	if w.Once {
		return w.once(ctx, a, cfg)
	}
	return a.serve(ctx, "worker", w.serviceFlags, shell.Described(cfg), func(nc *nats.Conn, r prometheus.Registerer) (runner, error) {
		cfg.Metrics, cfg.Tracer = r, a.tracer
		return worker.New(nc, cfg)
	})
}

func (w *workerCmd) config(log *slog.Logger) (worker.Config, agentfile.File, error) {
	var file agentfile.File
	agents, err := w.agents()
	if err == nil && w.Config != "" {
		file, err = w.Config.load(log)
		agents = append(agents, file.Agents...)
	}
	cfg := worker.Config{Agents: agents, Topology: w.Options(), Logger: log}
	if err == nil {
		err = w.Configure(&cfg)
	}
	return cfg, file, err
}

func (w *workerCmd) once(ctx context.Context, a *app, cfg worker.Config) error {
	nc, err := a.connect()
	if err != nil {
		return err
	}
	defer shell.HangUp(nc)
	wk, err := worker.New(nc, cfg)
	if err != nil {
		return &codedError{code: exitUsage, err: err, hint: "see longhaul worker --help"}
	}
	executed, err := wk.RunOnce(ctx)
	if err != nil {
		return err
	}
	if a.JSON {
		if err := a.printJSON(struct {
			Executed bool `json:"executed"`
		}{executed}); err != nil {
			return err
		}
	}
	if executed {
		return nil
	}
	if !a.JSON {
		a.err.printf("No run waits.\n")
	}
	return &codedError{code: exitNotFound}
}

// agentFlags say which agents a worker hosts.
type agentFlags struct {
	Agent []string `placeholder:"KEY" help:"Host a built-in agent: echo, count or flaky; may be repeated."`
	Exec  []string `sep:"none" placeholder:"NAME=COMMAND" help:"Host a program as an agent; may be repeated. No shell reads the command; quotes keep words together."`
}

func (f agentFlags) agents() ([]agent.Agent, error) {
	var agents []agent.Agent
	for _, key := range f.Agent {
		a, ok := builtin.Named(key)
		if !ok {
			return nil, usagef("--agent: there is no built-in agent %q; there are %s (a program is hosted with --exec)",
				key, strings.Join(builtinKeys(), ", "))
		}
		agents = append(agents, a)
	}
	for _, spec := range f.Exec {
		name, command, ok := cutAssignment(spec)
		if !ok {
			return nil, usagef("--exec: must be NAME=COMMAND, such as 'report=python3 report.py', not %q", spec)
		}
		words, err := splitCommand(command)
		if err != nil {
			return nil, usagef("--exec %s: %w", name, err)
		}
		a, err := builtin.Exec(builtin.ExecConfig{Key: name, Command: words})
		if err != nil {
			return nil, &codedError{code: exitUsage, err: err}
		}
		agents = append(agents, a)
	}
	return agents, nil
}

func builtinKeys() []string { return shell.KeysOf(builtin.All()) }

// splitCommand cuts a command line into words as a shell does, with quotes and
// backslashes, and nothing else that a shell would do.
func splitCommand(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	var quote rune
	inWord, escaped := false, false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, inWord = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, inWord = r, true
		case quote == 0 && (r == ' ' || r == '\t' || r == '\n'):
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, fmt.Errorf("a quote or backslash is left open in %q", line)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}
