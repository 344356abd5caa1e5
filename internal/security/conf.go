package security

import (
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"text/template"

	"github.com/nats-io/nkeys"
)

//go:embed nats.conf.tmpl
var confText string

// broker is one broker, as the template has it.
type broker struct {
	Secured bool
	Sample  bool // nobody has its keys
	Name    string
	Port    int
	Monitor int // of its monitoring, on loopback
	// Install is the directory that the file names others by.
	Install string
	// MaxFile bounds a tenant's streams on disk, MaxMemory what lives in memory.
	MaxFile, MaxMemory string
	Tenants            int

	Accounts []account
	Includes []string // files with the accounts of viewers
	System   User

	RoutePort int
	Routes    []string // of a cluster
	Self      string   // the node's name, "" for a single broker
}

// CertName is the name of its certificates' files.
func (b broker) CertName() string {
	if b.Self == "" {
		return "broker"
	}
	return b.Self
}

// Sum is a bound for all tenants: a broker that grants them more than it has
// does not start.
func (b broker) Sum(size string) string { return times(size, max(b.Tenants, 1)) }

// times is n times a size in the broker's notation.
func times(size string, n int) string {
	unit := strings.TrimLeft(size, "0123456789")
	one, err := strconv.Atoi(strings.TrimSuffix(size, unit))
	if err != nil { // Plan.Check has seen to it
		panic("security: size " + size)
	}
	return strconv.Itoa(one*n) + unit
}

// maxReplicas is how many brokers hold a stream, where there are as many.
const maxReplicas = 3

var confTemplate = template.Must(template.New("nats.conf").Funcs(template.FuncMap{"list": list}).Parse(confText))

// list quotes values for the broker's configuration.
func list(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = fmt.Sprintf("%q", v)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

func (b broker) render() (string, error) {
	var out strings.Builder
	if err := confTemplate.Execute(&out, b); err != nil {
		return "", fmt.Errorf("render the broker's configuration: %w", err)
	}
	return out.String(), nil
}

// Open renders the configuration of a single broker without users: the
// deploy/nats.conf of a trial on one machine.
func Open() (string, error) {
	return broker{Name: "longhaul-1", Port: defaultPort, Monitor: monitorPort, MaxFile: defaultMaxFile, MaxMemory: "256MB"}.render()
}

// BrokerFile is a broker's configuration and where it stands in a generated directory.
type BrokerFile struct{ Path, Text string }

// Configs renders the configuration of every broker of p, which has been
// checked. key returns the public key of a tenant's user; that of the system
// account's has tenant "".
func Configs(p Plan, key func(tenant, user string) string) ([]BrokerFile, error) {
	return configs(p, key, false)
}

// Samples renders the files of deploy/secured: what Configs makes, a single
// broker and a cluster of three, with keys that are points on the curve nobody
// knows the secret of.
func Samples() ([]BrokerFile, error) {
	single := Plan{Install: "/etc/longhaul", Hosts: []string{"nats.example.com"}, AgentSets: []AgentSet{{Name: "mail", Agents: []string{"triage", "answer"}}}}
	cluster := single
	cluster.Nodes = []Node{{Name: "n1", Host: "n1.example.com"}, {Name: "n2", Host: "n2.example.com"}, {Name: "n3", Host: "n3.example.com"}}
	var all []BrokerFile
	for _, p := range []Plan{single, cluster} {
		if err := p.Check(); err != nil {
			return nil, err
		}
		var failed error
		files, err := configs(p, func(tenant, user string) string {
			point := sha256.Sum256([]byte("nobody's key: " + fileName(tenant, user)))
			key, err := nkeys.Encode(nkeys.PrefixByteUser, point[:])
			failed = errors.Join(failed, err)
			return string(key)
		}, true)
		if err := errors.Join(err, failed); err != nil {
			return nil, err
		}
		for _, f := range files {
			all = append(all, BrokerFile{strings.TrimPrefix(f.Path, "broker/"), f.Text})
		}
	}
	return all, nil
}

func configs(p Plan, key func(tenant, user string) string, sample bool) ([]BrokerFile, error) {
	b := broker{
		Secured: true, Sample: sample, Name: "longhaul-1", Port: p.Port, Monitor: monitorPort, Install: strings.TrimSuffix(p.Install, "/"),
		MaxFile: p.MaxFile, MaxMemory: "256MB", Tenants: len(p.Tenants),
		System: system(key("", RoleSystem)), RoutePort: p.RoutePort,
	}
	for _, t := range p.Tenants {
		all := tenant(t, p.AgentSets, func(user string) string { return key(t, user) })
		copies := max(1, min(len(p.Nodes), maxReplicas)) // an account's bound is on those of all brokers together
		all[0].MaxFile, all[0].MaxMemory = times(b.MaxFile, copies), times(b.MaxMemory, copies)
		b.Accounts, b.Includes = append(b.Accounts, all...), append(b.Includes, viewersFile(t))
	}
	if len(p.Nodes) == 0 {
		text, err := b.render()
		return []BrokerFile{{"broker/nats.conf", text}}, err
	}
	var files []BrokerFile
	for _, n := range p.Nodes {
		b.Name, b.Self, b.Routes = n.Name, n.Name, nil
		for _, other := range p.Nodes {
			b.Routes = append(b.Routes, "tls://"+net.JoinHostPort(other.Host, strconv.Itoa(other.RoutePort)))
		}
		b.Port, b.RoutePort, b.Monitor = n.Port, n.RoutePort, n.monitor
		text, err := b.render()
		if err != nil {
			return nil, err
		}
		files = append(files, BrokerFile{"broker/" + n.Name + ".conf", text})
	}
	return files, nil
}

// viewersFile holds the accounts of a tenant's viewers; it lies beside the
// broker's configuration.
func viewersFile(tenant string) string { return "viewers-" + tenant + ".conf" }
