package main

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"longhaul/internal/security"
	"longhaul/pkg/seal"
)

// securityCmd makes what a secured deployment needs.
type securityCmd struct {
	Init   securityInitCmd   `cmd:"" help:"Make keys, certificates and the broker's configuration for a new deployment."`
	Grant  securityGrantCmd  `cmd:"" help:"Make a user who may see one run and nothing else."`
	Revoke securityRevokeCmd `cmd:"" help:"Take such a user's right away."`
	Key    securityKeyCmd    `cmd:"" help:"Print a fresh key for --seal-keys."`
}

// Help is shown below the command's summary.
func (securityCmd) Help() string {
	return `docs/security.md says what each role may do and why, and what to do when a key is lost.

Examples:

    longhaul security init secrets
    longhaul security init secrets --agents mail=triage,answer --agents web=browse --host nats.example.com
    longhaul security init secrets --node n1=10.0.0.1 --node n2=10.0.0.2 --node n3=10.0.0.3
    longhaul security grant secrets --run 0198c0de-0000-7000-8000-000000000001
    (umask 077; longhaul security key 2026-11 > seal.keys)`
}

// securityInitCmd makes a deployment.
type securityInitCmd struct {
	Dir     string   `arg:"" help:"Directory that is empty or does not exist."`
	Tenant  []string `placeholder:"NAME" help:"A tenant, with accounts of its own; may be repeated (default main)."`
	Agents  []string `sep:"none" placeholder:"NAME=KEY,…" help:"A kind of worker, and the agents whose work it may take; may be repeated (default any=*, a worker of any agent)."`
	Host    []string `placeholder:"HOST[:PORT]" help:"Name or address by which clients reach the brokers; may be repeated (default localhost and 127.0.0.1, or the nodes)."`
	Node    []string `placeholder:"NAME=HOST[:PORT]" help:"A broker of a cluster; may be repeated (default: a single broker)."`
	Install string   `placeholder:"DIR" help:"Where the directory will be found by those who read its files (default: where it is made)."`
	MaxFile string   `default:"10GB" placeholder:"SIZE" help:"Most that a tenant's streams may hold on each broker's disk (default ${default})."`
}

// plan reads the flags.
func (s *securityInitCmd) plan() (security.Plan, error) {
	p := security.Plan{Tenants: s.Tenant, Hosts: s.Host, Install: s.Install, MaxFile: s.MaxFile}
	if s.Install != "" && !filepath.IsAbs(s.Install) {
		return p, usagef("--install: must be an absolute path, not %q", s.Install)
	}
	for _, text := range s.Agents {
		name, keys, ok := strings.Cut(text, "=")
		if !ok {
			return p, usagef("--agents: must be NAME=KEY,KEY such as mail=triage,answer, not %q", text)
		}
		p.AgentSets = append(p.AgentSets, security.AgentSet{Name: name, Agents: strings.Split(keys, ",")})
	}
	for _, text := range s.Node {
		name, host, ok := strings.Cut(text, "=")
		if !ok {
			return p, usagef("--node: must be NAME=HOST such as n1=10.0.0.1, not %q", text)
		}
		n := security.Node{Name: name, Host: host}
		if h, port, err := net.SplitHostPort(host); err == nil {
			n.Host = h
			if n.Port, err = strconv.Atoi(port); err != nil {
				return p, usagef("--node %s: port %q is no number", name, port)
			}
		}
		p.Nodes = append(p.Nodes, n)
	}
	if err := p.Check(); err != nil {
		return p, &codedError{code: exitUsage, err: err, hint: "see longhaul security init --help"}
	}
	return p, nil
}

// Run runs the command.
func (s *securityInitCmd) Run(a *app) error {
	p, err := s.plan()
	if err != nil {
		return err
	}
	made, err := security.Init(s.Dir, p)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(struct {
			Dir     string   `json:"dir"`
			Brokers []string `json:"brokers"`
			Users   []string `json:"users"`
		}{made.Dir, made.Brokers, made.Users})
	}
	a.out.printf("%s\n", made.NextSteps())
	return nil
}

// securityGrantCmd makes a viewer.
type securityGrantCmd struct {
	Dir    string `arg:"" help:"The directory that longhaul security init has made."`
	RunID  string `name:"run" required:"" placeholder:"ID" help:"The run."`
	Tenant string `default:"main" placeholder:"NAME" help:"Its tenant (default ${default})."`
}

// Run runs the command.
func (s *securityGrantCmd) Run(a *app) error {
	name, err := security.Grant(s.Dir, s.Tenant, s.RunID)
	if err != nil {
		return err
	}
	path := filepath.Join(s.Dir, "users", name+".json")
	if a.JSON {
		return a.printJSON(struct {
			User    string `json:"user"`
			Context string `json:"context"`
		}{name, path})
	}
	a.out.printf("%s User %s may see run %s.\n", a.out.green("✓"), name, s.RunID)
	a.tellReload(s.Dir, s.Tenant)
	a.err.next("follow the run", fmt.Sprintf("longhaul watch %s --context %s", s.RunID, path))
	return nil
}

// tellReload says how the brokers hear of another list of viewers.
func (a *app) tellReload(dir, tenant string) {
	a.out.printf("Copy %s to each broker, and have it read again, twice: nats-server --signal reload\n",
		filepath.Join(dir, "broker", "viewers-"+tenant+".conf"))
	a.out.printf("%s\n", a.out.dim("(An account that is new to the broker is joined to the others only at the second time.)"))
}

// securityRevokeCmd takes a viewer's right away.
type securityRevokeCmd struct {
	Dir    string `arg:"" help:"The directory that longhaul security init has made."`
	RunID  string `name:"run" required:"" placeholder:"ID" help:"The run."`
	Tenant string `default:"main" placeholder:"NAME" help:"Its tenant (default ${default})."`
}

// Run runs the command.
func (s *securityRevokeCmd) Run(a *app) error {
	n, err := security.Revoke(s.Dir, s.Tenant, s.RunID)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(struct {
			Revoked int `json:"revoked"`
		}{n})
	}
	a.out.printf("%s %s of run %s removed.\n", a.out.green("✓"), plural(n, "viewer"), s.RunID)
	a.tellReload(s.Dir, s.Tenant)
	return nil
}

// securityKeyCmd makes a key for payloads.
type securityKeyCmd struct {
	ID string `arg:"" help:"The key's id: 1 to 32 of A-Z, a-z, 0-9, _ and -. A date serves well."`
}

// Run runs the command.
func (s *securityKeyCmd) Run(a *app) error {
	line, err := seal.NewKey(s.ID)
	if err != nil {
		return &codedError{code: exitUsage, err: err}
	}
	a.printLines([]string{line})
	if a.out.terminal {
		a.err.printf("Keep it in a file that clients and workers read, and nobody else. The first line seals; all open.\n")
	}
	return nil
}
