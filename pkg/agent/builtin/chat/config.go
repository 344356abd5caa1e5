// Package chat is an agent that lets a model work: it sends the run's messages
// to any endpoint that speaks the OpenAI chat completions protocol, streams the
// answer, makes the calls of tools that the model asks for, and goes on until
// the model has nothing more to ask. Model does the same as a part of an agent of
// one's own.
//
// Each turn of the model and each call of a tool is a step of the run
// (agent.Step). What is in the log is never paid for again: not after an error
// of the provider, a crash, a takeover or a redrive.
package chat

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/internal/remote"
	"longhaul/pkg/agent/schema"
	"longhaul/pkg/contracts"
)

// Config is what a chat agent is made of. Key and Model are required.
type Config struct {
	// Key is the agent's key.
	Key string
	// Description is shown to people; empty names the model.
	Description string

	// Model is the model that is asked.
	Model string
	// Models are others that a submission may ask for by params.model.
	Models []string
	// BaseURL is the endpoint up to and without /chat/completions; empty is OpenAI's own.
	BaseURL string
	// APIKey says where the endpoint's key is; an endpoint of one's own may need none.
	APIKey Secret
	// APIKeyHeader is the header that the key is sent in as it is; empty is
	// Authorization, where it is a bearer token.
	APIKeyHeader string
	// Headers are added to each request. They are no place for secrets.
	Headers map[string]string

	// System is the first message of each conversation, if it is set. It is not
	// among the final messages.
	System string
	// Tools are what the model may call; nil for none.
	Tools *agent.Tools
	// MoreTools is asked for others at the beginning of each attempt, such as
	// mcp.Server's Tools. Its error fails the attempt.
	MoreTools func(ctx context.Context) ([]agent.Tool, error)
	// ParallelTools is how many calls of one answer are made at a time; 0 is as
	// Tools has it (agent.Tools.Parallel).
	ParallelTools int
	// MaxTurns is how often the model is asked in a run at most; default 20.
	MaxTurns int
	// Params are what holds where a submission's params do not say.
	Params Params
	// Request is further fields of the request, as the endpoint knows them, such
	// as response_format or reasoning_effort. They win over everything else.
	Request map[string]json.RawMessage

	// IdleTimeout is how long the endpoint may send nothing; default 2 min.
	IdleTimeout time.Duration
	// Price makes costs out of tokens; the zero value counts none.
	Price Price
	// InputSchema replaces the schema of the params, which admits Params alone.
	// What Params does not have stays without effect.
	InputSchema json.RawMessage
}

// Secret says where a secret is: in a variable of the environment (Env) or in a
// file (File), which is read at every use.
type Secret = remote.Secret

// Price is what a million tokens cost, in a currency of one's own.
type Price struct {
	Input, Output float64
}

// Params are what a submission may say in its params, all of it optional.
type Params struct {
	Model       string   `json:"model,omitempty"`
	Temperature *float64 `json:"temperature,omitempty"`
	TopP        *float64 `json:"top_p,omitempty"`
	// MaxTokens bounds each answer, not the run.
	MaxTokens *int64   `json:"max_tokens,omitempty"`
	Seed      *int64   `json:"seed,omitempty"`
	Stop      []string `json:"stop,omitempty"`
	MaxTurns  *int     `json:"max_turns,omitempty"`
}

const (
	defaultBaseURL  = "https://api.openai.com/v1"
	defaultMaxTurns = 20
	defaultIdle     = 2 * time.Minute
	// mostTurns keeps a run's log within reason.
	mostTurns = 1000
)

// New returns a chat agent. Its error lists every fault of the configuration,
// each as a contracts.Fault.
func New(cfg Config) (agent.Agent, error) {
	c, err := build(cfg)
	if err != nil {
		return agent.Agent{}, fmt.Errorf("chat agent %s: %w", cfg.Key, err)
	}
	return agent.Agent{Key: cfg.Key, Description: c.cfg.Description, InputSchema: c.cfg.InputSchema, Run: c.run, OnError: OnError}, nil
}

