package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/test/cluster"
)

const (
	// upTime bounds the start of a process.
	upTime = 30 * time.Second
	// young is the age up to which a connection is not believed when it hears of
	// no holder (DESIGN "Ask before taking over"), and a little more.
	young = 11 * time.Second
)

// stage is one system under test: a broker, a dispatcher, a statekeeper and
// workers, each a process; and this program's own connection, as a client. Or
// three brokers, and two of each service.
type stage struct {
	dir    string
	binary string
	level  string // of the services' logs
	url    string
	port   int
	broker *cluster.Broker    // nil if there are three
	nodes  []*cluster.Node    // nil if there is one
	others []*cluster.Process // in the order of their start, the workers among them
	nc     *nats.Conn
	client *client.Client
	seen   *ledger
	noise  noise

	stopWatching context.CancelFunc
	watching     sync.WaitGroup
}

// newStage starts everything but workers; the services log from the given level
// on. Even with an error the caller has to call stop, then remove or not.
func newStage(ctx context.Context, binary, level string, brokers int) (*stage, error) {
	s := &stage{binary: binary, level: level, seen: newLedger()}
	var err error
	if s.dir, err = os.MkdirTemp("", "longhaul-recovery-"); err != nil {
		return s, err
	}
	services := []string{"dispatcher", "statekeeper"}
	if brokers > 1 {
		services = []string{"dispatcher-1", "dispatcher-2", "statekeeper-1", "statekeeper-2"}
		s.nodes, _, err = cluster.NewNodes(cluster.NodesConfig{Dir: s.dir, LogDir: s.dir, N: brokers})
		s.url = cluster.URLs(addrs(s.nodes))
	} else {
		err = s.startBroker()
	}
	if err != nil {
		return s, fmt.Errorf("start the broker: %w", err)
	}
	if s.nc, err = jsutil.Connect(jsutil.ConnectConfig{URL: s.url, Name: "recovery", Retry: true}); err != nil {
		return s, err
	}
	if err := jsutil.WaitConnected(ctx, s.nc); err != nil {
		return s, err
	}
	if s.client, err = client.New(s.nc); err != nil {
		return s, err
	}
	for _, name := range services {
		kind, _, _ := strings.Cut(name, "-")
		if _, err := s.start(name, kind); err != nil {
			return s, err
		}
	}
	return s, s.watch(ctx)
}

// startBroker starts the broker, at the same port as before.
func (s *stage) startBroker() (err error) {
	if s.port == 0 {
		if s.port, err = cluster.FreePort(); err != nil {
			return err
		}
	}
	s.broker, err = cluster.StartBroker(cluster.BrokerConfig{Dir: filepath.Join(s.dir, "broker"), Port: s.port}, s.dir)
	if err == nil {
		s.url = s.broker.URL
	}
	return err
}

// start starts the binary with the broker's address.
func (s *stage) start(name string, args ...string) (*cluster.Process, error) {
	if s.nodes != nil {
		args = append(args, "--replicas", strconv.Itoa(len(s.nodes)))
	}
	p, err := cluster.StartProcess(exec.Command(s.binary, append(args, "--nats", s.url, "--log-level", s.level)...), name, s.dir)
	if err != nil {
		return nil, err
	}
	s.others = append(s.others, p)
	return p, nil
}

// startWorkers starts worker processes, named by their ids, and returns when
// each answers to its name.
func (s *stage) startWorkers(ctx context.Context, ids []string, args ...string) (map[string]*cluster.Process, error) {
	workers := map[string]*cluster.Process{}
	for _, id := range ids {
		p, err := s.start(id, append([]string{"worker", "--worker-id", id}, args...)...)
		if err != nil {
			return nil, err
		}
		workers[id] = p
	}
	for _, id := range ids {
		if err := s.awaitWorker(ctx, id); err != nil {
			return nil, err
		}
	}
	return workers, nil
}

// names makes n worker ids.
func names(prefix string, n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("%s-%d", prefix, i+1))
	}
	return all
}

func (s *stage) awaitWorker(ctx context.Context, id string) error {
	ping, err := contracts.Encode(contracts.HolderRequest{Op: contracts.HolderPing})
	if err != nil {
		return err
	}
	return cluster.WaitFor(ctx, upTime, "worker "+id+" to answer", func() bool {
		_, err := s.nc.Request(contracts.WorkerSubject(id), ping, 200*time.Millisecond)
		return err == nil
	})
}

// watch has every event from now on written into the ledger.
func (s *stage) watch(ctx context.Context) error {
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stopWatching = stop
	// The stream is there when a service has made it.
	if err := cluster.WaitFor(ctx, upTime, "the run log", func() bool {
		_, err := s.client.Head(ctx, contracts.NewRunID())
		return errors.Is(err, client.ErrNotFound)
	}); err != nil {
		return err
	}
	s.watching.Go(func() {
		for e, err := range s.client.FollowAll(watching, "") {
			if watching.Err() != nil {
				return
			}
			s.seen.add(e, err)
		}
	})
	s.watching.Go(func() { s.noise.measure(watching, s) })
	// Following begins at a moment of its own; what is submitted before would
	// be missed. Submissions that nobody can execute show when that is past.
	var err error
	return errors.Join(cluster.WaitFor(ctx, upTime, "the first event to be seen", func() bool {
		_, err = s.client.Submit(ctx, contracts.Submission{AgentKey: "nobody"})
		return s.seen.count(contracts.TypeRejected) > 0
	}), err)
}

// runOf is a submission for an agent with the given params, as JSON.
func runOf(agentKey, params string) contracts.Submission {
	return contracts.Submission{AgentKey: agentKey, Input: contracts.Input{Params: []byte(params)}}
}

// submitAll submits n runs of a kind, many at a time.
func (s *stage) submitAll(ctx context.Context, n int, kind contracts.Submission) ([]string, error) {
	var ids []string
	var receipts []*client.Receipt
	for range n {
		r, err := s.client.SubmitAsync(ctx, kind)
		if err != nil {
			return nil, err
		}
		ids, receipts = append(ids, r.RunID), append(receipts, r)
	}
	for _, r := range receipts {
		if err := r.Wait(ctx); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// awaitEnd waits until all of the runs have ended.
func (s *stage) awaitEnd(ctx context.Context, patience time.Duration, ids []string) error {
	err := cluster.WaitFor(ctx, patience, fmt.Sprintf("the end of %d runs", len(ids)), func() bool { return s.seen.ended(ids) == len(ids) })
	if err == nil {
		return nil
	}
	for _, id := range ids {
		if h := s.seen.head(id); !h.Status.Terminal() {
			return fmt.Errorf("%w; %d have ended, run %s for one is %q, event %d, epoch %d, by %s",
				err, s.seen.ended(ids), id, h.Status, h.Seq, h.Epoch, h.WorkerID)
		}
	}
	return err
}

// stop ends the processes, the broker last.
func (s *stage) stop() {
	for i := len(s.others) - 1; i >= 0; i-- {
		// Most are gone.
		_ = s.others[i].Kill()
	}
	if s.stopWatching != nil {
		s.stopWatching()
		s.watching.Wait()
	}
	if s.nc != nil {
		s.nc.Close()
	}
	if s.broker != nil {
		_ = s.broker.Terminate(upTime)
	}
	for _, n := range s.nodes {
		_ = n.Kill()
	}
}

func addrs(nodes []*cluster.Node) (all []string) {
	for _, n := range nodes {
		all = append(all, n.Addr)
	}
	return all
}

// remove removes what the processes stored and logged.
func (s *stage) remove() { _ = os.RemoveAll(s.dir) }
