package agentfile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/builtin"
	"longhaul/pkg/agent/builtin/chat"
	"longhaul/pkg/agent/builtin/httpagent"
	"longhaul/pkg/agent/mcp"
	"longhaul/pkg/contracts"
)

// builder makes agents of what a file says, and collects what is wrong.
type builder struct {
	dir     string
	log     *slog.Logger
	servers []*mcp.Server // those that are well defined, none of them started
	mcp     map[string]mcpSpec
	faults  contracts.Faults
}

func (b *builder) fault(field, format string, args ...any) {
	b.faults = append(b.faults, contracts.Fault{Field: field, Message: fmt.Sprintf(format, args...)})
}

// fail takes over the faults of what could not be made, below the field at.
// Those of the agent's own fields are a step further up.
func (b *builder) fail(at string, err error) {
	var faults contracts.Faults
	if !errors.As(err, &faults) {
		b.fault(at, "%v", err)
		return
	}
	for _, f := range faults {
		below := at
		if f.Field == "key" || f.Field == "input_schema" {
			below = at[:strings.LastIndex(at, ".")]
		}
		b.fault(strings.TrimSuffix(below+"."+f.Field, "."), "%s", f.Message)
	}
}

func (b *builder) build(spec fileSpec) []agent.Agent {
	b.connectable(spec.MCP)
	tools := b.tools(spec.Tools)
	if len(spec.Agents) == 0 {
		b.fault("agents", "there must be at least one")
	}
	seen := map[string]bool{}
	var agents []agent.Agent
	for i, one := range spec.Agents {
		at := fmt.Sprintf("agents[%d]", i)
		if seen[one.Key] {
			b.fault(at+".key", "%q is there twice", one.Key)
		}
		seen[one.Key] = true
		agents = append(agents, b.agent(at, one, tools))
	}
	return agents
}

func (b *builder) agent(at string, one agentSpec, tools *agent.Tools) agent.Agent {
	makers := map[string]func(at string) (agent.Agent, error){}
	if one.Chat != nil {
		makers["chat"] = func(at string) (agent.Agent, error) { return b.chat(at, one, tools) }
	}
	if one.HTTP != nil {
		makers["http"] = func(string) (agent.Agent, error) { return b.http(one) }
	}
	if one.Exec != nil {
		makers["exec"] = func(string) (agent.Agent, error) {
			cfg := b.exec(*one.Exec)
			cfg.Key, cfg.Description, cfg.InputSchema = one.Key, one.Description, one.InputSchema
			return builtin.Exec(cfg)
		}
	}
	for kind, there := range map[string]*struct{}{builtin.KeyEcho: one.Echo, builtin.KeyCount: one.Count, builtin.KeyFlaky: one.Flaky} {
		if there != nil {
			makers[kind] = func(string) (agent.Agent, error) { return plain(kind, one) }
		}
	}
	if len(makers) != 1 {
		b.fault(at, "must have exactly one of chat, http, exec, echo, count and flaky (of the last three: {}), not %d", len(makers))
		return agent.Agent{}
	}
	for kind, build := range makers {
		made, err := build(at + "." + kind)
		if err != nil {
			b.fail(at+"."+kind, err)
		}
		made.Concurrency = one.Concurrency
		return made
	}
	return agent.Agent{}
}

// plain is an agent that needs no settings.
func plain(kind string, one agentSpec) (agent.Agent, error) {
	a, _ := builtin.Named(kind)
	a.Key = one.Key
	if one.Description != "" {
		a.Description = one.Description
	}
	if len(one.InputSchema) > 0 {
		a.InputSchema = one.InputSchema
	}
	return a, a.Check()
}

func (b *builder) chat(at string, one agentSpec, tools *agent.Tools) (agent.Agent, error) {
	c := *one.Chat
	cfg := chat.Config{
		Key: one.Key, Description: one.Description, InputSchema: one.InputSchema,
		Model: c.Model, Models: c.Models, BaseURL: c.BaseURL, APIKey: chat.Secret{Env: c.APIKeyEnv, File: b.path(c.APIKeyFile)}, APIKeyHeader: c.APIKeyHeader,
		Headers: c.Headers, System: c.System, ParallelTools: c.ParallelTools, MaxTurns: c.MaxTurns, Params: c.Params, Request: c.Request,
		IdleTimeout: seconds(c.IdleTimeoutSeconds), Price: chat.Price{Input: c.Price.Input, Output: c.Price.Output},
	}
	own, theirs := b.pick(at, c.Tools, tools)
	if len(own) > 0 && tools != nil {
		allowed, err := tools.Allow(own...)
		if err != nil {
			return agent.Agent{}, nil // told of already
		}
		cfg.Tools = allowed
	}
	if len(theirs) > 0 {
		cfg.MoreTools = theirs.tools
	}
	return chat.New(cfg)
}

