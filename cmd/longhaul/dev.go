package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/internal/shell"
	"longhaul/pkg/agent/builtin"
	"longhaul/pkg/client"
	"longhaul/pkg/jsutil"
	"longhaul/services/dispatcher"
	"longhaul/services/statekeeper"
	"longhaul/services/worker"
)

// devCmd runs everything in one process.
type devCmd struct {
	Data        string `type:"path" default:"longhaul-data" placeholder:"DIR" help:"Directory that the broker keeps its data in (default ./longhaul-data)."`
	Memory      bool   `help:"Keep everything in memory: gone when it ends."`
	Host        string `default:"127.0.0.1" placeholder:"HOST" help:"Address that the broker listens on (default ${default}). It asks nobody for a password."`
	Port        int    `default:"4222" placeholder:"PORT" help:"Port that the broker listens on (default ${default}; 0: any that is free)."`
	Concurrency int    `default:"10" placeholder:"N" help:"Runs that are executed at once (default ${default})."`
	shell.Ports
	Exec []string `sep:"none" placeholder:"NAME=COMMAND" help:"Host a program as an agent beside the built-in ones; may be repeated."`
}

// Help is shown below the command's summary.
func (devCmd) Help() string {
	return `For development and for trying things out: one process, the same services, and a broker that any NATS client can reach. What is kept in the directory goes on where it was at the next start.

Examples:

    longhaul dev
    longhaul dev --memory --port 0
    longhaul dev --exec 'summarize=python3 summarize.py'`
}

// Validate checks what the grammar cannot say.
func (d *devCmd) Validate() error { return shell.Above("--concurrency", float64(d.Concurrency)) }

const (
	// devDrain is short: whoever presses ^C waits for it, and the runs go on at
	// the next start.
	devDrain = time.Second
	// devReady bounds the start. Rebuilding the statuses of many runs takes seconds.
	devReady = 60 * time.Second
)

// Run runs it all until ctx ends.
func (d *devCmd) Run(ctx context.Context, a *app) error {
	log := a.logger(slog.LevelWarn)
	agents, err := agentFlags{Agent: builtinKeys(), Exec: d.Exec}.agents()
	if err != nil {
		return err
	}
	dir := d.Data
	if d.Memory {
		dir = ""
	}
	broker, err := jsutil.StartEmbedded(jsutil.EmbeddedConfig{Dir: dir, Host: d.Host, Port: d.Port, Logger: log.With("service", "broker")})
	if err != nil {
		return &codedError{code: exitError, err: err, hint: "is another one running? Choose another port, --port 0 for any, or another directory, --data DIR"}
	}
	defer broker.Shutdown()
	a.NATS, a.Context, a.Creds = broker.URL(), "", ""
	topology := jsutil.TopologyOptions{Storage: broker.Storage()}
	m, err := d.Open(buildVersion().Version, log)
	if err != nil {
		return err
	}
	defer m.Close()

	group := services{monitor: m, topology: topology}
	defer group.close()
	group.add(a, "dispatcher", log, func(nc *nats.Conn, log *slog.Logger) (runner, error) {
		return dispatcher.New(nc, dispatcher.Config{Topology: topology, Metrics: m.Registerer(), Tracer: a.tracer, Logger: log})
	})
	group.add(a, "statekeeper", log, func(nc *nats.Conn, log *slog.Logger) (runner, error) {
		return statekeeper.New(nc, statekeeper.Config{Topology: topology, Version: buildVersion().semantic(), Metrics: m.Registerer(), Logger: log})
	})
	group.add(a, "worker", log, func(nc *nats.Conn, log *slog.Logger) (runner, error) {
		return worker.New(nc, worker.Config{Agents: agents, Concurrency: d.Concurrency, DrainTimeout: devDrain, Topology: topology, Metrics: m.Registerer(), Tracer: a.tracer, Logger: log})
	})
	return group.run(ctx, func(ctx context.Context) error {
		c, hangUp, err := a.dial()
		if err != nil {
			return err
		}
		defer hangUp()
		if err := waitReady(ctx, c, len(agents)); err != nil {
			return err
		}
		return d.welcome(a, shell.KeysOf(agents), m)
	})
}

