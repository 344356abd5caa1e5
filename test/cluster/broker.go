package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"longhaul/pkg/jsutil"
)

// BrokerConfig is one broker's.
type BrokerConfig struct {
	// Dir holds its streams.
	Dir string `json:"dir"`
	// Port is where it listens on the loopback address; 0 is any free one.
	Port int `json:"port,omitempty"`
	// MonitorPort is where it shows itself over HTTP; 0 is nowhere.
	MonitorPort int `json:"monitor_port,omitempty"`
	// SyncAlways has every write synced to the disk before it is acknowledged,
	// as deploy/nats.conf does.
	SyncAlways bool `json:"sync_always,omitempty"`

	// Name, RoutePort and Routes make it one of several: its name, where the
	// others reach it, and the addresses by which it reaches all of them, itself
	// among them (the server counts them to know how many they are).
	Name      string   `json:"name,omitempty"`
	RoutePort int      `json:"route_port,omitempty"`
	Routes    []string `json:"routes,omitempty"`
}

// Broker is a broker in a process of its own.
type Broker struct {
	*Process
	// URL is where clients connect to.
	URL string
}

// beBroker is the first argument of a process that is to be a broker.
const beBroker = "-be-broker"

// upTime bounds the start of a broker.
const upTime = 30 * time.Second

// ServeBroker makes this process a broker if StartBroker has started it as one,
// and returns true when it has been told to stop. Programs call it first thing.
func ServeBroker() (bool, error) {
	if len(os.Args) != 3 || os.Args[1] != beBroker {
		return false, nil
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	lame := make(chan os.Signal, 1)
	signal.Notify(lame, syscall.SIGUSR2)
	defer signal.Stop(lame)
	var cfg BrokerConfig
	if err := json.Unmarshal([]byte(os.Args[2]), &cfg); err != nil {
		return true, fmt.Errorf("be a broker: %w", err)
	}
	if len(cfg.Routes) > 0 || cfg.SyncAlways {
		return true, serveNode(ctx, lame, cfg)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	e, err := jsutil.StartEmbedded(jsutil.EmbeddedConfig{Dir: cfg.Dir, Port: cfg.Port, Logger: log})
	if err != nil {
		return true, err
	}
	defer e.Shutdown()
	fmt.Println(e.URL())
	<-ctx.Done()
	return true, nil
}

// serveNode is one broker of several, or one that syncs. It is up when it takes
// connections; JetStream comes when enough of the others are there. On lame it
// goes into lame duck mode, as nats-server does on SIGUSR2, and then ends.
func serveNode(ctx context.Context, lame <-chan os.Signal, cfg BrokerConfig) error {
	opts := &server.Options{
		ServerName: cfg.Name, Host: "127.0.0.1", Port: cfg.Port, JetStream: true, StoreDir: cfg.Dir,
		NoSigs: true, DisableJetStreamBanner: true, SyncAlways: cfg.SyncAlways,
	}
	if opts.Port == 0 {
		opts.Port = server.RANDOM_PORT
	}
	if cfg.MonitorPort != 0 {
		opts.HTTPHost, opts.HTTPPort = "127.0.0.1", cfg.MonitorPort
	}
	if len(cfg.Routes) > 0 {
		opts.Cluster.Name, opts.Cluster.Host, opts.Cluster.Port = "longhaul", "127.0.0.1", cfg.RoutePort
		// Whoever connects is to stay on its own links: no address is told to
		// clients, and one where nobody listens to the other brokers.
		opts.Cluster.NoAdvertise, opts.Cluster.Advertise = true, "127.0.0.1:1"
	}
	for _, r := range cfg.Routes {
		opts.Routes = append(opts.Routes, &url.URL{Scheme: "nats-route", Host: r})
	}
	s, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("make broker %s: %w", cfg.Name, err)
	}
	s.ConfigureLogger() // on stderr
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(upTime) {
		return fmt.Errorf("broker %s was not ready within %s", cfg.Name, upTime)
	}
	fmt.Println(s.ClientURL())
	select {
	case <-ctx.Done():
	case <-lame:
		s.LameDuckShutdown()
	}
	return nil
}

// StartBroker starts a broker process, this program once more, with its log in
// logDir, and returns when it takes connections. The program has to call
// ServeBroker.
func StartBroker(cfg BrokerConfig, logDir string) (*Broker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start a broker: %w", err)
	}
	config, err := json.Marshal(cfg)
	if err != nil {
		return nil, fmt.Errorf("start a broker: %w", err)
	}
	// A pipe of our own: the command's would be closed when the process is waited for.
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start a broker: %w", err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(self, beBroker, string(config))
	cmd.Stdout = in
	name := "broker"
	if cfg.Name != "" {
		name = cfg.Name
	}
	p, err := StartProcess(cmd, name, logDir)
	_ = in.Close() // the process has its own handle of it
	if err != nil {
		return nil, err
	}
	if err := out.SetReadDeadline(time.Now().Add(upTime)); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), p.Kill())
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("it ended, see %s", p.Log)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), p.Kill())
	}
	return &Broker{Process: p, URL: strings.TrimSpace(line)}, nil
}

// FreePort returns a port of the loopback address where nobody listens, out of
// a range from which systems give no ports to whoever connects: it is free
// still when what listened there was killed and is started again.
func FreePort() (int, error) {
	const from, to, tries = 20_000, 30_000, 100
	var err error
	for range tries {
		port := from + rand.IntN(to-from)
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}