// build fills in what cfg leaves out, and checks it.
func build(cfg Config) (chat, error) {
	cfg.BaseURL = cmp.Or(cfg.BaseURL, defaultBaseURL)
	cfg.MaxTurns = cmp.Or(cfg.MaxTurns, defaultMaxTurns)
	cfg.IdleTimeout = cmp.Or(cfg.IdleTimeout, defaultIdle)
	cfg.Description = cmp.Or(cfg.Description, "lets "+cfg.Model+" answer")
	if len(cfg.InputSchema) == 0 {
		cfg.InputSchema = cfg.schema()
	}
	if faults := cfg.check(); len(faults) > 0 {
		return chat{}, faults
	}
	return chat{cfg: cfg, http: newHTTPClient()}, nil
}

func (cfg Config) check() contracts.Faults {
	var faults contracts.Faults
	fault := func(bad bool, field, format string, args ...any) {
		if bad {
			faults = append(faults, contracts.Fault{Field: field, Message: fmt.Sprintf(format, args...)})
		}
	}
	if err := contracts.CheckAgentKey(cfg.Key); err != nil {
		fault(true, "key", "%v", err)
	}
	fault(cfg.Model == "", "model", "must name a model")
	if err := remote.CheckURL(cfg.BaseURL); err != nil {
		fault(true, "base_url", "%v", err)
	}
	if _, err := cfg.APIKey.Read(); err != nil {
		fault(true, "api_key", "%v", err)
	}
	fault(cfg.MaxTurns < 1 || cfg.MaxTurns > mostTurns, "max_turns", "must be 1 to %d, not %d", mostTurns, cfg.MaxTurns)
	fault(cfg.ParallelTools < 0, "parallel_tools", "must not be negative, not %d", cfg.ParallelTools)
	fault(cfg.IdleTimeout < 0, "idle_timeout", "must not be negative, not %v", cfg.IdleTimeout)
	for field, price := range map[string]float64{"price.input": cfg.Price.Input, "price.output": cfg.Price.Output} {
		fault(!(price >= 0) || math.IsInf(price, 0), field, "must be a number from 0 up, not %v", price)
	}
	for _, field := range []string{"messages", "model", "stream", "tools", "n"} {
		_, there := cfg.Request[field]
		fault(there, "request."+field, "is the agent's own to say")
	}
	if own, err := schema.Compile(cfg.schema()); err == nil { // the same bounds as for anybody's
		if raw, err := contracts.Encode(cfg.Params); err == nil {
			faults = append(faults, own.Check(raw, "params")...)
		}
	}
	if _, err := schema.Compile(cfg.InputSchema); err != nil {
		fault(true, "input_schema", "%v", err)
	}
	slices.SortStableFunc(faults, func(a, b contracts.Fault) int { return cmp.Compare(a.Field, b.Field) })
	return faults
}

// schema is the JSON Schema of Params, with bounds.
func (cfg Config) schema() json.RawMessage {
	type object = map[string]any
	models := append([]string{cfg.Model}, cfg.Models...)
	raw, _ := contracts.Encode(object{ // which always encodes
		"type": "object",
		"properties": object{
			"model":       object{"type": "string", "enum": models},
			"temperature": object{"type": "number", "minimum": 0, "maximum": 2},
			"top_p":       object{"type": "number", "minimum": 0, "maximum": 1},
			"max_tokens":  object{"type": "integer", "minimum": 1, "description": "bounds each answer"},
			"seed":        object{"type": "integer"},
			"stop":        object{"type": "array", "items": object{"type": "string"}, "maxItems": 4},
			"max_turns":   object{"type": "integer", "minimum": 1, "maximum": cfg.MaxTurns},
		},
		"additionalProperties": false,
	})
	return raw
}

// params is what the run says, on top of what is configured.
func (cfg Config) params(run *agent.Run) (Params, error) {
	p := cfg.Params
	p.Model, p.Stop = cmp.Or(p.Model, cfg.Model), slices.Clone(p.Stop) // decoded into, below
	p.Temperature, p.TopP, p.MaxTokens, p.Seed = clone(p.Temperature), clone(p.TopP), clone(p.MaxTokens), clone(p.Seed)
	p.MaxTurns = or(p.MaxTurns, cfg.MaxTurns)
	// An input schema of one's own may admit more than there is here.
	if raw := run.Submission.Input.Params; len(raw) > 0 {
		if err := json.Unmarshal(raw, &p); err != nil {
			return p, agent.Permanent(fmt.Errorf("params: %w", err))
		}
	}
	return p, nil
}

// or is a copy of *p, or v.
func or[T any](p *T, v T) *T {
	if p == nil {
		return &v
	}
	return clone(p)
}

func clone[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}
