package security

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
)

func mustInit(t *testing.T, p Plan) Made {
	t.Helper()
	made, err := Init(filepath.Join(t.TempDir(), "new", "secrets"), p)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// contents are the files below dir and what they hold.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		all[path] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestInitWritesForItsOwnerAlone(t *testing.T) {
	made := mustInit(t, Plan{Tenants: []string{"red", "blue"}, Nodes: []Node{{Name: "n1", Host: "10.0.0.1"}, {Name: "n2", Host: "10.0.0.2"}, {Name: "n3", Host: "10.0.0.3"}}})
	n := 0
	err := filepath.WalkDir(made.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		} else {
			n++
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// 3 configurations, 2 lists of viewers, 2 files for each user, 2 for each of
	// 2 CAs and 6 certificates.
	if users := 1 + 2*(3+3+1); n != 3+2+2*users+2*(2+6) || len(made.Users) != users {
		t.Errorf("%d files for %d users", n, len(made.Users))
	}
}

// Nothing is ever written over, neither by a second init nor into a directory
// that holds anything at all, and what is there stays as it is.
func TestInitNeverOverwrites(t *testing.T) {
	made := mustInit(t, Plan{})
	before := contents(t, made.Dir)
	if _, err := Init(made.Dir, Plan{}); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Errorf("a second init: %v", err)
	}
	if after := contents(t, made.Dir); len(after) != len(before) {
		t.Errorf("%d files became %d", len(before), len(after))
	} else {
		for path, was := range before {
			if after[path] != was {
				t.Errorf("%s has changed", path)
			}
		}
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "note"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(other, Plan{}); err == nil || !strings.Contains(err.Error(), "note") {
		t.Errorf("init beside a file: %v", err)
	}
	if all := contents(t, other); len(all) != 1 {
		t.Errorf("init left %d files beside another one", len(all))
	}
}

// If a file cannot be written, none of ours stays.
func TestInitCleansUp(t *testing.T) {
	dir := t.TempDir()
	err := write(dir, []file{{"a/one", []byte("1")}, {"a/two", []byte("2")}, {"a/one", []byte("over")}})
	if err == nil {
		t.Fatal("a file was written twice")
	}
	if all, _ := os.ReadDir(dir); len(all) > 0 {
		t.Errorf("%s was left", all[0].Name())
	}
}

// Each user has a key of its own, the configuration has its public part, and a
// secret is nowhere but in its own file.
func TestKeysAndContexts(t *testing.T) {
	made := mustInit(t, Plan{Tenants: []string{"red", "blue"}, Hosts: []string{"nats.example.com", "10.1.1.1:5222"}})
	all := contents(t, made.Dir)
	conf := all[filepath.Join(made.Dir, made.Brokers[0])]
	seen := make(map[string]string)
	for _, name := range made.Users {
		path := filepath.Join(made.Dir, "users", name)
		seed := strings.TrimSpace(all[path+".nk"])
		kp, err := nkeys.FromSeed([]byte(seed))
		if err != nil {
			t.Fatalf("key of %s: %v", name, err)
		}
		public, err := kp.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		if seen[public] != "" {
			t.Errorf("%s and %s share a key", name, seen[public])
		}
		seen[public] = name
		if strings.Count(conf, "nkey: "+public) != 1 {
			t.Errorf("the configuration has the key of %s %d times", name, strings.Count(conf, "nkey: "+public))
		}
		for other, text := range all {
			if strings.Contains(text, seed) && other != path+".nk" {
				t.Errorf("the secret of %s is in %s", name, other)
			}
		}
		var ctx natsContext
		if err := json.Unmarshal([]byte(all[path+".json"]), &ctx); err != nil {
			t.Fatal(err)
		}
		want := natsContext{"Longhaul: " + name, "tls://nats.example.com:4222,tls://10.1.1.1:5222", path + ".nk", filepath.Join(made.Dir, "tls", "ca.pem"), "_INBOX." + public}
		if ctx != want {
			t.Errorf("context of %s: %+v, want %+v", name, ctx, want)
		}
	}
}

func TestCertificates(t *testing.T) {
	made := mustInit(t, Plan{Hosts: []string{"nats.example.com", "10.1.1.1:5222"},
		Nodes: []Node{{Name: "n1", Host: "10.0.0.1"}, {Name: "n2", Host: "two.internal"}, {Name: "n3", Host: "10.0.0.3"}}})
	read := func(name string) *x509.Certificate {
		t.Helper()
		pair, err := tls.LoadX509KeyPair(filepath.Join(made.Dir, "tls", name+".pem"), filepath.Join(made.Dir, "tls", name+"-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf
	}
	roots := func(name string) *x509.CertPool {
		pool := x509.NewCertPool()
		pool.AddCert(read(name))
		return pool
	}
	for _, tc := range []struct {
		cert, ca, host string
		usage          x509.ExtKeyUsage
		good           bool
	}{
		{"n1", "ca", "nats.example.com", x509.ExtKeyUsageServerAuth, true},
		{"n1", "ca", "10.1.1.1", x509.ExtKeyUsageServerAuth, true},
		{"n1", "ca", "10.0.0.1", x509.ExtKeyUsageServerAuth, true},
		{"n1", "ca", "10.0.0.3", x509.ExtKeyUsageServerAuth, false},
		{"n1", "ca", "10.0.0.1", x509.ExtKeyUsageClientAuth, false},
		{"n1", "route-ca", "10.0.0.1", x509.ExtKeyUsageServerAuth, false},
		{"n2-route", "route-ca", "two.internal", x509.ExtKeyUsageServerAuth, true},
		{"n2-route", "route-ca", "two.internal", x509.ExtKeyUsageClientAuth, true},
		{"n2-route", "route-ca", "nats.example.com", x509.ExtKeyUsageServerAuth, false},
		{"n2-route", "ca", "two.internal", x509.ExtKeyUsageServerAuth, false},
	} {
		_, err := read(tc.cert).Verify(x509.VerifyOptions{DNSName: tc.host, Roots: roots(tc.ca), KeyUsages: []x509.ExtKeyUsage{tc.usage}})
		if (err == nil) != tc.good {
			t.Errorf("%+v: %v", tc, err)
		}
	}
	if left := time.Until(read("n1").NotAfter); left < 700*24*time.Hour {
		t.Errorf("a certificate is good for %v", left)
	}
}

func TestPlanFaults(t *testing.T) {
	for _, tc := range []struct {
		plan Plan
		says string
	}{
		{Plan{Tenants: []string{"Red"}}, `tenant "Red"`},
		{Plan{Tenants: []string{"red", "red"}}, "is given twice"},
		{Plan{Tenants: []string{"red-worker"}}, "names of its accounts"},
		{Plan{AgentSets: []AgentSet{{"a", []string{"x"}}, {"b", []string{"y", "x"}}}}, `agent "x" belongs to one set alone, and is in "a" too`},
		{Plan{AgentSets: []AgentSet{{"a", []string{"x"}}, {"b", []string{"*"}}}}, `agent "*" belongs to one set`},
		{Plan{AgentSets: []AgentSet{{"a", []string{"*"}}, {"b", []string{"x"}}}}, `agent "x" belongs to one set`},
		{Plan{AgentSets: []AgentSet{{Name: "a b", Agents: []string{"x"}}}}, `agent set "a b"`},
		{Plan{AgentSets: []AgentSet{{Name: "a"}}}, "names no agent"},
		{Plan{AgentSets: []AgentSet{{Name: "a", Agents: []string{"x.>"}}}}, `agent "x.>"`},
		{Plan{AgentSets: []AgentSet{{Name: "a", Agents: []string{"x", "*"}}}}, `agent "*"`},
		{Plan{Hosts: []string{`a" b`}}, "host"},
		{Plan{Nodes: []Node{{Name: "n1", Host: "a"}, {Name: "n2", Host: "b"}}}, "odd number"},
		{Plan{Nodes: []Node{{Name: "n1", Host: ""}}}, `host ""`},
		{Plan{MaxFile: "10 gigs"}, "max file"},
	} {
		dir := filepath.Join(t.TempDir(), "new")
		_, err := Init(dir, tc.plan)
		if err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%+v: %v, want %q in it", tc.plan, err, tc.says)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%+v: the directory was made", tc.plan)
		}
	}
}

func TestNextStepsNameEverything(t *testing.T) {
	made := mustInit(t, Plan{Tenants: []string{"red", "blue"}, Install: "/etc/longhaul", AgentSets: []AgentSet{{"mail", []string{"triage"}}, {"web", []string{"browse"}}},
		Nodes: []Node{{Name: "n1", Host: "10.0.0.1"}, {Name: "n2", Host: "10.0.0.2"}, {Name: "n3", Host: "10.0.0.3"}}})
	steps := made.NextSteps()
	for _, want := range []string{"ca-key.pem", "route-ca-key.pem", "/etc/longhaul/broker/n2.conf", "topology create --replicas 3 --agent triage --agent browse",
		"red-worker-web.json", "red-dispatcher.json", "doctor", "blue"} {
		if !strings.Contains(steps, want) {
			t.Errorf("the next steps lack %q:\n%s", want, steps)
		}
	}
}

func TestGrantAndRevoke(t *testing.T) {
	made := mustInit(t, Plan{})
	const run, other = "0198c0de-0000-7000-8000-000000000001", "0198c0de-0000-7000-8000-000000000002"
	var users []string
	for _, id := range []string{run, run, other} {
		user, err := Grant(made.Dir, "main", id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(made.Dir, "users", user+".nk")); err != nil || slices.Contains(users, user) {
			t.Errorf("user %s: %v", user, err)
		}
		users = append(users, user)
	}
	conf := func() string { return contents(t, made.Dir)[filepath.Join(made.Dir, "broker", "viewers-main.conf")] }
	if text := conf(); strings.Count(text, "nkey: U") != 3 || strings.Count(text, `"main-view-`) != 2 {
		t.Errorf("viewers:\n%s", text)
	}
	if n, err := Revoke(made.Dir, "main", run); n != 2 || err != nil {
		t.Errorf("%d revoked, %v", n, err)
	}
	if text := conf(); strings.Contains(text, run) || !strings.Contains(text, other) {
		t.Errorf("viewers after the revocation:\n%s", text)
	}
	if _, err := os.Stat(filepath.Join(made.Dir, "users", users[0]+".nk")); err == nil {
		t.Error("a revoked key is still there")
	}
	for _, tc := range [][2]string{{"main", "runs.>"}, {"nobody", run}, {"../x", run}} {
		if _, err := Grant(made.Dir, tc[0], tc[1]); err == nil {
			t.Errorf("a grant for %v", tc)
		}
	}
}

func TestURLOfHosts(t *testing.T) {
	p := Plan{Hosts: []string{"::1", "[::1]:5000", "a"}}
	p.fill()
	if got := p.URL(); got != "tls://[::1]:4222,tls://[::1]:5000,tls://a:4222" {
		t.Error(got)
	}
	if net.ParseIP(hostOf("[::1]:5000")) == nil || net.ParseIP(hostOf("::1")) == nil {
		t.Error("host of an IPv6 address")
	}
}

// Brokers on one machine, as to try a cluster, do not get in one another's way.
func TestNodesOfOneHost(t *testing.T) {
	made := mustInit(t, Plan{Nodes: []Node{{Name: "n1", Host: "127.0.0.1"}, {Name: "n2", Host: "127.0.0.1"}, {Name: "n3", Host: "127.0.0.1"}}})
	for i, want := range []string{"4222 6222 8222", "4223 6223 8223", "4224 6224 8224"} {
		conf, err := os.ReadFile(filepath.Join(made.Dir, made.Brokers[i]))
		if err != nil {
			t.Fatal(err)
		}
		port := strings.Fields(want)
		for _, line := range []string{`listen: "0.0.0.0:` + port[0] + `"`, `listen: "0.0.0.0:` + port[1] + `"`, `http: "127.0.0.1:` + port[2] + `"`,
			`routes: ["tls://127.0.0.1:6222", "tls://127.0.0.1:6223", "tls://127.0.0.1:6224"]`} {
			if !strings.Contains(string(conf), line) {
				t.Errorf("%s lacks %s", made.Brokers[i], line)
			}
		}
		if data := "LONGHAUL_DATA=/var/lib/longhaul/n" + string('1'+rune(i)) + " "; !strings.Contains(made.NextSteps(), data) {
			t.Errorf("the next steps lack %s", data)
		}
	}
	if url := made.Plan.URL(); url != "tls://127.0.0.1:4222,tls://127.0.0.1:4223,tls://127.0.0.1:4224" {
		t.Errorf("clients are told %s", url)
	}
}
