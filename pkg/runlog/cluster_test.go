package runlog

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// startCluster starts three brokers with RUNS_LOG on three replicas.
func startCluster(t *testing.T) []*server.Server {
	t.Helper()
	var routes []*url.URL
	for _, port := range freePorts(t, 3) {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%s", port)})
	}
	nodes := make([]*server.Server, 3)
	for i := range nodes {
		opts := &server.Options{
			ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
			JetStream: true, StoreDir: t.TempDir(), JetStreamMaxMemory: 64 << 20, JetStreamMaxStore: 256 << 20, Routes: routes,
		}
		opts.Cluster.Name, opts.Cluster.Host = "c", "127.0.0.1"
		if _, err := fmt.Sscan(routes[i].Port(), &opts.Cluster.Port); err != nil {
			t.Fatal(err)
		}
		var err error
		if nodes[i], err = server.NewServer(opts); err != nil {
			t.Fatal(err)
		}
		nodes[i].Start()
		t.Cleanup(func() {
			nodes[i].Shutdown()
			nodes[i].WaitForShutdown()
		})
	}
	nc := clusterConn(t, nodes, 0)
	js, err := jsutil.JetStream(nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, cfg := range jsutil.NewTopology(jsutil.TopologyOptions{Replicas: 3, Storage: jetstream.FileStorage}).Streams {
		if cfg.Name != contracts.StreamLog {
			continue
		}
		cfg.MaxBytes = 0
		waitFor(t, "the cluster to take a stream", func() bool {
			_, err = js.CreateStream(t.Context(), cfg)
			return err == nil
		})
	}
	return nodes
}

func freePorts(t *testing.T, n int) (ports []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		_, port, err := net.SplitHostPort(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
	}
	return ports
}

// clusterConn connects to node i, and to the others if that one is gone.
func clusterConn(t *testing.T, nodes []*server.Server, i int) *nats.Conn {
	t.Helper()
	list := ""
	for k := range nodes {
		list += nodes[(i+k)%len(nodes)].ClientURL() + ","
	}
	nc, err := nats.Connect(list[:len(list)-1], nats.DontRandomize(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// Three replicas: appenders on all of them race while the stream's leader
// is shut down under them, and a follower looks on. Nothing acknowledged is
// lost, nothing refused is stored, and the follower sees the log as it is.
func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three brokers")
	}
	nodes := startCluster(t)
	start := newRun(newLogOn(t, clusterConn(t, nodes, 0))).mustStart(t)
	var stop atomic.Bool
	var wg sync.WaitGroup
	var mu sync.Mutex
	acked := map[string]Head{} // by the payload that makes each event its own
	var refused sync.Map
	var conflicts atomic.Int64
	for a := range 6 {
		r := run{log: newLogOn(t, clusterConn(t, nodes, a%3)), id: start.id, head: start.head}
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				e := r.event(t, contracts.TypeDelta)
				mine := fmt.Sprintf(`{"by":"%d/%d"}`, a, n)
				e.Payload = []byte(mine)
				head, err := r.log.Append(t.Context(), r.head, e)
				switch {
				case err == nil:
					r.head = head
					mu.Lock()
					acked[mine] = head
					mu.Unlock()
				case errors.Is(err, jsutil.ErrConflict):
					conflicts.Add(1)
					refused.Store(mine, true)
					if last, err := r.log.LastFromLeader(t.Context(), r.id); err == nil {
						r.head = last.Head()
					}
				case errors.Is(err, jsutil.ErrUnavailable):
					t.Logf("appender %d: %v", a, err)
				default:
					t.Errorf("appender %d: %v", a, err)
					return
				}
			}
		})
	}
	reader := newLogOn(t, clusterConn(t, nodes, 1))
	reader.one = New(reader.js).one
	next, end := follow(t, reader, start.id, FollowOptions{})
	defer end()
	var got []Entry
	down := 0
	for began := time.Now(); time.Since(began) < 4*time.Second || down == 0; {
		got = append(got, next())
		if down == 0 && time.Since(began) > time.Second {
			for i, n := range nodes {
				if down == 0 && n.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, contracts.StreamLog) {
					n.Shutdown()
					t.Logf("leader n%d is down after %d events", i, len(got))
					down++
				}
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	log := mustRead(t, start.log, start.id, 1)
	for len(got) < len(log) {
		got = append(got, next())
	}
	checkInOrder(t, got, 1, uint64(len(log)))
	t.Logf("%d events, %d acknowledged, %d conflicts", len(log), len(acked), conflicts.Load())
	stored := map[string]Head{}
	for i, e := range log {
		if got[i].Sequence != e.Sequence || string(got[i].Payload) != string(e.Payload) {
			t.Fatalf("the follower saw another event %d", e.Seq)
		}
		stored[string(e.Payload)] = e.Head()
		if _, ok := refused.Load(string(e.Payload)); ok {
			t.Errorf("event %d was refused, but is stored", e.Seq)
		}
	}
	for mine, head := range acked {
		if stored[mine] != head {
			t.Errorf("%s was acknowledged as %+v, stored is %+v", mine, head, stored[mine])
		}
	}
	if down != 1 || conflicts.Load() == 0 {
		t.Errorf("%d leaders went down, %d conflicts: nothing was tried", down, conflicts.Load())
	}
}
