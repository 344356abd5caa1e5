package security

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"longhaul/internal/security"
	"longhaul/pkg/jsutil"
	"longhaul/test/secured"
)

// Who has a key and the CA gets in, by flags as by a context; nobody else does.
func TestDoor(t *testing.T) {
	d := secured.New(t, security.Plan{})
	d.Topology(t, "main")
	url := d.Made.Plan.URL()
	key := func(user string) string { return filepath.Join(d.Dir, "users", user+".nk") }
	ca := filepath.Join(d.Dir, "tls", "ca.pem")
	other, err := security.Init(filepath.Join(t.TempDir(), "other"), security.Plan{})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		cfg  jsutil.ConnectConfig
		says string // "": gets in
	}{
		"key and CA":       {jsutil.ConnectConfig{URL: url, NKey: key("main-operator"), TLSCA: ca}, ""},
		"no key":           {jsutil.ConnectConfig{URL: url, TLSCA: ca}, "Authorization Violation"},
		"a name, no key":   {jsutil.ConnectConfig{URL: strings.Replace(url, "tls://", "tls://operator:operator@", 1), TLSCA: ca}, "Authorization Violation"},
		"another's key":    {jsutil.ConnectConfig{URL: url, NKey: filepath.Join(other.Dir, "users", "main-operator.nk"), TLSCA: ca}, "Authorization Violation"},
		"no CA":            {jsutil.ConnectConfig{URL: url, NKey: key("main-operator")}, "certificate"},
		"another's CA":     {jsutil.ConnectConfig{URL: url, NKey: key("main-operator"), TLSCA: filepath.Join(other.Dir, "tls", "ca.pem")}, "certificate"},
		"without TLS":      {jsutil.ConnectConfig{URL: strings.ReplaceAll(url, "tls://", "nats://"), NKey: key("main-operator")}, "certificate"},
		"a name not on it": {jsutil.ConnectConfig{URL: strings.Replace(url, "localhost", "127.0.0.2", 1), NKey: key("main-operator"), TLSCA: ca}, "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "a name not on it" {
				tc.cfg.URL, _, _ = strings.Cut(tc.cfg.URL, ",")
			}
			nc, err := jsutil.Connect(tc.cfg)
			if err == nil {
				defer nc.Close()
			}
			if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v, want %q in it", err, tc.says)
			}
		})
	}

	// The same by flags. Without saying so, answers come below the user's own key.
	s := &stage{d: d}
	s.d.Topology(t, "main")
	if out, errs, code := s.flags(t, "topology", "verify", "--nats", url, "--nkey", key("main-operator"), "--tls-ca", ca); code != 0 {
		t.Errorf("topology verify by flags: %d\n%s%s", code, out, errs)
	}
	if _, errs, code := s.flags(t, "topology", "verify", "--nats", url, "--nkey", key("main-operator"), "--tls-ca", ca, "--inbox-prefix", "_INBOX.other"); code == 0 || !strings.Contains(errs, "ermissions") {
		t.Errorf("with an inbox prefix of somebody else's: %d\n%s", code, errs)
	}
}

