package agentfile

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/mcp"
)

// connectable makes the MCP servers of a file. None is started or called before
// a run needs it, so that a worker does not depend on what few of its runs do.
func (b *builder) connectable(specs []mcpSpec) {
	b.mcp = map[string]mcpSpec{}
	for i, one := range specs {
		at := fmt.Sprintf("mcp[%d]", i)
		if _, there := b.mcp[one.Name]; there {
			b.fault(at+".name", "%q is there twice", one.Name)
		}
		b.mcp[one.Name] = one
		server, err := mcp.New(b.server(at, one))
		if err != nil {
			b.fail(at, err)
			continue
		}
		b.servers = append(b.servers, server)
	}
}

func (b *builder) server(at string, one mcpSpec) mcp.Config {
	cfg := mcp.Config{
		Name: one.Name, Command: one.Command, Env: env(one.Env), Limits: one.Limits.limits(), Grace: seconds(one.GraceSeconds),
		URL: one.URL, Token: mcp.Secret{Env: one.TokenEnv, File: b.path(one.TokenFile)}, TokenHeader: one.TokenHeader, Headers: one.Headers,
		ConnectTimeout: seconds(one.ConnectTimeoutSeconds), ProtocolVersion: one.ProtocolVersion, Allow: one.Allow, Log: b.log,
	}
	if len(one.Command) > 0 {
		cfg.Dir = b.dir
		if one.Dir != "" {
			cfg.Dir = b.path(one.Dir)
		}
		e := b.exec(execSpec{PassEnv: one.PassEnv})
		cfg.PassEnv = e.PassEnv
	}
	if len(one.SecretHeaders) > 0 {
		cfg.SecretHeaders = map[string]mcp.Secret{}
	}
	for name, secret := range one.SecretHeaders {
		cfg.SecretHeaders[name] = mcp.Secret{Env: secret.Env, File: b.path(secret.File)}
	}
	cfg.Default = b.calls(at, mcpToolSpec{SideEffects: one.SideEffects, RequiresConfirmation: one.RequiresConfirmation,
		ConfirmWithinSeconds: one.ConfirmWithinSeconds, Unanswered: one.Unanswered, TimeoutSeconds: one.TimeoutSeconds})
	cfg.Tools = map[string]mcp.ToolConfig{}
	for _, name := range slices.Sorted(maps.Keys(one.Tools)) {
		cfg.Tools[name] = b.calls(at+".tools."+name, one.Tools[name])
	}
	return cfg
}

// calls is how tools are called.
func (b *builder) calls(at string, one mcpToolSpec) mcp.ToolConfig {
	return mcp.ToolConfig{SideEffects: one.SideEffects, RequiresConfirmation: one.RequiresConfirmation,
		ConfirmWithin: seconds(one.ConfirmWithinSeconds), Unanswered: b.unanswered(at, one.Unanswered), Timeout: seconds(one.TimeoutSeconds)}
}

// pick sorts what a chat agent's list of tools names: tools of the file, and
// server/tool or server/* of MCP servers.
func (b *builder) pick(at string, names []string, tools *agent.Tools) (own []string, theirs picked) {
	for i, name := range names {
		at := fmt.Sprintf("%s.tools[%d]", at, i)
		server, tool, isTheirs := strings.Cut(name, "/")
		if !isTheirs {
			if tools != nil {
				if _, err := tools.Allow(name); err != nil {
					b.fault(at, "%v", err)
					continue
				}
			}
			own = append(own, name)
			continue
		}
		spec, there := b.mcp[server]
		switch {
		case !there:
			b.fault(at, "there is no MCP server %q; there are %s", server, cmp.Or(strings.Join(slices.Sorted(maps.Keys(b.mcp)), ", "), "none"))
		case tool == "":
			b.fault(at, "must be server/tool or server/*")
		case tool != "*" && spec.Allow != nil && !slices.Contains(spec.Allow, tool):
			b.fault(at, "%q is not among what mcp %q allows: %s", tool, server, strings.Join(spec.Allow, ", "))
		default:
			i := slices.IndexFunc(b.servers, func(s *mcp.Server) bool { return s.Name() == server })
			if i >= 0 { // else told of already
				theirs = append(theirs, pick{b.servers[i], tool})
			}
		}
	}
	return own, theirs
}

// picked is what an agent may call of MCP servers.
type picked []pick

type pick struct {
	server *mcp.Server
	tool   string // as the server has it; * is all
}

// tools asks the servers for them.
func (p picked) tools(ctx context.Context) ([]agent.Tool, error) {
	var all []agent.Tool
	for _, one := range p {
		offered, err := one.server.Tools(ctx)
		if err != nil {
			return nil, err
		}
		found := one.tool == "*"
		for _, tool := range offered {
			wanted := one.tool == "*" || tool.Name == mcp.ToolName(one.server.Name(), one.tool)
			if wanted && !slices.ContainsFunc(all, func(t agent.Tool) bool { return t.Name == tool.Name }) {
				all = append(all, tool)
			}
			found = found || wanted
		}
		if !found {
			return nil, fmt.Errorf("MCP server %s has no tool %q that could be called", one.server.Name(), one.tool)
		}
	}
	return all, nil
}
