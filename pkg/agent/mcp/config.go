package mcp

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/internal/program"
	"longhaul/pkg/agent/internal/remote"
	"longhaul/pkg/contracts"
)

// Config is a server: a program that is run (Command), or a service that is
// called (URL). No part of it ever comes from a submission.
type Config struct {
	// Name is the server's name among others: 1 to 32 of a-z, 0-9 and -. Its tools
	// are called name__tool.
	Name string

	// Command is the program and its arguments, which speaks MCP on stdin and
	// stdout. No shell reads it. It is started when it is first needed.
	Command []string
	// Dir is the program's working directory; empty is the worker's.
	Dir string
	// PassEnv are the variables of the worker's environment that the program
	// gets, by name, or by the beginning of it with a * behind. Nil is what most
	// programs need (builtin.PlainEnv). LONGHAUL_* is never passed on.
	PassEnv []string
	// Env is added to them, each as NAME=value.
	Env []string
	// Limits are the system's, for the program and each of its children.
	Limits Limits
	// Grace is how long the program has to end when its stdin is closed, and
	// again between SIGTERM and SIGKILL; 2 s unless set.
	Grace time.Duration

	// URL is the service's address, of the streamable HTTP transport.
	URL string
	// Token says where the service's token is, if it wants one.
	Token Secret
	// TokenHeader is the header that the token is sent in as it is; empty is
	// Authorization, where it is a bearer token.
	TokenHeader string
	// Headers are added to each request. They are no place for secrets.
	Headers map[string]string
	// SecretHeaders are headers whose values are secrets.
	SecretHeaders map[string]Secret

	// Allow names the tools that may be called, as the server has them; nil is all of them.
	Allow []string
	// Default is how tools are called, Tools the same for single ones, by the
	// name that the server has for them; what it leaves unset is as in Default.
	Default ToolConfig
	Tools   map[string]ToolConfig

	// ConnectTimeout bounds starting the program, or reaching the service, and
	// the greetings; 30 s unless set.
	ConnectTimeout time.Duration
	// ProtocolVersion is the version of MCP to ask for; the newest unless set.
	ProtocolVersion string
	// Log is where the server's own words on stderr go, and what becomes of it;
	// nil is nowhere.
	Log *slog.Logger
}

// ToolConfig is how a tool is called. See agent.Tool for its fields.
type ToolConfig struct {
	// SideEffects says whether calls have effects that are not to be repeated.
	// Nil is what the server says: yes, unless it calls the tool read-only.
	SideEffects *bool
	// RequiresConfirmation says whether calls wait for somebody's word. Nil is
	// what the server says: no, unless it calls the tool destructive in so many words.
	RequiresConfirmation *bool
	ConfirmWithin        time.Duration
	Unanswered           agent.Unanswered
	Timeout              time.Duration
}

// Secret says where a secret is: in a variable of the environment (Env) or in a
// file (File), which is read at every use.
type Secret = remote.Secret

// Limits are bounds that the system puts on each process of a program.
type Limits = program.Limits

const (
	defaultGrace   = 2 * time.Second
	defaultConnect = 30 * time.Second
	maxServerName  = 32
)

