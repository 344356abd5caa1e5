package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/metrics"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/internal/bench"
	"longhaul/internal/shell"
	"longhaul/pkg/agent"
	"longhaul/pkg/jsutil"
	"longhaul/services/worker"
	"longhaul/test/cluster"
)

// beWorker is the first argument of a process that is to be a worker.
const beWorker = "-be-worker"

// answerTime bounds an order that is quick; one that works is bounded by roundTime.
const answerTime = 30 * time.Second

// workerConfig is a worker process's.
type workerConfig struct {
	URL      string `json:"url"`
	Name     string `json:"name"`
	Replicas int    `json:"replicas"`
}

// order is what a worker process is told to do, over NATS.
type order struct {
	Do          string `json:"do"` // start, stop, release (once for each start), execute, consume, bare, stats or began
	Role        string `json:"role,omitempty"`
	Concurrency int    `json:"concurrency,omitempty"`
	N           int    `json:"n,omitempty"`
	Payload     int    `json:"payload,omitempty"`
	InTurn      bool   `json:"in_turn,omitempty"`
	Shared      bool   `json:"shared,omitempty"`
}

// answer is what it says when it is done.
type answer struct {
	Error      string  `json:"error,omitempty"`
	Mallocs    float64 `json:"mallocs,omitempty"`    // heap objects allocated since its start
	Heap       float64 `json:"heap,omitempty"`       // bytes of live and dead objects
	Goroutines float64 `json:"goroutines,omitempty"` // how many there are
	Began      []byte  `json:"began,omitempty"`      // from submit to the begin of the job's code, since it was asked last; of bench.Latencies
}

// workerProcess is one from the outside.
type workerProcess struct {
	*cluster.Process
	nc      *nats.Conn // of the stage
	subject string
	kind    string // as what its costs are counted
}

func orders(name string) string { return "longhaul.bench.orders." + name }

// startWorker starts a worker process, this program once more, which hosts
// nothing until it is told to.
func startWorker(ctx context.Context, nc *nats.Conn, cfg workerConfig, dir string) (*workerProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
	arg, err := json.Marshal(cfg)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", cfg.Name, err)
	}
	p, err := cluster.StartProcess(exec.Command(self, beWorker, string(arg)), cfg.Name, dir)
	if err != nil {
		return nil, err
	}
	w := &workerProcess{Process: p, nc: nc, subject: orders(cfg.Name), kind: "worker"}
	return w, cluster.WaitFor(ctx, answerTime, cfg.Name+" to answer", func() bool {
		_, err := w.tell(ctx, order{Do: "stats"})
		return err == nil
	})
}

// tell gives an order and waits until it is carried out.
func (w *workerProcess) tell(ctx context.Context, o order) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, roundTime)
	defer cancel()
	var a answer
	data, err := json.Marshal(o)
	if err != nil {
		return a, fmt.Errorf("tell %s to %s: %w", w.Name, o.Do, err)
	}
	m, err := w.nc.RequestWithContext(ctx, w.subject, data)
	if err == nil {
		err = json.Unmarshal(m.Data, &a)
	}
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	if err != nil {
		return a, fmt.Errorf("tell %s to %s: %w", w.Name, o.Do, err)
	}
	return a, nil
}

