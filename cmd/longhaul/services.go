package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"longhaul/internal/window"
	"longhaul/pkg/agent"
	"longhaul/pkg/agent/builtin"
	"longhaul/pkg/agent/builtin/agentfile"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/services/dispatcher"
	"longhaul/services/statekeeper"
	"longhaul/services/worker"
)

// runner is a service.
type runner interface {
	Run(ctx context.Context) error
}

// flushTimeout bounds how long the last messages of a service may take to leave.
const flushTimeout = 2 * time.Second

// serve connects, says how the service is configured, and runs it until ctx ends.
func (a *app) serve(ctx context.Context, name string, f serviceFlags, settings []any, build func(*nats.Conn, prometheus.Registerer) (runner, error)) error {
	defer runtime.KeepAlive(gcBallast())
	log := a.log.With("service", name)
	m, err := f.open(log)
	if err != nil {
		return err
	}
	defer m.close()
	nc, err := a.connectService(name, log)
	if err != nil {
		return err
	}
	defer hangUp(nc)
	if err := m.watch(name, nc, f.options()); err != nil {
		return err
	}
	s, err := build(nc, m.registerer())
	if err != nil {
		return &codedError{code: exitUsage, err: err, hint: "see longhaul " + name + " --help"}
	}
	log.Info("configuration", append(append([]any{"version", buildVersion().Version, "nats", a.broker()}, settings...), f.settings()...)...)
	if err := s.Run(ctx); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// gcBallast returns memory that is never touched, and so is none, but counts as
// live to the garbage collector. What really lives in a service is a few MB,
// and would have it collect dozens of times a second under load, which takes a
// tenth of the processor; so it collects after this much has been allocated.
func gcBallast() []byte { return make([]byte, 64<<20) }

// hangUp closes nc once what was published has left.
func hangUp(nc *nats.Conn) {
	if nc.IsConnected() {
		_ = nc.FlushTimeout(flushTimeout) // nobody is left to be told
	}
	nc.Close()
}

// broker names the broker as the flags do, without secrets.
func (a *app) broker() string {
	switch {
	case a.Context != "":
		return "context " + a.Context
	case a.NATS == "":
		return nats.DefaultURL
	}
	var shown []string
	for _, u := range strings.Split(a.NATS, ",") {
		shown = append(shown, withoutSecrets(strings.TrimSpace(u)))
	}
	return strings.Join(shown, ",")
}

// topologyFlags say how streams are made that are missing.
type topologyFlags struct {
	Replicas int    `default:"1" placeholder:"N" help:"Replicas of each stream that is created: 1, 3 or 5."`
	Storage  string `enum:"file,memory" default:"file" placeholder:"KIND" help:"Storage of each stream that is created: file or memory."`
}

func (f topologyFlags) options() jsutil.TopologyOptions {
	o := jsutil.TopologyOptions{Replicas: f.Replicas, Storage: jetstream.FileStorage}
	if f.Storage == "memory" {
		o.Storage = jetstream.MemoryStorage
	}
	return o
}

func (f topologyFlags) settings() []any { return []any{"replicas", f.Replicas, "storage", f.Storage} }

// serviceFlags are those of every service.
type serviceFlags struct {
	topologyFlags
	httpFlags
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
func (d *dispatcherCmd) Validate() error { return above("--max-timeout-seconds", d.MaxTimeoutSeconds) }

// Run runs the service.
func (d *dispatcherCmd) Run(ctx context.Context, a *app) error {
	longest := time.Duration(d.MaxTimeoutSeconds * float64(time.Second))
	settings := []any{"accept_unknown_agents", d.AcceptUnknownAgents, "max_timeout", longest}
	return a.serve(ctx, "dispatcher", d.serviceFlags, settings, func(nc *nats.Conn, r prometheus.Registerer) (runner, error) {
		return dispatcher.New(nc, dispatcher.Config{AcceptUnknownAgents: d.AcceptUnknownAgents, MaxTimeout: longest,
			Topology: d.options(), Metrics: r, Tracer: a.tracer, Logger: a.log.With("service", "dispatcher")})
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
		keeper, err := statekeeper.New(nc, statekeeper.Config{Topology: s.options(), Version: buildVersion().semantic(),
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
	WorkerID    string         `name:"worker-id" placeholder:"ID" help:"The worker's name among all (default: a fresh one at every start)."`
	Concurrency int            `default:"10" placeholder:"N" help:"Runs that are executed at once (default ${default})."`
	AgentLimits map[string]int `name:"agent-concurrency" placeholder:"AGENT=N" help:"Runs of one agent that are executed at once, if fewer; may be repeated."`
	Check       bool           `help:"Check the configuration, and end."`
	Once        bool           `help:"Execute one run that waits, and end: exit code 8 if none waits."`

	RunTimeoutSeconds             float64 `default:"300" placeholder:"S" help:"Time for an attempt of a run that names none (default ${default})."`
	MaxAttempts                   int     `default:"3" placeholder:"N" help:"Attempts in all of a run that names none (default ${default})."`
	LeaseTTLSeconds               float64 `name:"lease-ttl-seconds" default:"30" placeholder:"S" help:"How long a run stays with a worker that gives no sign of life (default ${default}). Holds for agents that are registered for the first time."`
	HeartbeatIntervalSeconds      float64 `placeholder:"S" help:"How often the lease is extended (default: a third of it)."`
	HeartbeatEventIntervalSeconds float64 `default:"30" placeholder:"S" help:"How often a run.heartbeat event is written (default ${default})."`
	RetryBackoffBase              float64 `default:"2" placeholder:"S" help:"The delay after attempt n is the n-th power of this (default ${default}), at most --retry-backoff-max."`
	RetryBackoffMax               float64 `default:"300" placeholder:"S" help:"Longest delay before a retry (default ${default})."`
	HistoryLimit                  int     `default:"200" placeholder:"N" help:"Messages of its conversation, the newest ones, that a run begins with (default ${default})."`
	DrainTimeoutSeconds           float64 `default:"30" placeholder:"S" help:"How long runs may go on after the first signal (default ${default}). What has not ended by then goes on elsewhere."`
	CancelGraceSeconds            float64 `default:"10" placeholder:"S" help:"How long an agent may take to end when its run is cancelled or its time is up (default ${default})."`

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
	if w.Once && w.httpFlags != (httpFlags{}) {
		return errors.New("--once: --http and --pprof are for a worker that stays")
	}
	// To worker.Config zero stands for the default; from a person it is a mistake.
	return errors.Join(
		above("--concurrency", float64(w.Concurrency)), above("--max-attempts", float64(w.MaxAttempts)),
		above("--run-timeout-seconds", w.RunTimeoutSeconds), above("--lease-ttl-seconds", w.LeaseTTLSeconds),
		above("--heartbeat-event-interval-seconds", w.HeartbeatEventIntervalSeconds),
		above("--history-limit", float64(w.HistoryLimit)), above("--retry-backoff-base", w.RetryBackoffBase), above("--retry-backoff-max", w.RetryBackoffMax))
}

// above refuses what is not above 0.
func above(flag string, value float64) error {
	if value > 0 {
		return nil
	}
	return fmt.Errorf("%s must be above 0, not %g", flag, value)
}

// Run runs the service.
func (w *workerCmd) Run(ctx context.Context, a *app) error {
	cfg, file, err := w.config(a.log.With("service", "worker"))
	if err == nil {
		defer file.Close()
		err = a.sealAgents(cfg.Agents)
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
	return a.serve(ctx, "worker", w.serviceFlags, settingsOf(cfg), func(nc *nats.Conn, r prometheus.Registerer) (runner, error) {
		cfg.Metrics, cfg.Tracer = r, a.tracer
		return worker.New(nc, cfg)
	})
}

// sealAgents has agents executed behind --seal-keys, if there are such.
func (a *app) sealAgents(agents []agent.Agent) error {
	keys, err := a.keys()
	for i := range agents {
		if err == nil && keys != nil {
			agents[i], err = agent.Sealed(agents[i], keys)
		}
	}
	return err
}

// settingsOf names what a worker is configured with.
func settingsOf(cfg worker.Config) []any {
	limits := map[string]int{}
	for _, a := range cfg.Agents {
		if a.Concurrency > 0 {
			limits[a.Key] = a.Concurrency
		}
	}
	return []any{
		"agents", keysOf(cfg.Agents), "concurrency", cfg.Concurrency, "agent_concurrency", limits, "run_timeout", cfg.RunTimeout, "max_attempts", cfg.MaxAttempts,
		"lease", cfg.Lease, "heartbeat_interval", cfg.HeartbeatInterval, "heartbeat_event_interval", cfg.HeartbeatEventInterval,
		"retry_backoff_base", cfg.RetryBackoffBase, "retry_backoff_max", cfg.RetryBackoffMax, "history_limit", cfg.HistoryLimit,
		"drain_timeout", cfg.DrainTimeout, "cancel_grace", cfg.CancelGrace,
	}
}

func (w *workerCmd) config(log *slog.Logger) (worker.Config, agentfile.File, error) {
	var file agentfile.File
	agents, err := w.agents()
	if err == nil && w.Config != "" {
		file, err = w.Config.load(log)
		agents = append(agents, file.Agents...)
	}
	for key, n := range w.AgentLimits {
		i := slices.IndexFunc(agents, func(a agent.Agent) bool { return a.Key == key })
		if err == nil && (i < 0 || n < 1) {
			err = usagef("--agent-concurrency %s=%d: must be one of %s, and above 0", key, n, strings.Join(keysOf(agents), ", "))
		} else if err == nil {
			agents[i].Concurrency = n
		}
	}
	return worker.Config{
		WorkerID: w.WorkerID, Agents: agents, Concurrency: w.Concurrency,
		RunTimeout: seconds(w.RunTimeoutSeconds), MaxAttempts: w.MaxAttempts,
		Lease: seconds(w.LeaseTTLSeconds), HeartbeatInterval: w.heartbeat(), HeartbeatEventInterval: seconds(w.HeartbeatEventIntervalSeconds),
		RetryBackoffBase: w.RetryBackoffBase, RetryBackoffMax: seconds(w.RetryBackoffMax),
		HistoryLimit: w.HistoryLimit,
		DrainTimeout: max(seconds(w.DrainTimeoutSeconds), 1), // zero stands for the default
		CancelGrace:  max(seconds(w.CancelGraceSeconds), 1),
		Topology:     w.options(), Logger: log,
	}, file, err
}

func (w *workerCmd) heartbeat() time.Duration {
	if w.HeartbeatIntervalSeconds == 0 {
		return seconds(w.LeaseTTLSeconds) / 3
	}
	return seconds(w.HeartbeatIntervalSeconds)
}

func (w *workerCmd) once(ctx context.Context, a *app, cfg worker.Config) error {
	nc, err := a.connect()
	if err != nil {
		return err
	}
	defer hangUp(nc)
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

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

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

func builtinKeys() []string { return keysOf(builtin.All()) }

func keysOf(agents []agent.Agent) []string {
	keys := make([]string, 0, len(agents))
	for _, a := range agents {
		keys = append(keys, a.Key)
	}
	return keys
}

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