// A broker asks for a client's certificate if its operator says so.
func TestClientCertificate(t *testing.T) {
	d := secured.New(t, security.Plan{Nodes: []security.Node{{Name: "n1"}}})
	dir := filepath.Join(d.Dir, "tls")
	opts := d.Options(t, 0)
	opts.Port, opts.Cluster, opts.StoreDir, opts.Routes = -1, server.ClusterOpts{}, t.TempDir(), nil
	tc, err := server.GenTLSConfig(&server.TLSConfigOpts{CertFile: filepath.Join(dir, "n1.pem"), KeyFile: filepath.Join(dir, "n1-key.pem"),
		CaFile: filepath.Join(dir, "route-ca.pem"), Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	opts.TLSConfig = tc
	broker, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	broker.Start()
	defer broker.Shutdown()
	if !broker.ReadyForConnections(10 * time.Second) {
		t.Fatal("the broker is not ready")
	}
	cfg := jsutil.ConnectConfig{URL: strings.Replace(broker.ClientURL(), "0.0.0.0", "127.0.0.1", 1), TLSCA: filepath.Join(dir, "ca.pem"),
		NKey: filepath.Join(d.Dir, "users", "main-operator.nk")}
	if nc, err := jsutil.Connect(cfg); err == nil {
		nc.Close()
		t.Error("let in without a certificate")
	}
	cfg.TLSCert, cfg.TLSKey = filepath.Join(dir, "n1-route.pem"), filepath.Join(dir, "n1-route-key.pem")
	nc, err := jsutil.Connect(cfg)
	if err != nil {
		t.Fatalf("with a certificate: %v", err)
	}
	nc.Close()
}

// A broker that has no certificate of ours does not become one of the cluster,
// though it has our configuration otherwise.
func TestForeignBroker(t *testing.T) {
	d := secured.New(t, security.Plan{Nodes: []security.Node{{Name: "n1"}, {Name: "n2"}, {Name: "n3"}}})
	other, err := security.Init(filepath.Join(t.TempDir(), "other"), d.Made.Plan)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{d.Dir, other.Dir} { // the first shows that with the right one it does
		opts := d.Options(t, 0)
		tls, err := server.GenTLSConfig(&server.TLSConfigOpts{CertFile: filepath.Join(dir, "tls", "n1-route.pem"), KeyFile: filepath.Join(dir, "tls", "n1-route-key.pem"),
			CaFile: filepath.Join(d.Dir, "tls", "route-ca.pem"), Verify: true})
		if err != nil {
			t.Fatal(err)
		}
		opts.ServerName, opts.Port, opts.Cluster.Port, opts.StoreDir = "intruder", -1, -1, t.TempDir()
		tls.RootCAs = tls.ClientCAs // as for any route
		opts.Cluster.TLSConfig = tls
		s, err := server.NewServer(opts)
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		joined := false
		for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline) && !joined; time.Sleep(20 * time.Millisecond) {
			joined = s.NumRoutes() > 0
		}
		s.Shutdown()
		s.WaitForShutdown()
		if joined != (dir == d.Dir) {
			t.Errorf("with the certificate in %s joined is %v", dir, joined)
		}
	}
}

// TestWhyAccounts shows what the accounts are for: in the account of the streams,
// rights alone do not hold. If it fails one day, the broker checks replies, and
// docs/adr/0017 may be read again.
func TestWhyAccounts(t *testing.T) {
	opts := &server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true,
		Users: []*server.User{{Username: "operator", Password: "x"}, {Username: "guest", Password: "x", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{"$JS.API.DIRECT.GET.RUNS_LOG.runs.*.events"}},
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.guest.>"}},
		}}}}
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.Shutdown()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the broker is not ready")
	}
	connect := func(user string) *nats.Conn {
		nc, err := nats.Connect(s.ClientURL(), nats.UserInfo(user, "x"), nats.CustomInboxPrefix("_INBOX."+user))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return nc
	}
	js, err := jsutil.JetStream(connect("operator"))
	if err != nil {
		t.Fatal(err)
	}
	if err := jsutil.EnsureTopology(t.Context(), js, jsutil.NewTopology(jsutil.TopologyOptions{})); err != nil {
		t.Fatal(err)
	}
	guest := connect("guest")
	if err := guest.PublishRequest("$JS.API.DIRECT.GET.RUNS_LOG.runs.none.events", "$JS.API.STREAM.DELETE.RUNS_INBOX", nil); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the stream to be deleted by a guest who may read one message", func() bool {
		_, err := js.Stream(t.Context(), "RUNS_INBOX")
		return err != nil
	})
}

// A program that hosts an agent of its own gets in by variables, as a worker
// does by flags, and lacks no right.
func TestHostedAgent(t *testing.T) {
	d := secured.New(t, security.Plan{AgentSets: []security.AgentSet{{Name: "mail", Agents: []string{"echo"}}}})
	d.Topology(t, "main", "echo")
	s := &stage{d: d}
	s.start(t, "dispatcher", "dispatcher")
	s.start(t, "statekeeper", "statekeeper")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, env := range map[string][]string{
		"context": {"LONGHAUL_CONTEXT=" + d.Context("main-worker-mail")},
		"key": {"LONGHAUL_NATS=" + d.Made.Plan.URL(), "LONGHAUL_NKEY=" + filepath.Join(d.Dir, "users", "main-worker-mail.nk"),
			"LONGHAUL_TLS_CA=" + filepath.Join(d.Dir, "tls", "ca.pem")},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(self) // a cleanup outlives the test's context
			cmd.Env = append(append(os.Environ(), asHost+"=1"), env...)
			p := s.launch(t, "host by "+name, cmd)
			s.waitForAgent(t, "echo")
			if out := s.must(t, "client", "submit", "echo", "--message", "by "+name, "--wait"); !strings.Contains(out, "by "+name) {
				t.Errorf("answered %q", out)
			}
			p.end(t)
		})
	}
}