func (b *builder) http(one agentSpec) (agent.Agent, error) {
	h := *one.HTTP
	return httpagent.New(httpagent.Config{
		Key: one.Key, Description: one.Description, InputSchema: one.InputSchema,
		URL: h.URL, Token: httpagent.Secret{Env: h.TokenEnv, File: b.path(h.TokenFile)}, TokenHeader: h.TokenHeader, Headers: h.Headers,
		Timeout: seconds(h.TimeoutSeconds), IdleTimeout: seconds(h.IdleTimeoutSeconds), MaxResponse: h.MaxResponseBytes,
	})
}

// exec is what a program is run by: in the file's directory, with little of the
// worker's environment, unless the file says more.
func (b *builder) exec(e execSpec) builtin.ExecConfig {
	cfg := builtin.ExecConfig{
		Command: e.Command, Dir: b.dir, PassEnv: append(slices.Clone(e.PassEnv), builtin.PlainEnv()...),
		Timeout: seconds(e.TimeoutSeconds), Grace: seconds(e.GraceSeconds), MaxOutput: e.MaxOutputBytes,
		Limits: e.Limits.limits(), Env: env(e.Env),
	}
	if e.Dir != "" {
		cfg.Dir = b.path(e.Dir)
	}
	return cfg
}

func (l limitsSpec) limits() builtin.Limits {
	return builtin.Limits{CPU: seconds(l.CPUSeconds), Memory: l.MemoryBytes, FileSize: l.FileSizeBytes, OpenFiles: l.OpenFiles}
}

// env is an environment as programs are given it.
func env(vars map[string]string) (env []string) {
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, name+"="+vars[name])
	}
	return env
}

// tools is nil if one of them is not well defined.
func (b *builder) tools(specs []toolSpec) *agent.Tools {
	var tools []agent.Tool
	for i, one := range specs {
		tool, err := builtin.ExecTool(b.exec(one.Exec), one.Name, one.Description, one.Parameters)
		if err != nil {
			b.fail(fmt.Sprintf("tools[%d].exec", i), err)
			tool = agent.Tool{Name: one.Name, Schema: one.Parameters, Do: unmade} // the rest of it is looked at, too
		}
		tool.RequiresConfirmation, tool.ConfirmWithin = one.RequiresConfirmation, seconds(one.ConfirmWithinSeconds)
		tool.Unanswered = b.unanswered(fmt.Sprintf("tools[%d]", i), one.Unanswered)
		tools = append(tools, tool)
	}
	all, err := agent.NewTools(tools...)
	var faults contracts.Faults
	if errors.As(err, &faults) {
		for _, f := range faults {
			f.Field = strings.Replace(f.Field, "].schema", "].parameters", 1)
			b.faults = append(b.faults, f)
		}
	}
	return all
}

// unmade is what a tool does that could not be made: no worker starts with it.
func unmade(context.Context, json.RawMessage) (any, error) { return nil, errors.ErrUnsupported }

func (b *builder) unanswered(at, word string) agent.Unanswered {
	switch word {
	case "", "refuse":
	case "make":
		return agent.MakeCall
	default:
		b.fault(at+".unanswered", "must be refuse or make, not %q", word)
	}
	return agent.RefuseCall
}

// path is relative to the file.
func (b *builder) path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(b.dir, p)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// zeros finds the settings that are 0 or below: to the code 0 stands for the
// default, from a person it is a mistake.
func zeros(doc json.RawMessage) contracts.Faults {
	var faults contracts.Faults
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case []any:
			for i, one := range v {
				walk(fmt.Sprintf("%s[%d]", at, i), one)
			}
		case map[string]any:
			for _, name := range slices.Sorted(maps.Keys(v)) {
				field := strings.TrimPrefix(at+"."+name, ".")
				switch n, isNumber := v[name].(float64); {
				case name == "input_schema" || name == "parameters" || name == "params" || name == "request" || name == "env" || name == "headers" || name == "secret_headers" || name == "price":
				case isNumber && n <= 0 && !strings.HasSuffix(field, "worker.drain_timeout_seconds") && !strings.HasSuffix(field, "worker.cancel_grace_seconds"):
					faults = append(faults, contracts.Fault{Field: field, Message: fmt.Sprintf("must be above 0, not %g", n)})
				default:
					walk(field, v[name])
				}
			}
		}
	}
	var v any
	if json.Unmarshal(doc, &v) == nil {
		walk("", v)
	}
	return faults
}
