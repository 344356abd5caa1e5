package worker

import (
	"context"
	"fmt"
	"os"
	ossignal "os/signal"
	"syscall"
	"time"

	"longhaul/pkg/jsutil"
)

// Main is the main function of a program that hosts agents. It connects to the
// broker that LONGHAUL_NATS, LONGHAUL_CONTEXT and LONGHAUL_CREDS name, as the
// longhaul command does, the one on this machine unless told, and executes runs
// until SIGINT or SIGTERM, when it drains. A second signal ends the program at
// once; so does an error, which is printed, with exit code 1.
func Main(cfg Config) {
	ctx, stop := ossignal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := serve(ctx, cfg.withDefaults()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, cfg Config) error {
	nc, err := jsutil.Connect(jsutil.ConnectConfig{
		URL: os.Getenv("LONGHAUL_NATS"), Context: os.Getenv("LONGHAUL_CONTEXT"), Creds: os.Getenv("LONGHAUL_CREDS"),
		Name: "longhaul worker " + cfg.WorkerID, Retry: true, Logger: cfg.Logger,
	})
	if err != nil {
		return err
	}
	defer nc.Close()
	w, err := New(nc, cfg)
	if err != nil {
		return err
	}
	err = w.Run(ctx)
	if nc.IsConnected() {
		_ = nc.FlushTimeout(2 * time.Second) // nothing is left to be done about it
	}
	return err
}
