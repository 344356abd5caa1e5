package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"longhaul/test/cluster"
)

// node is a broker, which is killed and started again at the same address.
type node struct {
	name   string
	cfg    cluster.BrokerConfig
	logDir string
	addr   string // where it listens

	mu     sync.Mutex // held while it is started or ended
	broker *cluster.Broker
}

// newNodes starts n brokers: one alone, or a cluster whose routes are links.
// routes[i][j] is the one by which broker i reaches broker j. Even with an
// error the caller has to stop them.
func newNodes(dir string, n int) (nodes []*node, routes [][]*cluster.Link, err error) {
	for i := range n {
		port, err := cluster.FreePort()
		if err != nil {
			return nodes, nil, err
		}
		name := fmt.Sprintf("broker-%d", i+1)
		nodes = append(nodes, &node{
			name: name, logDir: filepath.Join(dir, "logs"), addr: "127.0.0.1:" + strconv.Itoa(port),
			cfg: cluster.BrokerConfig{Name: name, Dir: dataDir(dir, i), Port: port},
		})
	}
	if n > 1 {
		if routes, err = connectNodes(nodes); err != nil {
			return nodes, routes, err
		}
	}
	for _, b := range nodes {
		if err := b.start(); err != nil {
			return nodes, routes, err
		}
	}
	return nodes, routes, nil
}

func connectNodes(nodes []*node) ([][]*cluster.Link, error) {
	for _, b := range nodes {
		port, err := cluster.FreePort()
		if err != nil {
			return nil, err
		}
		b.cfg.RoutePort = port
	}
	routes := make([][]*cluster.Link, len(nodes))
	for i, from := range nodes {
		for j, to := range nodes {
			addr := "127.0.0.1:" + strconv.Itoa(to.cfg.RoutePort)
			l, err := cluster.NewLink(addr)
			if err != nil {
				return routes, err
			}
			routes[i] = append(routes[i], l)
			if i != j {
				addr = l.Addr()
			}
			from.cfg.Routes = append(from.cfg.Routes, addr)
		}
	}
	return routes, nil
}

// start starts it unless it runs.
func (b *node) start() (err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broker != nil && b.broker.Running() {
		return nil
	}
	b.broker, err = cluster.StartBroker(b.cfg, b.logDir)
	return err
}

// kill is kill -9; of one that is gone already it does nothing.
func (b *node) kill() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broker == nil {
		return nil
	}
	return b.broker.Kill()
}

// signal sends a signal to one that runs, and does nothing to one that does not.
func (b *node) signal(sig syscall.Signal) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broker == nil || !b.broker.Running() {
		return nil
	}
	return b.broker.Signal(sig)
}

// pid is the number of its process now.
func (b *node) pid() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broker == nil {
		return 0
	}
	return b.broker.PID()
}

// dataDir is where broker i stores.
func dataDir(dir string, i int) string {
	return filepath.Join(dir, "data", fmt.Sprintf("broker-%d", i+1))
}

func urls(addrs []string) string { return "nats://" + strings.Join(addrs, ",nats://") }