func (cfg Config) withDefaults() Config {
	cfg.Grace = cmp.Or(cfg.Grace, defaultGrace)
	cfg.ConnectTimeout = cmp.Or(cfg.ConnectTimeout, defaultConnect)
	if cfg.PassEnv == nil {
		cfg.PassEnv = program.PlainEnv()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Log = cfg.Log.With("mcp_server", cfg.Name)
	return cfg
}

func (cfg Config) program() program.Spec {
	return program.Spec{Command: cfg.Command, Dir: cfg.Dir, PassEnv: cfg.PassEnv, Env: cfg.Env, Limits: cfg.Limits}
}

func (cfg Config) check() contracts.Faults {
	var faults contracts.Faults
	fault := func(bad bool, field, format string, args ...any) {
		if bad {
			faults = append(faults, contracts.Fault{Field: field, Message: fmt.Sprintf(format, args...)})
		}
	}
	fault(!isServerName(cfg.Name), "name", "must be 1 to %d of a-z, 0-9 and -, not %q", maxServerName, cfg.Name)
	switch {
	case (len(cfg.Command) > 0) == (cfg.URL != ""):
		fault(true, "", "must have exactly one of command and url")
	case cfg.URL == "":
		faults = append(faults, cfg.program().Check()...)
	default:
		err := remote.CheckURL(cfg.URL)
		fault(err != nil, "url", "%v", err)
	}
	_, err := cfg.Token.Read()
	fault(err != nil, "token", "%v", err)
	for _, name := range slices.Sorted(maps.Keys(cfg.SecretHeaders)) {
		value, err := cfg.SecretHeaders[name].Read()
		fault(err != nil, "secret_headers."+name, "%v", err)
		fault(err == nil && value == "", "secret_headers."+name, "must name env or file")
		fault(!isHeader(name), "secret_headers."+name, "is no name of a header")
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Headers)) {
		fault(!isHeader(name), "headers."+name, "is no name of a header")
	}
	fault(cfg.Allow != nil && len(cfg.Allow) == 0, "allow", "must name a tool, or be left out to allow all")
	for _, name := range slices.Sorted(maps.Keys(cfg.Tools)) {
		fault(!cfg.allows(name), "tools."+name, "is not among those that are allowed")
	}
	for field, d := range map[string]time.Duration{"grace": cfg.Grace, "connect_timeout": cfg.ConnectTimeout} {
		fault(d < 0, field, "must not be negative, not %v", d)
	}
	slices.SortStableFunc(faults, func(a, b contracts.Fault) int { return cmp.Compare(a.Field, b.Field) })
	return faults
}

func isServerName(s string) bool {
	return s != "" && len(s) <= maxServerName && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func isHeader(s string) bool {
	const marks = "!#$%&'*+-.^_`|~"
	return s != "" && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789"+marks) == ""
}

// allows reports whether a tool may be called.
func (cfg Config) allows(tool string) bool {
	return cfg.Allow == nil || slices.Contains(cfg.Allow, tool)
}

// tool is how a tool is called.
func (cfg Config) tool(name string) ToolConfig {
	one, all := cfg.Tools[name], cfg.Default
	return ToolConfig{
		SideEffects: cmp.Or(one.SideEffects, all.SideEffects), RequiresConfirmation: cmp.Or(one.RequiresConfirmation, all.RequiresConfirmation),
		ConfirmWithin: cmp.Or(one.ConfirmWithin, all.ConfirmWithin), Unanswered: cmp.Or(one.Unanswered, all.Unanswered),
		Timeout: cmp.Or(one.Timeout, all.Timeout),
	}
}

// headers are those of each request. They are read anew, so that a secret in a
// file may be exchanged.
func (cfg Config) headers() (http.Header, error) {
	all := http.Header{}
	for name, value := range cfg.Headers {
		all.Set(name, value)
	}
	for name, secret := range cfg.SecretHeaders {
		value, err := secret.Read()
		if err != nil {
			return nil, fmt.Errorf("secret_headers.%s: %w", name, err)
		}
		all.Set(name, value)
	}
	switch token, err := cfg.Token.Read(); {
	case err != nil:
		return nil, fmt.Errorf("token: %w", err)
	case token == "":
	case cfg.TokenHeader != "":
		all.Set(cfg.TokenHeader, token)
	default:
		all.Set("Authorization", "Bearer "+token)
	}
	return all, nil
}

// hide takes out of text what is secret: services quote what they were sent.
func (cfg Config) hide(text string) string {
	for _, secret := range append(slices.Collect(maps.Values(cfg.SecretHeaders)), cfg.Token) {
		if value, err := secret.Read(); err == nil {
			text = remote.Hide(text, value)
		}
	}
	return text
}
