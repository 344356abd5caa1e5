// Package host is the main function of a program that hosts agents of its own.
package host

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/seal"
	"longhaul/services/worker"
)

// Config is a worker's configuration: Agents is all that is required.
type Config = worker.Config

// Main hosts the agents of cfg. It connects to the broker that the environment
// names, by the variables of the longhaul command: LONGHAUL_NATS (the one on
// this machine unless told), LONGHAUL_CONTEXT, _CREDS, _NKEY, _TLS_CA,
// _TLS_CERT, _TLS_KEY and _INBOX_PREFIX. With LONGHAUL_SEAL_KEYS, a file of keys,
// the agents are sealed (agent.Sealed). It executes runs until SIGINT or
// SIGTERM, when it drains; a second signal ends the program at once. What is
// wrong is printed, and the exit code is 1.
func Main(cfg Config) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg Config) error {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	agents, err := sealed(cfg.Agents, os.Getenv("LONGHAUL_SEAL_KEYS"))
	if err != nil {
		return err
	}
	cfg.Agents = agents
	nc, err := jsutil.Connect(jsutil.ConnectConfig{
		URL: os.Getenv("LONGHAUL_NATS"), Context: os.Getenv("LONGHAUL_CONTEXT"),
		Creds: os.Getenv("LONGHAUL_CREDS"), NKey: os.Getenv("LONGHAUL_NKEY"),
		TLSCA: os.Getenv("LONGHAUL_TLS_CA"), TLSCert: os.Getenv("LONGHAUL_TLS_CERT"), TLSKey: os.Getenv("LONGHAUL_TLS_KEY"),
		InboxPrefix: os.Getenv("LONGHAUL_INBOX_PREFIX"),
		Name:        "longhaul worker", Retry: true, Logger: cfg.Logger,
	})
	if err != nil {
		return err
	}
	defer nc.Close()
	w, err := worker.New(nc, cfg)
	if err != nil {
		return err
	}
	err = w.Run(ctx)
	if nc.IsConnected() {
		_ = nc.FlushTimeout(2 * time.Second) // what was not said by then, the log will tell
	}
	return err
}

// sealed returns the agents behind the keys in a file, or as they are without one.
func sealed(agents []agent.Agent, path string) ([]agent.Agent, error) {
	if path == "" {
		return agents, nil
	}
	keys, err := seal.LoadKeys(path)
	if err != nil {
		return nil, fmt.Errorf("LONGHAUL_SEAL_KEYS: %w", err)
	}
	all := make([]agent.Agent, len(agents))
	for i, a := range agents {
		if all[i], err = agent.Sealed(a, keys); err != nil {
			return nil, err
		}
	}
	return all, nil
}
