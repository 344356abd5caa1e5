package security

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"

	"longhaul/pkg/contracts"
)

// Plan is what a deployment shall be.
type Plan struct {
	// Tenants are names; each gets accounts of its own, between which nothing passes.
	Tenants []string
	// AgentSets are the kinds of workers, the same for every tenant.
	AgentSets []AgentSet
	// Hosts are the names and addresses by which clients reach the brokers;
	// certificates are made out to them. Each may have a port.
	Hosts []string
	// Nodes are the brokers of a cluster; none means a single broker.
	Nodes []Node
	// Install is the directory by which the files refer to one another: where the
	// generated directory will be found by those who read them.
	Install string
	// Port is where clients connect; RoutePort where brokers do. Zero: 4222 and 6222.
	Port, RoutePort int
	// MaxFile bounds what a tenant's streams hold on disk, in the broker's notation.
	MaxFile string
}

// AgentSet is a kind of worker, and the agents whose work it may take.
type AgentSet struct {
	Name   string
	Agents []string // keys; a single "*" is any agent
}

// Node is a broker of a cluster.
type Node struct {
	Name string
	Host string // by which clients and the other brokers reach it
	// Port and RoutePort are the plan's unless they are given, or the next ones if
	// an earlier node has the same host.
	Port, RoutePort int
	monitor         int // where it shows itself on loopback, likewise
}

// AnyAgent stands for every agent.
const AnyAgent = "*"

const (
	defaultPort      = 4222
	defaultRoutePort = 6222
	monitorPort      = 8222
	defaultMaxFile   = "10GB"
)

// nameRule is for tenants, agent sets and nodes: names of files, users and accounts.
var nameRule = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// sizeRule is for sizes in the broker's notation.
var sizeRule = regexp.MustCompile(`^[1-9][0-9]{0,5}(KB|MB|GB|TB)$`)

// Check fills in defaults and returns every fault of p.
func (p *Plan) Check() error {
	p.fill()
	return p.faults()
}

func (p *Plan) fill() {
	if len(p.Tenants) == 0 {
		p.Tenants = []string{"main"}
	}
	if len(p.AgentSets) == 0 {
		p.AgentSets = []AgentSet{{Name: "any", Agents: []string{AnyAgent}}}
	}
	p.Port, p.RoutePort, p.MaxFile = cmp.Or(p.Port, defaultPort), cmp.Or(p.RoutePort, defaultRoutePort), cmp.Or(p.MaxFile, defaultMaxFile)
	before := make(map[string]int) // how many nodes a host has
	for i := range p.Nodes {
		n := &p.Nodes[i]
		k := before[n.Host]
		before[n.Host]++
		n.Port, n.RoutePort, n.monitor = cmp.Or(n.Port, p.Port+k), cmp.Or(n.RoutePort, p.RoutePort+k), monitorPort+k
	}
	if len(p.Hosts) == 0 {
		p.Hosts = []string{"localhost", "127.0.0.1"}
		if len(p.Nodes) > 0 {
			p.Hosts = nil
			for _, n := range p.Nodes {
				p.Hosts = append(p.Hosts, net.JoinHostPort(n.Host, strconv.Itoa(n.Port)))
			}
		}
	}
}

func (p *Plan) faults() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	seen := make(map[string]bool)
	name := func(what, s string) {
		if !nameRule.MatchString(s) {
			fault("%s %q: must be lower-case letters, digits and hyphens, at most 32, and begin with a letter or digit", what, s)
		}
		if seen[what+s] {
			fault("%s %q: is given twice", what, s)
		}
		seen[what+s] = true
	}
	for _, t := range p.Tenants {
		name("tenant", t)
		if strings.Contains(t, "-") || t == "sys" {
			fault("tenant %q: must not be sys, nor hold a hyphen: these are names of its accounts", t)
		}
	}
	setOf := make(map[string]string)
	for _, s := range p.AgentSets {
		name("agent set", s.Name)
		if len(s.Agents) == 0 {
			fault("agent set %q: names no agent", s.Name)
		}
		for _, key := range s.Agents {
			// Workers ask one another before they take a run over, within their account.
			if other, there := setOf[key]; there || len(setOf) > 0 && (key == AnyAgent || setOf[AnyAgent] != "") {
				fault("agent set %q: agent %q belongs to one set alone, and is in %q too", s.Name, key, cmp.Or(other, setOf[AnyAgent], "others"))
			}
			setOf[key] = s.Name
			if key == AnyAgent {
				continue
			}
			if err := contracts.CheckAgentKey(key); err != nil {
				fault("agent set %q: agent %q %w", s.Name, key, err)
			}
		}
	}
	for _, h := range p.Hosts {
		if host := hostOf(h); host == "" || strings.ContainsAny(host, " /@\"") {
			fault("host %q: must be a name or an address, with a port or without", h)
		}
	}
	for _, n := range p.Nodes {
		name("node", n.Name)
		if n.Host == "" || strings.ContainsAny(n.Host, " /@:\"") && net.ParseIP(n.Host) == nil {
			fault("node %q: host %q must be a name or an address without a port", n.Name, n.Host)
		}
	}
	if len(p.Nodes) > 0 && len(p.Nodes)%2 == 0 {
		fault("nodes: %d brokers are as easily without a majority as %d; give an odd number", len(p.Nodes), len(p.Nodes)-1)
	}
	if !sizeRule.MatchString(p.MaxFile) {
		fault("max file %q: must be a number and KB, MB, GB or TB, such as 10GB", p.MaxFile)
	}
	return errors.Join(errs...)
}

// hostOf is a host without its port.
func hostOf(h string) string {
	if host, _, err := net.SplitHostPort(h); err == nil {
		return host
	}
	return strings.Trim(h, "[]")
}

// URL is what clients are told to connect to.
func (p *Plan) URL() string {
	var urls []string
	for _, h := range p.Hosts {
		if _, _, err := net.SplitHostPort(h); err != nil {
			h = net.JoinHostPort(strings.Trim(h, "[]"), fmt.Sprint(p.Port))
		}
		urls = append(urls, "tls://"+h)
	}
	return strings.Join(urls, ",")
}
