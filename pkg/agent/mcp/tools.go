package mcp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/internal/remote"
	"longhaul/pkg/agent/schema"
	"longhaul/pkg/contracts"
)

const (
	// maxTools bounds how many tools a server may have, allowed or not.
	maxTools = 1000
	// maxSchema and maxDescription bound what a model is told of one.
	maxSchema      = 64 << 10
	maxDescription = 8 << 10
	// maxToolName is that of agent.Tool.
	maxToolName = 64
	// listFor is how long the list of tools is taken for true.
	listFor = time.Minute
)

// Tools asks the server for its tools and returns those that are allowed, by
// name; what it said within the last minute is not asked again. They go on
// working when the server has been connected to anew. A tool that is allowed
// and that the server does not have is an error; one whose schema cannot be
// checked is left out, with a line in the log.
func (s *Server) Tools(ctx context.Context) ([]agent.Tool, error) {
	if err := s.take(ctx); err != nil {
		return nil, s.failed(ctx, err)
	}
	defer func() { <-s.turn }()
	for again := true; ; again = false {
		l, err := s.connect(ctx)
		if err != nil {
			return nil, s.failed(ctx, err)
		}
		if s.listed != nil && time.Since(s.listedAt) < listFor {
			return slices.Clone(s.listed), nil
		}
		offered, err := s.list(ctx, l)
		switch {
		case err == nil:
			if s.listed, err = s.adopt(offered); err != nil {
				return nil, s.failed(ctx, err)
			}
			s.listedAt = time.Now()
			return slices.Clone(s.listed), nil
		case !again || ctx.Err() != nil:
			return nil, s.failed(ctx, unreachable(err))
		}
		l.end(err) // the server may have forgotten the session
	}
}

// list asks for all pages of the list.
func (s *Server) list(ctx context.Context, l *link) ([]*sdk.Tool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.ConnectTimeout)
	defer cancel()
	within, done := l.within(ctx)
	defer done()
	var all []*sdk.Tool
	params := &sdk.ListToolsParams{}
	for {
		page, err := l.session.ListTools(within, params)
		if err != nil {
			return nil, l.reason(err)
		}
		all = append(all, page.Tools...)
		if len(all) > maxTools {
			return nil, fmt.Errorf("it has more than %d tools", maxTools)
		}
		if page.NextCursor == "" || page.NextCursor == params.Cursor {
			return all, nil
		}
		params.Cursor = page.NextCursor
	}
}

// unreachable is err as the failure of a run, which may go better later.
func unreachable(err error) error {
	var f *remote.Failure
	var r *refusal
	switch {
	case errors.As(err, &f):
		return err
	case errors.As(err, &r):
		return r.failure()
	}
	return remote.Unreachable(err)
}

// adopt makes tools of what the server offers.
func (s *Server) adopt(offered []*sdk.Tool) ([]agent.Tool, error) {
	tools := []agent.Tool{}
	var names []string
	for _, one := range offered {
		names = append(names, one.Name)
		if !s.cfg.allows(one.Name) {
			continue
		}
		tool, err := s.tool(one)
		if err != nil {
			s.cfg.Log.Warn("a tool of the mcp server is left out", "tool", contracts.Shorten(one.Name, maxToolName), "error", err)
			continue
		}
		tools = append(tools, tool)
	}
	slices.Sort(names)
	for _, name := range s.cfg.Allow {
		if _, there := slices.BinarySearch(names, name); !there {
			return nil, fmt.Errorf("it has no tool %q, which is allowed; it has %s", name, contracts.Shorten(strings.Join(names, ", "), 1<<10))
		}
	}
	slices.SortFunc(tools, func(a, b agent.Tool) int { return strings.Compare(a.Name, b.Name) })
	return tools, nil
}

// tool makes one of them.
func (s *Server) tool(one *sdk.Tool) (agent.Tool, error) {
	args, err := json.Marshal(one.InputSchema)
	switch {
	case err != nil:
		return agent.Tool{}, err
	case len(args) > maxSchema:
		return agent.Tool{}, fmt.Errorf("its schema has %d bytes, above %d", len(args), maxSchema)
	}
	if _, err := schema.Compile(args); err != nil {
		return agent.Tool{}, fmt.Errorf("its schema: %w", err)
	}
	cfg, said := s.cfg.tool(one.Name), one.Annotations
	if said == nil {
		said = &sdk.ToolAnnotations{}
	}
	effects := !said.ReadOnlyHint
	if cfg.SideEffects != nil {
		effects = *cfg.SideEffects
	}
	// The protocol has destructive as the default of a tool that says nothing. To
	// ask a person by default would have every run wait that nobody watches.
	ask := effects && said.DestructiveHint != nil && *said.DestructiveHint
	if cfg.RequiresConfirmation != nil {
		ask = *cfg.RequiresConfirmation
	}
	again := !effects || said.IdempotentHint
	return agent.Tool{
		Name: ToolName(s.cfg.Name, one.Name), Description: contracts.Shorten(one.Description, maxDescription), Schema: args,
		Timeout: cfg.Timeout, SideEffects: effects, RequiresConfirmation: ask, ConfirmWithin: cfg.ConfirmWithin, Unanswered: cfg.Unanswered,
		Do: func(ctx context.Context, args json.RawMessage) (any, error) {
			return s.call(ctx, one.Name, args, again)
		},
	}, nil
}

// ToolName is the name by which a model knows a server's tool: server__tool. What
// models' names do not admit is replaced, what is too long is cut, and then
// the end tells names apart.
func ToolName(server, tool string) string {
	plain := strings.Map(func(r rune) rune {
		if r < 128 && (r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z') {
			return r
		}
		return '_'
	}, tool)
	name := server + "__" + plain
	if plain == tool && len(name) <= maxToolName {
		return name
	}
	sum := sha256.Sum256([]byte(tool))
	end := "_" + hex.EncodeToString(sum[:4])
	return name[:min(len(name), maxToolName-len(end))] + end
}
