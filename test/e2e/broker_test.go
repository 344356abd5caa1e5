package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/internal/backup"
	"longhaul/pkg/jsutil"
	"longhaul/test/cluster"
)

// brokerTime bounds the start and the end of a broker.
const brokerTime = 40 * time.Second

func (s *stage) startBroker(t *testing.T) {
	t.Helper()
	if s.nodes != nil {
		s.startNodes(t)
		return
	}
	if s.secured != nil {
		s.secured.RestartAll(t)
		s.awaitLeaders(t)
		return
	}
	var err error
	s.broker, err = jsutil.StartEmbedded(jsutil.EmbeddedConfig{Dir: s.dir, Port: s.port})
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(s.broker.URL(), "nats://"), ":")
	if _, err := fmt.Sscan(port, &s.port); err != nil {
		t.Fatalf("port of %s: %v", s.broker.URL(), err)
	}
}

// stopBroker stops the broker; of three all three.
func (s *stage) stopBroker() {
	for _, n := range s.nodes {
		_ = n.Terminate(brokerTime) // how it ends is the next start's to say
	}
	if s.secured != nil {
		s.secured.StopAll()
	}
	if s.broker != nil {
		s.broker.Shutdown()
		s.broker = nil
	}
}

// startCluster starts three brokers for the first time.
func (s *stage) startCluster(t *testing.T) {
	t.Helper()
	var err error
	t.Cleanup(func() {
		for _, n := range s.nodes {
			_ = n.Kill()
		}
	})
	if s.nodes, _, err = cluster.NewNodes(cluster.NodesConfig{Dir: s.dir, LogDir: t.TempDir(), N: 3}); err != nil {
		t.Fatal(err)
	}
	s.awaitNodes(t)
}

// startNodes starts those that are down.
func (s *stage) startNodes(t *testing.T) {
	t.Helper()
	var errs []error
	for _, n := range s.nodes {
		errs = append(errs, n.Start())
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	s.awaitNodes(t)
	s.awaitLeaders(t)
}

// awaitLeaders waits until each of our streams that there is has a leader: a
// person who has restarted all brokers would look, too.
func (s *stage) awaitLeaders(t *testing.T) {
	t.Helper()
	js, err := jetstream.New(s.connect(t, "operator"))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "every stream to have a leader", func() bool {
		for _, name := range backup.Streams() {
			st, err := js.Stream(t.Context(), name)
			if errors.Is(err, jetstream.ErrStreamNotFound) {
				continue
			}
			if err != nil || st.CachedInfo().Cluster != nil && st.CachedInfo().Cluster.Leader == "" {
				return false
			}
		}
		return true
	})
}

// awaitNodes waits until they have found one another and take what is written.
func (s *stage) awaitNodes(t *testing.T) {
	t.Helper()
	js, err := jetstream.New(s.connect(t, "operator"))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "three brokers to be a cluster", func() bool {
		_, err := js.AccountInfo(t.Context())
		return err == nil
	})
}

func (s *stage) addrs() (all []string) {
	for _, n := range s.nodes {
		all = append(all, n.Addr)
	}
	return all
}