// serveWorker makes this process a worker if startWorker has started it as
// one, and returns true when it has been told to stop.
func serveWorker() (bool, error) {
	if len(os.Args) != 3 || os.Args[1] != beWorker {
		return false, nil
	}
	defer runtime.KeepAlive(shell.Ballast()) // as `longhaul worker` does
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var cfg workerConfig
	if err := json.Unmarshal([]byte(os.Args[2]), &cfg); err != nil {
		return true, fmt.Errorf("be a worker: %w", err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	// One connection, as `longhaul worker` has; that of the floor's part is another,
	// so that neither carries the other's subscriptions.
	h := &host{cfg: cfg, log: log, began: bench.NewLatencies()}
	var err error
	if h.nc, err = jsutil.Connect(jsutil.ConnectConfig{URL: cfg.URL, Name: cfg.Name, Logger: log}); err != nil {
		return true, err
	}
	defer h.nc.Close()
	control, err := jsutil.Connect(jsutil.ConnectConfig{URL: cfg.URL, Name: cfg.Name + "-floor", Logger: log})
	if err != nil {
		return true, err
	}
	defer control.Close()
	if h.floor, err = bench.NewFloor(control); err != nil {
		return true, err
	}
	h.floor.Began = h.began.Record
	asked, err := control.SubscribeSync(orders(cfg.Name))
	if err != nil {
		return true, err
	}
	for {
		m, err := asked.NextMsgWithContext(ctx)
		if err != nil {
			return true, h.stop()
		}
		var o order
		a := answer{}
		if err = json.Unmarshal(m.Data, &o); err == nil {
			a, err = h.obey(ctx, o)
		}
		if err != nil {
			a.Error = err.Error()
		}
		data, err := json.Marshal(a)
		if err != nil {
			return true, err
		}
		if err := m.Respond(data); err != nil {
			return true, err
		}
	}
}

// host is a worker process from the inside. One goroutine uses it.
type host struct {
	cfg   workerConfig
	log   *slog.Logger
	nc    *nats.Conn
	floor *bench.Floor
	began *bench.Latencies

	release chan struct{}      // of the jobs that wait
	cancel  context.CancelFunc // of the Longhaul worker, or the role, that runs; nil without one
	ended   chan error
}

func (h *host) obey(ctx context.Context, o order) (answer, error) {
	switch o.Do {
	case "start":
		return answer{}, h.start(ctx, o.Concurrency)
	case "stop":
		return answer{}, h.stop()
	case "release":
		close(h.release)
		return answer{}, nil
	case "execute":
		h.floor.PayloadBytes, h.floor.InTurn = o.Payload, o.InTurn
		return answer{}, h.floor.Execute(ctx, o.N, o.Concurrency)
	case "consume":
		return answer{}, h.floor.Consume(ctx, o.N)
	case "bare":
		return answer{}, h.run(ctx, func(ctx context.Context) error { return bareServe(ctx, h.nc, o.Role, o, h.began.Record) })
	case "stats":
		return h.stats(), nil
	case "began":
		taken, err := h.began.Take()
		return answer{Began: taken}, err
	}
	return answer{}, fmt.Errorf("there is no order %q", o.Do)
}

// start begins to host the agent.
func (h *host) start(ctx context.Context, concurrency int) error {
	h.release = make(chan struct{})
	w, err := worker.New(h.nc, worker.Config{Agents: []agent.Agent{bench.Agent(agentKey, h.began.Record, h.release)}, Concurrency: concurrency,
		Topology: jsutil.TopologyOptions{Replicas: h.cfg.Replicas}, Logger: h.log})
	if err != nil {
		return err
	}
	return h.run(ctx, w.Run)
}

// run does something until it is stopped.
func (h *host) run(ctx context.Context, do func(context.Context) error) error {
	if h.cancel != nil {
		return errors.New("it does something already")
	}
	ctx, h.cancel = context.WithCancel(ctx)
	h.ended = make(chan error, 1)
	go func() { h.ended <- do(ctx) }() // stop waits for it
	return nil
}

// stop ends it, if it is there.
func (h *host) stop() error {
	if h.cancel == nil {
		return nil
	}
	h.cancel()
	h.cancel = nil
	return <-h.ended
}

func (h *host) stats() answer {
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/sched/goroutines:goroutines"}}
	metrics.Read(samples)
	return answer{Mallocs: float64(samples[0].Value.Uint64()), Heap: float64(samples[1].Value.Uint64()), Goroutines: float64(samples[2].Value.Uint64())}
}
