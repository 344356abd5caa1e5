package shell

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"longhaul/pkg/jsutil"
	"longhaul/pkg/metrics"
)

// Ports are the flags that say where a service shows itself to those who operate it.
type Ports struct {
	HTTP  string `name:"http" placeholder:"HOST:PORT" help:"Serve /metrics, /healthz and /readyz here, to anybody who asks (default: nowhere)."`
	Pprof string `placeholder:"HOST:PORT" help:"Serve /debug/pprof/ here, an address of this machine's loopback (default: on --http, if that is one)."`
}

const (
	// httpHeader bounds the reading of a request, httpWrite its answer: a CPU
	// profile takes the time that it is asked for.
	httpHeader, httpWrite, httpIdle = 5 * time.Second, 2 * time.Minute, time.Minute
	// httpMaxHeader is in bytes.
	httpMaxHeader = 16 << 10
	// httpShutdown bounds the answers under way when the process ends.
	httpShutdown = 2 * time.Second
	// scrapeWait bounds one answer of /metrics, scrapes how many are made at once.
	scrapeWait, scrapes = 10 * time.Second, 4
)

// Monitor serves a process's metrics and health. A nil one serves nothing, and
// everything may be asked of it. It is a prometheus.Registerer.
type Monitor struct {
	*prometheus.Registry
	health  health
	log     *slog.Logger
	address string // of --http, "" if there is none
	servers []*http.Server
	serving sync.WaitGroup
}

// Open listens where f says; the Monitor is nil if that is nowhere. It answers
// from now on: a service that waits for its broker is alive. version is that of
// the program. A port that cannot be meant is an error of usage.
func (f Ports) Open(version string, log *slog.Logger) (*Monitor, error) {
	if f.HTTP == "" && f.Pprof == "" {
		return nil, nil //nolint:nilnil // which is a monitor too, that of a process that shows nothing
	}
	if f.Pprof != "" && !loopback(f.Pprof) {
		return nil, usage("--pprof: must be a loopback address such as 127.0.0.1:6060, not %q: a profile shows what is in memory", f.Pprof)
	}
	m := &Monitor{Registry: prometheus.NewRegistry(), log: log}
	m.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo(version))
	operate, profile := http.NewServeMux(), http.NewServeMux()
	if f.Pprof == "" && loopback(f.HTTP) {
		profile = operate
	}
	profile.HandleFunc("GET /debug/pprof/", pprof.Index)
	profile.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	profile.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	profile.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	profile.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	operate.Handle("GET /metrics", promhttp.HandlerFor(m.Registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError, Registry: m.Registry,
		MaxRequestsInFlight: scrapes, Timeout: scrapeWait,
	}))
	operate.HandleFunc("GET /healthz", m.health.alive)
	operate.HandleFunc("GET /readyz", m.health.ready)
	m.health.gatherer = m.Registry
	var err error
	m.address, err = m.listen("http", f.HTTP, operate)
	if err == nil && profile != operate {
		_, err = m.listen("pprof", f.Pprof, profile)
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// buildInfo is a metric whose labels say what runs here.
func buildInfo(version string) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: metrics.Namespace, Name: "build_info", Help: "What runs here; always 1.",
		ConstLabels: prometheus.Labels{"version": version, "go": runtime.Version()}}, func() float64 { return 1 })
}

// loopback reports whether only this machine reaches the address.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// listen serves h on an address, if there is one, and returns it with the port that it has got.
func (m *Monitor) listen(name, address string, h http.Handler) (string, error) {
	if address == "" {
		return "", nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return "", fmt.Errorf("--%s: %w; give another address, or HOST:0 for any free port", name, err)
	}
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: httpHeader, ReadTimeout: httpHeader, WriteTimeout: httpWrite, IdleTimeout: httpIdle,
		MaxHeaderBytes: httpMaxHeader, ErrorLog: slog.NewLogLogger(m.log.Handler(), slog.LevelWarn),
	}
	m.servers = append(m.servers, s)
	address = listener.Addr().String()
	m.log.Info("serving http", "purpose", name, "address", address)
	m.serving.Go(func() {
		if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			m.log.Error("http is not served any more", "purpose", name, "error", err)
		}
	})
	return address, nil
}

// Address is where /metrics is served; "" if nowhere.
func (m *Monitor) Address() string {
	if m == nil {
		return ""
	}
	return m.address
}

// Close stops serving, and returns when nothing is served any more.
func (m *Monitor) Close() {
	if m == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), httpShutdown)
	defer cancel()
	for _, s := range m.servers {
		if err := s.Shutdown(ctx); err != nil {
			_ = s.Close() // what is still being answered was given its time
		}
	}
	m.serving.Wait()
}

// Registerer is where a service registers its metrics: nowhere if m is nil.
func (m *Monitor) Registerer() prometheus.Registerer {
	if m == nil {
		return nil
	}
	return m
}

// Register implements prometheus.Registerer. The sets of services are what
// health is judged by, too.
func (m *Monitor) Register(c prometheus.Collector) error {
	if err := m.Registry.Register(c); err != nil {
		return err
	}
	if set, ok := c.(*metrics.Set); ok {
		m.health.mu.Lock()
		defer m.health.mu.Unlock()
		m.health.sets = append(m.health.sets, set)
	}
	return nil
}

// Watch has the monitor show a service's connection, and hold its topology
// against what stands on the broker.
func (m *Monitor) Watch(service string, nc *nats.Conn, topology jsutil.TopologyOptions) error {
	if m == nil {
		return nil
	}
	js, err := jsutil.JetStream(nc)
	if err != nil {
		return err
	}
	m.health.mu.Lock()
	m.health.links = append(m.health.links, link{service, js, jsutil.NewTopology(topology)})
	m.health.mu.Unlock()
	return metrics.RegisterConn(prometheus.WrapRegistererWith(prometheus.Labels{"service": service}, m.Registry), nc)
}
