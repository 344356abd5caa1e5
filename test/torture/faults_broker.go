package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/test/cluster"
	"longhaul/test/torture/history"
)

// brokerFaults harm the brokers' processes and what lies between them.
func brokerFaults() []fault {
	return []fault{
		{name: "kill-broker", lane: laneBrokers, weight: 4, do: killBroker},
		{name: "kill-broker-at-delivery", lane: laneBrokers, weight: 4, do: killBrokerAtDelivery},
		{name: "stop-broker", lane: laneBrokers, weight: 2, do: stopBroker},
		{name: "restart-broker", lane: laneBrokers, weight: 1, do: restartBroker},
		{name: diskFull, lane: laneBrokers, weight: 2, do: fillDisk},
		{name: "kill-leader", lane: laneBrokers, brokers: 3, weight: 4, do: killLeader},
		{name: "two-down", lane: laneBrokers, brokers: 3, weight: 2, do: twoDown},
		{name: "partition", lane: laneBrokers, brokers: 3, weight: 4, do: partition},
		{name: "partition-one-way", lane: laneBrokers, brokers: 3, weight: 2, do: partitionOneWay},
	}
}

// away is how long a broker is gone: mostly no longer than a process manager
// takes to start it again.
func (h *harm) away() time.Duration {
	if h.rng.IntN(4) == 0 {
		return h.between(2*time.Second, 8*time.Second)
	}
	return h.between(0, 1500*time.Millisecond)
}

func (h *harm) node() *cluster.Node { return h.s.nodes[h.rng.IntN(len(h.s.nodes))] }

func killBroker(ctx context.Context, h *harm) error { return h.kill(ctx, h.node()) }

// kill kills nodes at once and starts them again after a while.
func (h *harm) kill(ctx context.Context, nodes ...*cluster.Node) error {
	var errs []error
	for _, n := range nodes {
		defer h.begin(history.FaultBroker, n.Name, n.PID())()
		errs = append(errs, n.Kill())
	}
	_ = cluster.Sleep(ctx, h.away()) // over earlier if the torture is
	for _, n := range nodes {
		errs = append(errs, n.Start())
	}
	return errors.Join(errs...)
}

// killBrokerAtDelivery kills the broker when it has just handed out work, or
// is about to.
func killBrokerAtDelivery(ctx context.Context, h *harm) error {
	sv := h.one(kindWorker)
	i := h.rng.IntN(len(h.s.nodes))
	n := h.s.nodes[i]
	t := cluster.Trap{Way: cluster.Down, Pattern: []byte("MSG runs.work."), Before: h.rng.IntN(2) == 0}
	wait := h.between(0, 100*time.Millisecond)
	if h.rng.IntN(2) == 0 {
		wait = 0
	}
	var end func()
	sprung := h.trap(ctx, sv.links[i:i+1], t, 3*time.Second, func() {
		_ = cluster.Sleep(ctx, wait)
		end = h.begin(history.FaultBroker, n.Name, n.PID())
		_ = n.Kill() // it is gone in any case
	})
	if !sprung {
		return fmt.Errorf("nothing was delivered to %s through %s", sv.name, n.Name)
	}
	defer end()
	_ = cluster.Sleep(ctx, h.away())
	return n.Start()
}

// stopBroker is SIGSTOP and SIGCONT.
func stopBroker(ctx context.Context, h *harm) error {
	n := h.node()
	defer h.begin(history.FaultBroker, n.Name, n.PID())()
	if err := n.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	_ = cluster.Sleep(ctx, h.between(300*time.Millisecond, 7*time.Second))
	return wake(n)
}

// wake is SIGCONT, which does nothing to a process that runs.
func wake(n *cluster.Node) error { return n.Signal(syscall.SIGCONT) }

// stopTime is how long a broker has to stop in.
const stopTime = 20 * time.Second

// restartBroker is an operator's restart.
func restartBroker(_ context.Context, h *harm) error {
	n := h.node()
	defer h.begin(history.FaultBroker, n.Name, n.PID())()
	return errors.Join(n.Terminate(stopTime), n.Start())
}

// killLeader kills the broker that leads a stream.
func killLeader(ctx context.Context, h *harm) error {
	streams := []string{contracts.StreamLog, contracts.StreamWork, contracts.StreamInbox, contracts.StreamRuns}
	stream := streams[h.rng.IntN(len(streams))]
	i, err := h.s.leader(ctx, stream)
	if err != nil {
		return err
	}
	return h.kill(ctx, h.s.nodes[i])
}

// leader is the number of the broker that leads a stream.
func (s *system) leader(ctx context.Context, stream string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	st, err := s.js.Stream(ctx, stream)
	if err != nil {
		return 0, fmt.Errorf("ask for the leader of %s: %w", stream, err)
	}
	if c := st.CachedInfo().Cluster; c != nil {
		for i, n := range s.nodes {
			if n.Name == c.Leader {
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("%s has no leader", stream)
}

// twoDown takes the majority away.
func twoDown(ctx context.Context, h *harm) error {
	stay := h.rng.IntN(len(h.s.nodes))
	var down []*cluster.Node
	for i, n := range h.s.nodes {
		if i != stay {
			down = append(down, n)
		}
	}
	return h.kill(ctx, down...)
}

// partition parts one broker from the others; clients reach it all the same.
func partition(ctx context.Context, h *harm) error {
	return h.part(ctx, func(l *cluster.Link, _ cluster.Direction) { l.Hold(cluster.Up, cluster.Down) })
}

// partitionOneWay: what one broker says does not arrive, or nothing arrives
// that is said to it.
func partitionOneWay(ctx context.Context, h *harm) error {
	mute := h.rng.IntN(2) == 0
	return h.part(ctx, func(l *cluster.Link, outward cluster.Direction) {
		if mute {
			l.Hold(outward)
		} else {
			l.Hold(cluster.Up + cluster.Down - outward)
		}
	})
}

// part does something to all routes of one broker. outward is the way by which
// it speaks.
func (h *harm) part(ctx context.Context, do func(l *cluster.Link, outward cluster.Direction)) error {
	i := h.rng.IntN(len(h.s.nodes))
	defer h.begin(history.FaultBroker, h.s.nodes[i].Name, h.s.nodes[i].PID())()
	var parted []*cluster.Link
	for j := range h.s.nodes {
		if j != i {
			do(h.s.routes[i][j], cluster.Up)
			do(h.s.routes[j][i], cluster.Down)
			parted = append(parted, h.s.routes[i][j], h.s.routes[j][i])
		}
	}
	_ = cluster.Sleep(ctx, h.between(500*time.Millisecond, 10*time.Second))
	for _, l := range parted {
		l.Heal()
	}
	return nil
}
