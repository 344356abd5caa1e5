package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/client"
	"longhaul/pkg/jsutil"
	"longhaul/services/dispatcher"
	"longhaul/services/statekeeper"
)

// demoCast is who takes part in the demonstration: a broker and two services
// in this process, two workers in processes of their own.
type demoCast struct {
	dir     string
	broker  *jsutil.Embedded
	group   services
	cancel  context.CancelFunc
	running sync.WaitGroup
	failed  error // of the services, once running is over
	workers map[string]*demoWorker
	client  *client.Client
	js      jetstream.JetStream
	hangUp  func()
}

// demoWorker is a worker process.
type demoWorker struct {
	cmd  *exec.Cmd
	logs *bytes.Buffer
}

// startDemoCast starts all and returns when a run would be taken.
func startDemoCast(ctx context.Context, a *app) (cast *demoCast, err error) {
	c := &demoCast{workers: map[string]*demoWorker{}}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	if c.dir, err = os.MkdirTemp("", "longhaul-demo-"); err != nil {
		return nil, fmt.Errorf("make a directory for the broker: %w", err)
	}
	quiet := a.logger(slog.LevelError) // what goes wrong here goes wrong by intent
	if c.broker, err = jsutil.StartEmbedded(jsutil.EmbeddedConfig{Dir: c.dir, Logger: quiet}); err != nil {
		return nil, err
	}
	a.NATS, a.Context, a.Creds = c.broker.URL(), "", ""
	c.group.add(a, "dispatcher", quiet, func(nc *nats.Conn, log *slog.Logger) (runner, error) {
		return dispatcher.New(nc, dispatcher.Config{Logger: log})
	})
	c.group.add(a, "statekeeper", quiet, func(nc *nats.Conn, log *slog.Logger) (runner, error) {
		return statekeeper.New(nc, statekeeper.Config{Version: buildVersion().semantic(), Logger: log})
	})
	for _, id := range []string{"alpha", "beta"} {
		if err := c.startWorker(id); err != nil {
			return nil, err
		}
	}
	if c.client, c.hangUp, err = a.dial(); err != nil {
		return nil, err
	}
	if c.js, err = a.jetStream(); err != nil {
		return nil, err
	}
	c.group.conns = append(c.group.conns, c.js.Conn())
	var serving context.Context
	serving, c.cancel = context.WithCancel(context.Background())
	c.running.Go(func() {
		c.failed = c.group.run(serving, func(context.Context) error { return nil })
	})
	return c, waitReady(ctx, c.client, len(builtinKeys()))
}

// startWorker starts this same program as a worker with all built-in agents.
func (c *demoCast) startWorker(id string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	args := []string{"worker", "--nats", c.broker.URL(), "--worker-id", id, "--concurrency", "4"}
	for _, key := range builtinKeys() {
		args = append(args, "--agent", key)
	}
	w := &demoWorker{cmd: exec.Command(self, args...), logs: new(bytes.Buffer)}
	w.cmd.Stdout, w.cmd.Stderr = w.logs, w.logs
	if err := w.cmd.Start(); err != nil {
		return fmt.Errorf("start worker %s: %w", id, err)
	}
	c.workers[id] = w
	return nil
}

// kill kills a worker as kill -9 does, and returns its process id.
func (c *demoCast) kill(id string) (pid int, err error) {
	w := c.workers[id]
	if w == nil {
		return 0, fmt.Errorf("worker %q is none of ours", id)
	}
	delete(c.workers, id)
	if err := w.cmd.Process.Kill(); err != nil {
		return 0, fmt.Errorf("kill worker %s: %w", id, err)
	}
	var exit *exec.ExitError
	if err := w.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return 0, fmt.Errorf("wait for worker %s: %w", id, err)
	}
	return w.cmd.Process.Pid, nil
}

// stop ends all that was started, the broker last, and removes its directory.
func (c *demoCast) stop() {
	for _, w := range c.workers {
		// One that has ended by itself needs no signal; its exit code says nothing here.
		_ = w.cmd.Process.Signal(syscall.SIGTERM)
		_ = w.cmd.Wait()
	}
	if c.cancel != nil {
		c.cancel()
		c.running.Wait()
	}
	if c.hangUp != nil {
		c.hangUp()
	}
	c.group.close()
	if c.broker != nil {
		c.broker.Shutdown()
	}
	if c.dir != "" {
		_ = os.RemoveAll(c.dir) // in the system's directory for such
	}
}
