// Package httpagent is an agent that has a service do the work: it posts the
// run's input to an address, and takes what is answered as the result, or as
// the events of the run as they come.
package httpagent

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/internal/remote"
	"longhaul/pkg/agent/schema"
	"longhaul/pkg/contracts"
)

// Config says which service is asked, and how. It belongs to the worker's
// configuration; no part of it ever comes from a submission. Key and URL are required.
type Config struct {
	// Key is the agent's key.
	Key string
	// Description is shown to people; empty names the service's host.
	Description string
	// URL is where the input is posted to.
	URL string
	// Token says where the service's token is, if it wants one.
	Token Secret
	// TokenHeader is the header that the token is sent in as it is; empty is
	// Authorization, where it is a bearer token.
	TokenHeader string
	// Headers are added to each request. They are no place for secrets.
	Headers map[string]string
	// Timeout is how long an answer may take to its end, within the run's own
	// time; zero is as long as that.
	Timeout time.Duration
	// IdleTimeout is how long the service may send nothing; default 2 min.
	IdleTimeout time.Duration
	// MaxResponse is how much the service may answer, in bytes; default 64 MiB.
	// An answer of JSON, and each event, has to fit into 512 KiB.
	MaxResponse int64
	// InputSchema is a JSON Schema of input.params, if there is one.
	InputSchema json.RawMessage
}

// Secret says where a secret is: in a variable of the environment (Env) or in a
// file (File), which is read at every use.
type Secret = remote.Secret

// New returns an agent that posts to a service, once per attempt.
//
// The body is the run's input, {"messages": …, "params": …}, with "state" beside
// them if there is a checkpoint. The headers Longhaul-Run-Id and
// Longhaul-Attempt say who asks, and Idempotency-Key, the run's id, is the same
// in each attempt: a service that is asked again is to do nothing twice.
//
// What it answers with a status of 2xx decides, by its type: application/json
// is the final output. Of application/x-ndjson each line is an event as a
// program has them, {"type": …, "payload": …}; so is each event of
// text/event-stream, by its data, or by its name and its data as the payload.
// The type "result" ends it, and is the final output; "checkpoint" saves a
// state. An answer that ends without a result is an error: the last event of
// type "error" if there was one, else one that is tried again.
func New(cfg Config) (agent.Agent, error) {
	cfg.IdleTimeout = cmp.Or(cfg.IdleTimeout, 2*time.Minute)
	cfg.MaxResponse = cmp.Or(cfg.MaxResponse, 64<<20)
	if faults := cfg.check(); len(faults) > 0 {
		return agent.Agent{}, fmt.Errorf("http agent %s: %w", cfg.Key, faults)
	}
	if at, err := url.Parse(cfg.URL); err == nil {
		cfg.Description = cmp.Or(cfg.Description, "asks "+at.Host)
	}
	s := &service{cfg: cfg, http: &http.Client{
		Transport: http.DefaultTransport.(*http.Transport).Clone(),
		// Where a service sends us, our token does not go: it is not followed.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	return agent.Agent{Key: cfg.Key, Description: cfg.Description, InputSchema: cfg.InputSchema, Run: s.run, OnError: remote.Classify}, nil
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
	if err := remote.CheckURL(cfg.URL); err != nil {
		fault(true, "url", "%v", err)
	}
	if _, err := cfg.Token.Read(); err != nil {
		fault(true, "token", "%v", err)
	}
	for field, d := range map[string]time.Duration{"timeout": cfg.Timeout, "idle_timeout": cfg.IdleTimeout, "max_response": time.Duration(cfg.MaxResponse)} {
		fault(d < 0, field, "must not be negative")
	}
	if _, err := schema.Compile(cfg.InputSchema); err != nil {
		fault(true, "input_schema", "%v", err)
	}
	slices.SortStableFunc(faults, func(a, b contracts.Fault) int { return cmp.Compare(a.Field, b.Field) })
	return faults
}
