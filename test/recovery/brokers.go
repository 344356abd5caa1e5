package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"longhaul/test/cluster"
)

// awayTime is how long a process that was killed is gone: what a process
// manager takes to start it again.
const awayTime = 2 * time.Second

// calm is how long it is looked on while nothing is disturbed.
const calm = 10 * time.Second

// workers and slots are those of the parts under load.
const workers, slots = 3, 100

// underLoad has a mix of runs executed while windows are made by do, and judges
// all of it.
func (s *stage) underLoad(ctx context.Context, o options, res *result, do func(context.Context) ([]window, error)) error {
	for i := range workers {
		if _, err := s.startPerformer(ctx, fmt.Sprintf("worker-%d", i+1), slots); err != nil {
			return err
		}
	}
	if err := s.awaitCurrent(ctx); err != nil {
		return err
	}
	m, err := s.newMix(ctx, o.rate)
	defer m.close()
	if err != nil {
		return err
	}
	loading, enough := context.WithCancel(ctx)
	var load sync.WaitGroup
	load.Go(func() { m.run(ctx, loading) })
	windows, err := do(ctx)
	enough()
	load.Wait()
	if err != nil {
		return err // the process ends, and what is under way with it
	}
	m.under.Wait()
	return m.judge(ctx, windows, res)
}

// killBrokers kills each broker in turn: one that leads nothing, the one that
// leads all of our streams and consumers, and the leader of the cluster, each
// while it is nothing else.
func killBrokers(ctx context.Context, s *stage, o options, res *result) error {
	kinds := []struct {
		name string
		// of chooses whom to kill: the cluster's leader, who leads the rest, who leads nothing.
		of func(meta, rest, idle *cluster.Node) *cluster.Node
	}{
		{"(nothing)", nil},
		{"broker that leads nothing", func(_, _, idle *cluster.Node) *cluster.Node { return idle }},
		{"leader of all streams and consumers", func(_, rest, _ *cluster.Node) *cluster.Node { return rest }},
		{"leader of the cluster", func(meta, _, _ *cluster.Node) *cluster.Node { return meta }},
	}
	if o.short {
		kinds = kinds[2:3]
	}
	return s.underLoad(ctx, o, res, func(ctx context.Context) (all []window, err error) {
		for _, k := range kinds {
			// The cluster's own leader cannot be chosen; the rest is.
			meta, err := s.metaLeader(ctx)
			if err != nil {
				return nil, err
			}
			others := slices.DeleteFunc(slices.Clone(s.nodes), func(n *cluster.Node) bool { return n == meta })
			if err := s.lead(ctx, others[0]); err != nil {
				return nil, err
			}
			w, err := s.disturb(ctx, k.name, func(ctx context.Context) error {
				if k.of == nil {
					return cluster.Sleep(ctx, calm)
				}
				return s.away(ctx, k.of(meta, others[0], others[1]))
			})
			if err != nil {
				return nil, err
			}
			all = append(all, w)
		}
		return all, nil
	})
}

// away kills a broker and starts it again after a while.
func (s *stage) away(ctx context.Context, n *cluster.Node) error {
	return errors.Join(n.Kill(), cluster.Sleep(ctx, awayTime), n.Start())
}

// killServices kills one of each service, of those of which one alone is active both.
func killServices(ctx context.Context, s *stage, o options, res *result) error {
	return s.underLoad(ctx, o, res, func(ctx context.Context) (all []window, err error) {
		for _, name := range []string{"dispatcher-1", "statekeeper-1", "statekeeper-2", "worker-1"} {
			w, err := s.disturb(ctx, name+" killed", func(ctx context.Context) error {
				i := slices.IndexFunc(s.others, func(p *cluster.Process) bool { return p.Name == name })
				if err := errors.Join(s.others[i].Kill(), cluster.Sleep(ctx, awayTime)); err != nil {
					return err
				}
				kind, _, _ := strings.Cut(name, "-")
				if kind == "worker" {
					_, err := s.startPerformer(ctx, name+"-again", slots)
					return errors.Join(err, cluster.Sleep(ctx, awayTime))
				}
				_, err := s.start(name+"-again", kind)
				return errors.Join(err, cluster.Sleep(ctx, awayTime))
			})
			if err != nil {
				return nil, err
			}
			w.MayCharge = strings.HasPrefix(name, "worker")
			all = append(all, w)
		}
		return all, nil
	})
}

// restartBrokers is an operator's rolling restart by docs/operations.md: one
// broker after the other, each waited for until the doctor finds all replicas
// current; first by SIGTERM, then through lame duck mode.
func restartBrokers(ctx context.Context, s *stage, o options, res *result) error {
	return s.underLoad(ctx, o, res, func(ctx context.Context) (all []window, err error) {
		for _, how := range []struct {
			name string
			sig  syscall.Signal
		}{{"rolling restart, SIGTERM", syscall.SIGTERM}, {"rolling restart, lame duck mode", syscall.SIGUSR2}} {
			if o.short && how.sig != syscall.SIGTERM {
				continue
			}
			w, err := s.disturb(ctx, how.name, func(ctx context.Context) error {
				for _, n := range s.nodes {
					if err := s.restart(ctx, n, how.sig); err != nil {
						return fmt.Errorf("restart %s: %w", n.Name, err)
					}
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
			all = append(all, w)
		}
		return all, nil
	})
}

// restart has a broker end, starts it again and waits until all is current.
func (s *stage) restart(ctx context.Context, n *cluster.Node, sig syscall.Signal) error {
	if err := n.Signal(sig); err != nil {
		return err
	}
	if err := cluster.WaitFor(ctx, time.Minute, n.Name+" to end", func() bool { return !n.Running() }); err != nil {
		return err
	}
	if err := n.Start(); err != nil {
		return err
	}
	return s.awaitCurrent(ctx)
}

// awaitCurrent waits until the doctor finds all replicas current and every server healthy.
func (s *stage) awaitCurrent(ctx context.Context) error {
	args := []string{"doctor", "--broker", "--json", "--nats", s.url, "--replicas", fmt.Sprint(len(s.nodes))}
	for _, n := range s.nodes {
		args = append(args, "--monitor", n.Monitor())
	}
	var said []byte
	err := cluster.WaitFor(ctx, 2*time.Minute, "the doctor to find all replicas current", func() bool {
		said, _ = exec.CommandContext(ctx, s.binary, args...).Output() // what is wrong elsewhere is not meant
		var doc struct {
			Findings []struct{ What, State string }
		}
		well := 0
		if json.Unmarshal(said, &doc) == nil {
			for _, f := range doc.Findings {
				if (f.What == "replicas" || f.What == "health") && f.State == "ok" {
					well++
				}
			}
		}
		return well == 2
	})
	if err != nil {
		return fmt.Errorf("%w; it says\n%s", err, said)
	}
	return nil
}

// metaLeader is the leader of the cluster itself, by its monitoring port.
func (s *stage) metaLeader(ctx context.Context) (*cluster.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, upTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.nodes[0].Monitor()+"/jsz", http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	var jsz struct {
		Meta struct {
			Leader string `json:"leader"`
		} `json:"meta_cluster"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&jsz); err != nil {
		return nil, fmt.Errorf("decode %s/jsz: %w", s.nodes[0].Monitor(), err)
	}
	for _, n := range s.nodes {
		if n.Name == jsz.Meta.Leader {
			return n, nil
		}
	}
	return nil, fmt.Errorf("the cluster has no leader but %q", jsz.Meta.Leader)
}