// services are run together: if one fails, all end.
type services struct {
	names   []string
	runners []runner
	conns   []*nats.Conn
	err     error // of an add

	monitor  *shell.Monitor
	topology jsutil.TopologyOptions
}

// add builds a service on a connection of its own.
func (s *services) add(a *app, name string, log *slog.Logger, build func(*nats.Conn, *slog.Logger) (runner, error)) {
	if s.err != nil {
		return
	}
	log = log.With("service", name)
	nc, err := a.connectService(name, log)
	if err != nil {
		s.err = err
		return
	}
	s.conns = append(s.conns, nc)
	if s.err = s.monitor.Watch(name, nc, s.topology); s.err != nil {
		return
	}
	r, err := build(nc, log)
	if err != nil {
		s.err = &codedError{code: exitUsage, err: err}
		return
	}
	s.names, s.runners = append(s.names, name), append(s.runners, r)
}

func (s *services) close() {
	for _, nc := range s.conns {
		shell.HangUp(nc)
	}
}

// run runs all until ctx ends or one fails, and started beside them.
func (s *services) run(ctx context.Context, started func(context.Context) error) error {
	if s.err != nil {
		return s.err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(s.runners))
	var wg sync.WaitGroup
	for i, r := range s.runners {
		wg.Go(func() {
			defer cancel()
			if err := r.Run(ctx); err != nil {
				errs[i] = fmt.Errorf("%s: %w", s.names[i], err)
			}
		})
	}
	err := started(ctx)
	if err != nil {
		cancel()
		if errors.Is(err, context.Canceled) {
			err = nil // told to end, or a service failed: that error says why
		}
	}
	wg.Wait()
	return errors.Join(append(errs, err)...)
}

// waitReady returns when a run that is submitted now would be taken: the
// worker has registered its agents and statekeeper answers.
func waitReady(ctx context.Context, c *client.Client, agents int) error {
	ctx, cancel := context.WithTimeout(ctx, devReady)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		registered, err := c.Agents(ctx)
		if err == nil && len(registered) >= agents {
			if _, err = c.Stats(ctx); err == nil {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("the services did not get ready within %s: %w", devReady, errors.Join(err, ctx.Err()))
			}
			return ctx.Err()
		}
	}
}

// welcome says how to reach it and what to try.
func (d *devCmd) welcome(a *app, agents []string, m *shell.Monitor) error {
	var shown string
	if m.Address() != "" {
		shown = "http://" + m.Address()
	}
	dir, err := filepath.Abs(d.Data)
	if err != nil {
		dir = d.Data
	}
	if d.Memory {
		dir = ""
	}
	if a.JSON {
		return a.printJSON(struct {
			URL    string   `json:"url"`
			Data   string   `json:"data,omitempty"`
			Agents []string `json:"agents"`
			HTTP   string   `json:"http,omitempty"`
		}{a.NATS, dir, agents, shown})
	}
	c := a.out
	kept := dir + c.dim(" (kept)")
	if d.Memory {
		kept = "in memory" + c.dim(" (gone when this ends)")
	}
	c.printf("\n%s broker, dispatcher, statekeeper and a worker, in this process.\n\n", c.bold("Longhaul is running:"))
	pairs := []string{"broker", c.bold(a.NATS), "data", kept, "agents", strings.Join(agents, ", ")}
	if shown != "" {
		pairs = append(pairs, "metrics", shown+"/metrics")
	}
	c.next(pairs...)
	c.printf("\nTry, in another terminal:\n\n")
	var try []string
	if a.NATS != nats.DefaultURL {
		try = append(try, "export LONGHAUL_NATS="+a.NATS)
	}
	try = append(try,
		`longhaul submit `+builtin.KeyEcho+` --message "hello" --wait`,
		`longhaul submit `+builtin.KeyCount+` --param n=10 --param pause_ms=500 --follow`,
		`longhaul submit `+builtin.KeyFlaky+` --param fail_times=2 --follow`,
		`longhaul list`,
		`nats sub 'runs.*.events'`)
	for _, line := range try {
		c.printf("  %s %s\n", c.dim("$"), line)
	}
	c.printf("\n%s\n\n", c.dim("^C stops it."))
	return nil
}
