package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/metrics"
	"longhaul/pkg/runlog"
)

// Worker executes runs of its agents. Any number of workers share the work.
type Worker struct {
	cfg    Config
	nc     *nats.Conn
	js     jetstream.JetStream
	runs   *runlog.Log
	agents map[string]agent.Agent
	log    *slog.Logger
	held   held
	counts *metrics.Worker

	connected atomic.Value // the time since when
}

// New makes a worker on nc, which stays the caller's to close. It reports every
// fault of cfg together, and does not speak to the broker yet.
func New(nc *nats.Conn, cfg Config) (*Worker, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	js, err := jsutil.JetStream(nc)
	if err != nil {
		return nil, err
	}
	w := &Worker{
		cfg: cfg, nc: nc, js: js, runs: runlog.New(js), agents: map[string]agent.Agent{},
		log: cfg.Logger.With("worker_id", cfg.WorkerID), held: held{byRun: map[string]*attempt{}, starting: map[string]*starting{}},
	}
	w.connected.Store(time.Now())
	for _, a := range cfg.Agents {
		w.agents[a.Key] = a
	}
	w.counts, err = metrics.NewWorker(cfg.Metrics, metrics.WorkerSource{Slots: cfg.Concurrency, AgentKeys: w.agentKeys(), Executing: func() int { return len(w.attempts()) }, Silence: w.silence})
	return w, err
}

// ID is the worker's id.
func (w *Worker) ID() string { return w.cfg.WorkerID }

// Run takes work and executes it until ctx ends, then drains: it takes nothing
// more, lets what runs go on for DrainTimeout, ends the rest with cause
// ErrShutdown (requeued, not charged), and returns nil when all has ended. A
// broker that is not there yet, or goes and comes back, is waited for. Run and
// RunOnce are to be called once, one at a time.
func (w *Worker) Run(ctx context.Context) error {
	stop, err := w.open(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	defer stop()
	in, err := w.openIntake()
	if err != nil {
		return err
	}
	changes := w.nc.StatusChanged(nats.CONNECTED)
	var watching sync.WaitGroup
	watching.Go(func() {
		for range changes {
			w.connected.Store(time.Now())
			signal(in.wake)
		}
	})
	w.log.Info("worker takes work", "agents", w.agentKeys(), "concurrency", w.cfg.Concurrency)
	err = in.run(ctx, w.endRuns)
	w.nc.RemoveStatusListener(changes)
	watching.Wait()
	w.log.Info("worker has drained")
	return err
}

// RunOnce claims one run that waits and executes it. It reports false if none
// waited. A drain is that of Run.
func (w *Worker) RunOnce(ctx context.Context) (bool, error) {
	stop, err := w.open(ctx)
	if err != nil {
		return false, err
	}
	defer stop()
	for _, s := range w.sourcesOf() {
		d, err := w.fetchOne(ctx, s)
		if err != nil {
			return false, err
		}
		if d != nil {
			defer context.AfterFunc(ctx, w.endRuns)()
			over := make(chan struct{})
			go w.take(d, func() { close(over) })
			<-over
			return true, nil
		}
	}
	return false, nil
}

// fetchOne takes a message that waits, if there is one.
func (w *Worker) fetchOne(ctx context.Context, s *source) (*jsutil.Delivery, error) {
	name := contracts.WorkConsumer(s.agentKey, s.priority)
	consumer, err := w.js.Consumer(ctx, contracts.StreamWork, name)
	if err != nil {
		return nil, fmt.Errorf("open consumer %s: %w", name, jsutil.Translate(err))
	}
	since := time.Now()
	batch, err := consumer.FetchNoWait(1)
	if err != nil {
		return nil, fmt.Errorf("fetch from consumer %s: %w", name, jsutil.Translate(err))
	}
	m := <-batch.Messages()
	if m == nil {
		if err := batch.Error(); err != nil {
			return nil, fmt.Errorf("fetch from consumer %s: %w", name, jsutil.Translate(err))
		}
		return nil, nil
	}
	d, err := jsutil.DeliveryOf(w.nc, m)
	if err == nil {
		d.Since = since
	}
	return d, err
}

// open gets everything ready but the intake: topology, registration, answers
// to questions, heartbeats. stop ends it in the reverse order.
func (w *Worker) open(ctx context.Context) (stop func(), err error) {
	if err := jsutil.WaitConnected(ctx, w.nc); err != nil {
		return nil, err
	}
	w.connected.Store(time.Now())
	if err := jsutil.WaitTopology(ctx, w.js, jsutil.NewTopology(w.cfg.Topology), w.log); err != nil {
		return nil, err
	}
	for err := w.register(ctx); err != nil; err = w.register(ctx) {
		if !errors.Is(err, jsutil.ErrUnavailable) || ctx.Err() != nil {
			return nil, err
		}
		w.log.Warn("agents could not be registered yet", "error", err)
		jsutil.Sleep(ctx, pauseUnavailable)
	}
	unlisten, err := w.listen()
	if err != nil {
		return nil, err
	}
	beats, stopBeats := context.WithCancel(context.Background())
	var beating sync.WaitGroup
	beating.Go(func() { w.keepLeases(beats) })
	return func() {
		stopBeats()
		beating.Wait()
		unlisten()
	}, nil
}

// endRuns waits until the attempts have ended, for DrainTimeout, then ends
// those that have not.
func (w *Worker) endRuns() {
	if n := len(w.attempts()); n > 0 {
		w.log.Info("worker drains", "runs", n, "drain_timeout", w.cfg.DrainTimeout)
	}
	over := time.Now().Add(w.cfg.DrainTimeout)
	for len(w.attempts()) > 0 && time.Now().Before(over) {
		time.Sleep(min(20*time.Millisecond, time.Until(over)))
	}
	w.held.mu.Lock()
	w.held.closing = true
	w.held.mu.Unlock()
	for _, a := range w.attempts() {
		a.stop(agent.ErrShutdown)
	}
}

func (w *Worker) agentKeys() []string {
	keys := make([]string, 0, len(w.cfg.Agents))
	for _, a := range w.cfg.Agents {
		keys = append(keys, a.Key)
	}
	return keys
}
