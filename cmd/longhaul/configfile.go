package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"longhaul/internal/shell"
	"longhaul/pkg/agent"
	"longhaul/pkg/agent/builtin/agentfile"
	"longhaul/pkg/agent/mcp"
	"longhaul/services/worker"
)

// configFile is the path of a worker's configuration.
type configFile string

// load reads it. Whatever is wrong with it is a mistake of usage.
func (c configFile) load(log *slog.Logger) (agentfile.File, error) {
	f, err := agentfile.Load(string(c), agentfile.WithLogger(log))
	if err != nil {
		return f, &codedError{code: exitUsage, err: fmt.Errorf("--config:\n%w", err), hint: "see docs/agents.md, A worker's file"}
	}
	return f, nil
}

// fileSettings has a worker's file say what neither a flag nor the environment says.
type fileSettings struct{}

// Validate is asked by the parser.
func (fileSettings) Validate(*kong.Application) error { return nil }

// Resolve is asked by the parser for each flag that is not set.
func (fileSettings) Resolve(ctx *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	node := parent.Node()
	if node == nil || node.Name != "worker" || flag.Name == "config" || shell.InEnvironment(flag) {
		return nil, nil
	}
	for _, f := range parent.Flags {
		if f.Name != "config" {
			continue
		}
		path, _ := ctx.FlagValue(f).(configFile) // also from the environment
		if path == "" {
			return nil, nil
		}
		if file, err := agentfile.Load(string(path)); err == nil { // if not, the command itself says so
			return setting(file.Worker, flag.Name)
		}
	}
	return nil, nil
}

// setting is what a file says in place of the flag, nil if it says nothing.
func setting(s agentfile.Settings, flag string) (any, error) {
	raw, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, err
	}
	value, there := all[strings.ReplaceAll(flag, "-", "_")]
	if !there {
		return nil, nil
	}
	return strings.Trim(string(value), `"`), nil // as if it had been typed
}

// checked says that the configuration is sound. MCP servers are asked for their
// tools, since what is allowed of them may not be there.
func (w *workerCmd) checked(ctx context.Context, a *app, cfg worker.Config, servers []*mcp.Server) error {
	if err := cfg.Check(); err != nil {
		return &codedError{code: exitUsage, err: err, hint: "see longhaul worker --help"}
	}
	var found []string
	for _, s := range servers {
		tools, err := s.Tools(ctx)
		if err != nil {
			return err
		}
		found = append(found, fmt.Sprintf("MCP server %s: %s\n", s.Name(), described(tools)))
	}
	if a.JSON {
		settings, doc := shell.Described(cfg), map[string]any{}
		for i := 0; i < len(settings); i += 2 {
			value := settings[i+1]
			if d, ok := value.(time.Duration); ok {
				value = d.String()
			}
			doc[settings[i].(string)] = value
		}
		return a.printJSON(doc)
	}
	a.out.printf("The configuration is sound. Agents: %s\n%s", strings.Join(shell.KeysOf(cfg.Agents), ", "), strings.Join(found, ""))
	return nil
}

// described names tools, and says how they are called.
func described(tools []agent.Tool) string {
	names := make([]string, len(tools))
	for i, t := range tools {
		names[i] = t.Name
		switch {
		case t.RequiresConfirmation:
			names[i] += " (asks first)"
		case t.SideEffects:
			names[i] += " (side effects)"
		}
	}
	return strings.Join(names, ", ")
}
