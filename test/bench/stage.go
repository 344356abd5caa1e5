package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/internal/bench"
	"longhaul/pkg/jsutil"
	"longhaul/test/cluster"
)

const (
	// upTime bounds the start of everything, stopTime the stop of a process.
	upTime, stopTime = 60 * time.Second, 40 * time.Second
	// roundTime bounds one round of a measurement.
	roundTime = 30 * time.Minute
	// agentKey is what the runs of the bench are for.
	agentKey = "bench"
)

// stageConfig is on what is measured.
type stageConfig struct {
	name     string
	sync     bool // every write, before it is acknowledged
	replicas int  // as many brokers, too
	// fixedPort has the broker found where it was when it is started again.
	fixedPort bool
}

// stage is the system under measurement: processes, the brokers first, and two
// connections of the client's, one for submitting and one for watching.
type stage struct {
	stageConfig
	binary, dir, url string
	brokers          []*cluster.Broker
	configs          []cluster.BrokerConfig // of the brokers
	services         []service
	workers          []*workerProcess
	bare             map[string]*workerProcess // by role
	hosting          int                       // how many of the workers host the agent now
	nc, watching     *nats.Conn
	load, watch      *bench.Load // of nc, of watching
	floor            *bench.Floor
}

// service is a process of the longhaul binary, and where it tells of itself.
type service struct {
	*cluster.Process
	http string
}

// startStage starts everything but workers. Even with an error the caller has
// to call stop.
func startStage(ctx context.Context, binary string, cfg stageConfig) (s *stage, err error) {
	s = &stage{stageConfig: cfg, binary: binary, bare: map[string]*workerProcess{}}
	if s.dir, err = os.MkdirTemp("", "longhaul-bench-"); err != nil {
		return s, err
	}
	if err := s.startBrokers(); err != nil {
		return s, err
	}
	connect := func(name string) (nc *nats.Conn, err error) {
		return jsutil.Connect(jsutil.ConnectConfig{URL: s.url, Name: name})
	}
	if s.nc, err = connect("bench"); err != nil {
		return s, err
	}
	if s.watching, err = connect("bench-watching"); err != nil {
		return s, err
	}
	for _, name := range []string{"dispatcher", "statekeeper"} {
		if err := s.startService(name); err != nil {
			return s, err
		}
	}
	if s.load, err = bench.NewLoad(s.nc, agentKey); err != nil {
		return s, err
	}
	if s.watch, err = bench.NewLoad(s.watching, agentKey); err != nil {
		return s, err
	}
	if s.floor, err = bench.NewFloor(s.nc); err != nil {
		return s, err
	}
	return s, cluster.WaitFor(ctx, upTime, "statekeeper to answer", func() bool {
		_, err := s.load.Count(ctx)
		return err == nil
	})
}

// startBrokers starts one broker, or a cluster of three.
func (s *stage) startBrokers() error {
	configs := []cluster.BrokerConfig{{Dir: filepath.Join(s.dir, "broker"), SyncAlways: s.sync}}
	if s.replicas > 1 {
		var routes []string
		configs = nil
		for i := range s.replicas {
			port, err := cluster.FreePort()
			if err != nil {
				return err
			}
			name := "broker-" + strconv.Itoa(i+1)
			routes = append(routes, fmt.Sprintf("127.0.0.1:%d", port))
			configs = append(configs, cluster.BrokerConfig{Name: name, Dir: filepath.Join(s.dir, name), RoutePort: port, SyncAlways: s.sync})
		}
		for i := range configs {
			configs[i].Routes = routes
		}
	}
	if s.fixedPort {
		port, err := cluster.FreePort()
		if err != nil {
			return err
		}
		configs[0].Port = port
	}
	s.configs = configs
	var urls []string
	for _, cfg := range configs {
		b, err := cluster.StartBroker(cfg, s.dir)
		if err != nil {
			return err
		}
		s.brokers, urls = append(s.brokers, b), append(urls, b.URL)
	}
	s.url = strings.Join(urls, ",")
	return nil
}

func (s *stage) startService(name string) error {
	port, err := cluster.FreePort()
	if err != nil {
		return err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	p, err := cluster.StartProcess(exec.Command(s.binary, name, "--nats", s.url, "--replicas", strconv.Itoa(s.replicas), "--log-level", "warn", "--http", addr), name, s.dir)
	if err == nil {
		s.services = append(s.services, service{p, addr})
	}
	return err
}

// host has n worker processes host the agent, each with some slots, and the
// rest of them nothing.
func (s *stage) host(ctx context.Context, n, slots int) error {
	for ; s.hosting > 0; s.hosting-- {
		if _, err := s.workers[s.hosting-1].tell(ctx, order{Do: "stop"}); err != nil {
			return err
		}
	}
	for s.hosting < n {
		w, err := s.worker(ctx, s.hosting)
		if err != nil {
			return err
		}
		if _, err := w.tell(ctx, order{Do: "start", Concurrency: slots}); err != nil {
			return err
		}
		s.hosting++
	}
	return nil
}

// worker is the i-th worker process; it is started if it is the next.
func (s *stage) worker(ctx context.Context, i int) (*workerProcess, error) {
	if i < len(s.workers) {
		return s.workers[i], nil
	}
	w, err := startWorker(ctx, s.nc, workerConfig{URL: s.url, Name: fmt.Sprintf("worker-%d", i+1), Replicas: s.replicas}, s.dir)
	if err == nil {
		s.workers = append(s.workers, w)
	}
	return w, err
}

// registered waits until the agent is known and some runs have passed through.
func (s *stage) registered(ctx context.Context) error {
	if err := s.load.Hosted(ctx); err != nil {
		return s.logs(err)
	}
	_, err := s.runs(ctx, 200, bench.Job{}, smallJob)
	return err
}

// logs adds to err what the processes have said.
func (s *stage) logs(err error) error {
	files, _ := filepath.Glob(filepath.Join(s.dir, "*.log")) // the pattern is a good one
	for _, name := range files {
		if said, readErr := os.ReadFile(name); readErr == nil && len(said) > 0 {
			err = fmt.Errorf("%w\n%s said: %.2000s", err, filepath.Base(name), said)
		}
	}
	return err
}

// stop ends the processes, the brokers last, and removes what they stored.
func (s *stage) stop() error {
	for _, nc := range []*nats.Conn{s.nc, s.watching} {
		if nc != nil {
			nc.Close()
		}
	}
	var errs []error
	for _, w := range slices.Concat(s.workers, slices.Collect(maps.Values(s.bare))) {
		errs = append(errs, w.Terminate(stopTime))
	}
	for _, p := range s.services {
		errs = append(errs, p.Terminate(stopTime))
	}
	for _, b := range s.brokers {
		errs = append(errs, b.Terminate(stopTime))
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
