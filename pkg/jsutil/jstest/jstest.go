// Package jstest gives tests a real broker: embedded, on a random port, with
// Longhaul's topology.
package jstest

import (
	"net/url"
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/jsutil"
)

// Broker is an embedded broker that ends with its test.
type Broker struct {
	NC *nats.Conn
	JS jetstream.JetStream

	embedded *jsutil.Embedded
	cfg      jsutil.EmbeddedConfig
}

// Start starts a broker in memory, with the topology.
func Start(t testing.TB) *Broker { return start(t, "") }

// StartFile starts a broker on a directory of the test, so that it can be restarted.
func StartFile(t testing.TB) *Broker { return start(t, t.TempDir()) }

func start(t testing.TB, dir string) *Broker {
	t.Helper()
	b := &Broker{cfg: jsutil.EmbeddedConfig{Dir: dir}}
	b.boot(t)
	u, err := url.Parse(b.URL())
	if err != nil {
		t.Fatal(err)
	}
	if b.cfg.Port, err = strconv.Atoi(u.Port()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Stop(t) })
	b.NC = b.Connect(t)
	if b.JS, err = jsutil.JetStream(b.NC); err != nil {
		t.Fatal(err)
	}
	if err := jsutil.EnsureTopology(t.Context(), b.JS, b.Topology()); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *Broker) boot(t testing.TB) {
	t.Helper()
	e, err := jsutil.StartEmbedded(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	b.embedded = e
}

// URL is where clients connect to. It stays over a Restart.
func (b *Broker) URL() string { return b.embedded.URL() }

// Topology is what Start has created.
func (b *Broker) Topology() jsutil.Topology {
	return jsutil.NewTopology(jsutil.TopologyOptions{Storage: b.embedded.Storage()})
}

// Stop stops the broker, its connections stay open and retry. May be called twice.
func (b *Broker) Stop(t testing.TB) {
	t.Helper()
	b.embedded.Shutdown()
}

// Restart stops the broker if it runs and starts it on the same port and directory.
func (b *Broker) Restart(t testing.TB) {
	t.Helper()
	b.Stop(t)
	b.boot(t)
}

// Connect returns a further connection, which is closed with the test.
func (b *Broker) Connect(t testing.TB) *nats.Conn {
	t.Helper()
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: b.URL(), Name: t.Name(), Retry: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if err := jsutil.WaitConnected(t.Context(), nc); err != nil {
		t.Fatal(err)
	}
	return nc
}
