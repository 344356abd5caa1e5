// Package secured gives tests a broker, or a cluster, that runs on exactly the
// files that `longhaul security init` makes: TLS, accounts, a user per role.
package secured

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/internal/security"
	"longhaul/pkg/jsutil"
	"longhaul/test/cluster"
)

// patience bounds each wait.
const patience = 30 * time.Second

// Deployment is a generated directory and the brokers that run on it. It is for
// one goroutine.
type Deployment struct {
	Dir  string
	Made security.Made

	data    []string // the brokers' directories
	brokers []*server.Server
}

// New makes a deployment and starts its brokers; they end with the test. Ports
// and hosts of p are set to what is free here.
func New(t testing.TB, p security.Plan) *Deployment {
	t.Helper()
	d := &Deployment{Dir: filepath.Join(t.TempDir(), "secrets")}
	p.Port = freePort(t)
	for i := range p.Nodes {
		p.Nodes[i].Host, p.Nodes[i].Port, p.Nodes[i].RoutePort = "127.0.0.1", freePort(t), freePort(t)
	}
	var err error
	if d.Made, err = security.Init(d.Dir, p); err != nil {
		t.Fatal(err)
	}
	d.brokers = make([]*server.Server, len(d.Made.Brokers))
	for range d.brokers {
		d.data = append(d.data, t.TempDir())
	}
	t.Cleanup(d.StopAll)
	for i := range d.brokers {
		d.boot(t, i)
	}
	d.waitReady(t)
	return d
}

func freePort(t testing.TB) int {
	t.Helper()
	port, err := cluster.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Config is the path of a broker's configuration.
func (d *Deployment) Config(i int) string { return filepath.Join(d.Dir, d.Made.Brokers[i]) }

// boot starts a broker from its file. One thing is not the file's: the port of
// the broker's own monitoring, of which a machine that runs several tests has one.
func (d *Deployment) boot(t testing.TB, i int) {
	t.Helper()
	s, err := server.NewServer(d.Options(t, i))
	if err != nil {
		t.Fatal(err)
	}
	s.SetLoggerV2(&brokerLog{t: t}, false, false, false)
	s.Start()
	d.brokers[i] = s
}

// Options are what a broker's file says, but for its monitoring port.
func (d *Deployment) Options(t testing.TB, i int) *server.Options {
	t.Helper()
	t.Setenv("LONGHAUL_DATA", d.data[i])
	opts, err := server.ProcessConfigFile(d.Config(i))
	if err != nil {
		t.Fatal(err)
	}
	opts.HTTPHost, opts.HTTPPort, opts.NoSigs = "", 0, true
	return opts
}

func (d *Deployment) waitReady(t testing.TB) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		ready := 0
		for _, s := range d.brokers {
			if s.ReadyForConnections(time.Second) && (len(d.brokers) == 1 || s.JetStreamIsCurrent()) {
				ready++
			}
		}
		if ready == len(d.brokers) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for the brokers; %d of %d are ready", ready, len(d.brokers))
		}
	}
}

// Stop stops a broker.
func (d *Deployment) Stop(i int) {
	if s := d.brokers[i]; s != nil {
		s.Shutdown()
		s.WaitForShutdown()
		d.brokers[i] = nil
	}
}

// Restart stops a broker if it runs and starts it again on what it has stored.
func (d *Deployment) Restart(t testing.TB, i int) {
	t.Helper()
	d.Stop(i)
	d.boot(t, i)
	d.waitReady(t)
}

// StopAll stops all brokers.
func (d *Deployment) StopAll() {
	for i := range d.brokers {
		d.Stop(i)
	}
}

// RestartAll stops the brokers that run and starts all of them again.
func (d *Deployment) RestartAll(t testing.TB) {
	t.Helper()
	d.StopAll()
	for i := range d.brokers {
		d.boot(t, i)
	}
	d.waitReady(t)
}

// Reload has every broker read its file again, as on SIGHUP.
func (d *Deployment) Reload(t testing.TB) {
	t.Helper()
	for i, s := range d.brokers {
		if err := s.ReloadOptions(d.Options(t, i)); err != nil {
			t.Fatalf("reload broker %d: %v", i, err)
		}
	}
}

// Context is the path of a user's NATS context, such as "main-dispatcher".
func (d *Deployment) Context(user string) string { return filepath.Join(d.Dir, "users", user+".json") }

// Read is what a file of the deployment holds.
func (d *Deployment) Read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(d.Dir, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Connect connects as a user. What the broker reports to the connection is told to complain.
func (d *Deployment) Connect(t testing.TB, user string, complain func(error)) *nats.Conn {
	t.Helper()
	nc, err := jsutil.Connect(jsutil.ConnectConfig{Context: d.Context(user), Name: t.Name() + " " + user})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	if complain != nil {
		nc.SetErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { complain(err) })
	}
	return nc
}

// Topology makes the topology as the operator of a tenant, with the queues of agents.
func (d *Deployment) Topology(t testing.TB, tenant string, agents ...string) jetstream.JetStream {
	t.Helper()
	js, err := jsutil.JetStream(d.Connect(t, tenant+"-operator", func(err error) {
		if !errors.Is(err, io.EOF) { // brokers that find one another may drop it; it connects again
			t.Errorf("operator: %v", err)
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	o := jsutil.TopologyOptions{Replicas: min(len(d.brokers), 3)}
	if err := jsutil.WaitTopology(t.Context(), js, jsutil.NewTopology(o), nil); err != nil {
		t.Fatal(err)
	}
	for _, key := range agents {
		if err := jsutil.EnsureWorkConsumers(t.Context(), js, key, 30*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	return js
}

// Replicas is the flag for what a service would create.
func (d *Deployment) Replicas() string { return "--replicas=" + strconv.Itoa(min(len(d.brokers), 3)) }

// brokerLog shows what a broker warns of.
type brokerLog struct{ t testing.TB }

func (l *brokerLog) Noticef(string, ...any) {}
func (l *brokerLog) Debugf(string, ...any)  {}
func (l *brokerLog) Tracef(string, ...any)  {}

func (l *brokerLog) Warnf(format string, v ...any)  { l.say(format, v) }
func (l *brokerLog) Errorf(format string, v ...any) { l.say(format, v) }
func (l *brokerLog) Fatalf(format string, v ...any) { l.say(format, v) }

func (l *brokerLog) say(format string, v []any) {
	if l.t.Context().Err() == nil { // its goroutines may outlive the test
		l.t.Log("broker: " + fmt.Sprintf(format, v...))
	}
}
