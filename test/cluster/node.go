package cluster

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Node is a broker that is ended and started again at the same address, on the
// same files. Its methods may be called from several goroutines.
type Node struct {
	Name string
	// Addr is where it listens for clients, HOST:PORT.
	Addr string

	cfg    BrokerConfig
	logDir string
	mu     sync.Mutex // held while it is started or ended
	broker *Broker
}

// Routes are the links between brokers: Routes[i][j] is the one by which broker
// i reaches broker j. By the one to itself nothing goes.
type Routes [][]*Link

// Close closes all of them.
func (r Routes) Close() {
	for _, from := range r {
		for _, l := range from {
			l.Close()
		}
	}
}

// DataDir is where broker i of those under dir stores.
func DataDir(dir string, i int) string {
	return filepath.Join(dir, "data", fmt.Sprintf("broker-%d", i+1))
}

// NodesConfig is what is asked of NewNodes.
type NodesConfig struct {
	// Dir holds the brokers' files, below DataDir; LogDir their logs.
	Dir, LogDir string
	// N is how many: one alone, or a cluster.
	N int
	// Links has the routes between brokers be links.
	Links bool
}

// NewNodes starts brokers. They take connections when it returns; JetStream
// comes when most of them have found one another. Even with an error the caller
// has to kill the nodes and close the routes.
func NewNodes(cfg NodesConfig) (nodes []*Node, routes Routes, err error) {
	for i := range cfg.N {
		port, monitor, err := freePorts()
		if err != nil {
			return nodes, nil, err
		}
		name := fmt.Sprintf("broker-%d", i+1)
		nodes = append(nodes, &Node{
			Name: name, logDir: cfg.LogDir, Addr: "127.0.0.1:" + strconv.Itoa(port),
			cfg: BrokerConfig{Name: name, Dir: DataDir(cfg.Dir, i), Port: port, MonitorPort: monitor},
		})
	}
	if cfg.N > 1 {
		if routes, err = connectNodes(nodes, cfg.Links); err != nil {
			return nodes, routes, err
		}
	}
	for _, b := range nodes {
		if err := b.Start(); err != nil {
			return nodes, routes, err
		}
	}
	return nodes, routes, nil
}

func freePorts() (client, monitor int, err error) {
	if client, err = FreePort(); err == nil {
		monitor, err = FreePort()
	}
	return client, monitor, err
}

func connectNodes(nodes []*Node, links bool) (Routes, error) {
	for _, b := range nodes {
		port, err := FreePort()
		if err != nil {
			return nil, err
		}
		b.cfg.RoutePort = port
	}
	routes := make(Routes, len(nodes))
	for i, from := range nodes {
		for j, to := range nodes {
			addr := "127.0.0.1:" + strconv.Itoa(to.cfg.RoutePort)
			if links {
				l, err := NewLink(addr)
				if err != nil {
					return routes, err
				}
				routes[i] = append(routes[i], l)
				if i != j {
					addr = l.Addr()
				}
			}
			from.cfg.Routes = append(from.cfg.Routes, addr)
		}
	}
	return routes, nil
}

// URLs is how clients are told of several brokers.
func URLs(addrs []string) string { return "nats://" + strings.Join(addrs, ",nats://") }

// Monitor is the address of its monitoring port, an http URL.
func (b *Node) Monitor() string { return "http://127.0.0.1:" + strconv.Itoa(b.cfg.MonitorPort) }

// Start starts it unless it runs.
func (b *Node) Start() (err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broker != nil && b.broker.Running() {
		return nil
	}
	b.broker, err = StartBroker(b.cfg, b.logDir)
	return err
}

// Kill is kill -9; of one that is gone already it does nothing.
func (b *Node) Kill() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broker == nil {
		return nil
	}
	return b.broker.Kill()
}

// Terminate is an operator's stop; of one that is gone it does nothing.
func (b *Node) Terminate(patience time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broker == nil || !b.broker.Running() {
		return nil
	}
	return b.broker.Terminate(patience)
}

// Signal sends a signal to one that runs, and does nothing to one that does not.
func (b *Node) Signal(sig syscall.Signal) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broker == nil || !b.broker.Running() {
		return nil
	}
	return b.broker.Signal(sig)
}

// Running reports whether its process is there.
func (b *Node) Running() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.broker != nil && b.broker.Running()
}

// PID is the number of its process now.
func (b *Node) PID() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broker == nil {
		return 0
	}
	return b.broker.PID()
}
