// Package jstest gives tests a real broker: embedded, on a free port of the
// loopback address, ended with the test. Whatever can't be done, or does not
// happen in time, fails the test.
package jstest

import (
	"context"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/jsutil"
)

// patience bounds each wait; a machine that tests many packages at once is slow.
const patience = 20 * time.Second

// Broker is an embedded broker, and a connection to it. It is for one goroutine.
type Broker struct {
	NC *nats.Conn
	JS jetstream.JetStream

	cfg      jsutil.EmbeddedConfig
	url      string
	storage  jetstream.StorageType
	embedded *jsutil.Embedded
}

// Start starts a broker in memory, with the topology.
func Start(t testing.TB) *Broker {
	t.Helper()
	return start(t, "").withTopology(t)
}

// StartFile starts a broker on a directory of the test, with the topology. It
// keeps its streams over Restart.
func StartFile(t testing.TB) *Broker {
	t.Helper()
	return start(t, t.TempDir()).withTopology(t)
}

// StartEmpty starts a broker in memory that holds nothing.
func StartEmpty(t testing.TB) *Broker {
	t.Helper()
	return start(t, "")
}

func start(t testing.TB, dir string) *Broker {
	t.Helper()
	b := &Broker{cfg: jsutil.EmbeddedConfig{Dir: dir}}
	b.boot(t)
	t.Cleanup(func() { b.Stop(t) })
	b.url, b.storage = b.embedded.URL(), b.embedded.Storage()
	u, err := url.Parse(b.url)
	if err != nil {
		t.Fatal(err)
	}
	if b.cfg.Port, err = strconv.Atoi(u.Port()); err != nil {
		t.Fatal(err)
	}
	b.NC = b.Connect(t)
	if b.JS, err = jsutil.JetStream(b.NC); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *Broker) withTopology(t testing.TB) *Broker {
	t.Helper()
	if err := jsutil.EnsureTopology(t.Context(), b.JS, b.Topology()); err != nil {
		t.Fatal(err)
	}
	return b
}

// boot starts the server. The port of a server that has just stopped may have
// been taken by another test's connection for a moment.
func (b *Broker) boot(t testing.TB) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if b.embedded, err = jsutil.StartEmbedded(b.cfg); err == nil {
			return
		}
		if b.cfg.Port == 0 {
			break
		}
	}
	t.Fatal(err)
}

// URL is where clients connect to. It stays the same over Stop and Restart.
func (b *Broker) URL() string { return b.url }

// Topology is what Start has created, and services should ask for.
func (b *Broker) Topology() jsutil.Topology { return jsutil.NewTopology(b.TopologyOptions()) }

// TopologyOptions are the options that suit this broker.
func (b *Broker) TopologyOptions() jsutil.TopologyOptions {
	return jsutil.TopologyOptions{Storage: b.storage}
}

// Stop stops the broker; connections stay open and go on trying. A broker that
// is stopped may be stopped again, and started by Restart.
func (b *Broker) Stop(t testing.TB) {
	t.Helper()
	b.embedded.Shutdown()
}

// Restart stops the broker, if it runs, and starts it on the same port and
// directory. It returns when NC is of use again.
func (b *Broker) Restart(t testing.TB) {
	t.Helper()
	b.Stop(t)
	b.boot(t)
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if err = b.NC.FlushTimeout(time.Second); err == nil {
			return
		}
		waitConnected(t, b.NC)
	}
	t.Fatalf("waited %s for the connection to come back: %v", patience, err)
}

// Connect returns a further connection, with Retry. It is closed with the test.
func (b *Broker) Connect(t testing.TB) *nats.Conn {
	t.Helper()
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: b.url, Name: t.Name(), Retry: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	waitConnected(t, nc)
	return nc
}

func waitConnected(t testing.TB, nc *nats.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := jsutil.WaitConnected(ctx, nc); err != nil {
		t.Fatalf("waited %s for a connection: %v", patience, err)
	}
}
