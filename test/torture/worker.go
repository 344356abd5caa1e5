package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/agent"
	"longhaul/pkg/jsutil"
	"longhaul/services/worker"
	"longhaul/test/torture/history"
)

// beWorker is the first argument of a process that is to be a worker: this
// program once more, as a user's program would be one.
const beWorker = "-be-worker"

// workerFlags are the command line of such a process.
type workerFlags struct {
	id, nats, history string
	replicas, slots   int
	lease             time.Duration
	drain             time.Duration
	retryMax          time.Duration
	// skew is how far the wall clock of this process is ahead, by its build; it
	// is taken off what goes into the history.
	skew time.Duration
}

// args is the command line that parse reads.
func (f workerFlags) args() []string {
	return []string{
		beWorker, "-id", f.id, "-nats", f.nats, "-history", f.history,
		"-replicas", fmt.Sprint(f.replicas), "-slots", fmt.Sprint(f.slots), "-lease", f.lease.String(),
		"-drain", f.drain.String(), "-retry-max", f.retryMax.String(), "-skew", f.skew.String(),
	}
}

func parseWorker(args []string) (f workerFlags, err error) {
	set := flag.NewFlagSet("torture "+beWorker, flag.ContinueOnError)
	set.StringVar(&f.id, "id", "", "the worker's id")
	set.StringVar(&f.nats, "nats", "", "the broker's addresses")
	set.StringVar(&f.history, "history", "", "the file that takes what agents do")
	set.IntVar(&f.replicas, "replicas", 1, "of streams that are missing")
	set.IntVar(&f.slots, "slots", 8, "runs at once")
	set.DurationVar(&f.lease, "lease", 5*time.Second, "the lease")
	set.DurationVar(&f.drain, "drain", 3*time.Second, "time to drain")
	set.DurationVar(&f.retryMax, "retry-max", 3*time.Second, "longest backoff")
	set.DurationVar(&f.skew, "skew", 0, "how far this process's wall clock is ahead")
	return f, set.Parse(args)
}

// serveWorker hosts the agents until it is told to stop; a second signal ends
// it at once.
func serveWorker(args []string) error {
	f, err := parseWorker(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	log := stderrLogger()
	// The file's name is that of this life of the worker; so is the actor's.
	out, err := history.Open(f.history, f.id)
	if err != nil {
		return err
	}
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: f.nats, Name: f.id, Retry: true, Logger: log})
	if err != nil {
		return errors.Join(err, out.Close())
	}
	defer nc.Close()
	t := &troupe{out: out, worker: f.id, actor: fmt.Sprintf("%s/%d", f.id, os.Getpid()), skew: f.skew, log: log}
	w, err := worker.New(nc, worker.Config{
		WorkerID: f.id, Agents: t.agents(), Concurrency: f.slots, Lease: f.lease, HeartbeatEventInterval: f.lease / 2,
		RetryBackoffBase: 1.5, RetryBackoffMax: f.retryMax, DrainTimeout: f.drain, CancelGrace: 2 * time.Second,
		RunTimeout: time.Minute, HistoryLimit: historyLimit, Topology: jsutil.TopologyOptions{Replicas: f.replicas, Storage: jetstream.FileStorage}, Logger: log,
	})
	if err != nil {
		return errors.Join(err, out.Close())
	}
	err = w.Run(ctx)
	if nc.IsConnected() {
		_ = nc.FlushTimeout(2 * time.Second) // nobody is left to be told
	}
	return errors.Join(err, out.Close())
}

// troupe is the agents of a worker process, and the history that they write.
type troupe struct {
	out    *history.Writer
	worker string
	actor  string
	skew   time.Duration
	log    *slog.Logger
}

// The agents. What a run does is told by its params; the keys are queues.
const (
	agentSteady = "steady"
	agentStream = "stream"
	agentRough  = "rough"
)

func agentKeys() []string { return []string{agentSteady, agentStream, agentRough} }

func (t *troupe) agents() []agent.Agent {
	var all []agent.Agent
	for _, key := range agentKeys() {
		all = append(all, agent.Agent{Key: key, Description: "takes its steps, as told", Run: t.perform})
	}
	return all
}

// write writes an entry, by the true clock. What cannot be written ends the
// process: an effect without its entry would be a lie of the history's.
func (t *troupe) write(e history.Entry) {
	e.Time, e.Actor = time.Now().Add(-t.skew), t.actor
	if err := t.out.Write(e); err != nil {
		t.log.Error("history cannot be written", "error", err)
		os.Exit(2)
	}
}
