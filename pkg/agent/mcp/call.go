package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"longhaul/pkg/agent"
	"longhaul/pkg/tracing"
)

// metaKey is where a call's idempotency key is, for servers that look for it.
const metaKey = "longhaul/idempotency-key"

// call calls a tool. again says that it does no harm to call it twice.
func (s *Server) call(ctx context.Context, tool string, args json.RawMessage, again bool) (any, error) {
	params := &sdk.CallToolParams{Name: tool, Arguments: args}
	params.Meta = sdk.Meta{}
	if key := agent.StepKey(ctx); key != "" {
		params.Meta[metaKey] = key
	}
	tracing.Carry(ctx, func(name, value string) { params.Meta[name] = value }) // the protocol's own names
	for try := 1; ; try++ {
		l, err := s.connected(ctx)
		if err != nil {
			return nil, s.failed(ctx, err)
		}
		result, err := l.call(ctx, params)
		var said *answered
		switch {
		case err == nil:
			return s.resultOf(result)
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.As(err, &said):
			return nil, errors.New(s.cfg.hide(said.message))
		}
		var r *refusal
		begun := !notSent(err)
		if errors.As(err, &r) {
			begun = !r.notBegun()
		} else {
			l.end(err)
		}
		if try == maxTries || begun && !again || r != nil && !r.failure().Info.Retriable {
			if begun {
				err = fmt.Errorf("it has not answered, and whether it has done what was asked is not known: %w", err)
			}
			return nil, s.failed(ctx, err)
		}
		if r != nil {
			if err := rest(ctx, max(time.Duration(r.after*float64(time.Second)), firstPause)); err != nil {
				return nil, s.failed(ctx, r)
			}
		}
	}
}

// rest waits for d, unless ctx does not last that long.
func rest(ctx context.Context, d time.Duration) error {
	if deadline, ok := ctx.Deadline(); ok && time.Now().Add(d).After(deadline) {
		return context.DeadlineExceeded
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// answered is an error that the server itself has answered with.
type answered struct{ message string }

func (a *answered) Error() string { return a.message }

// call makes a call over this link.
func (l *link) call(ctx context.Context, params *sdk.CallToolParams) (*sdk.CallToolResult, error) {
	within, done := l.within(ctx)
	defer done()
	result, err := l.session.CallTool(within, params)
	if err == nil {
		return result, nil
	}
	if ctx.Err() != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			l.suspect.Store(true)
		}
		return nil, ctx.Err()
	}
	return nil, l.reason(err)
}

// reason sorts out what a request over this link came to: an answer of the
// server, a refusal, or the link's end.
func (l *link) reason(err error) error {
	var r *refusal
	var wire *jsonrpc.Error
	switch {
	case errors.As(err, &r):
		return r
	case errors.Is(err, sdk.ErrConnectionClosed), errors.Is(err, sdk.ErrSessionMissing), l.life.Err() != nil:
	case errors.As(err, &wire) && !own(wire.Code):
		return &answered{message: wire.Message}
	}
	return l.why(err)
}

// own reports whether the SDK has made up an error itself.
func own(code int64) bool { return code <= -32003 && code >= -32005 }

// notSent reports whether a request has certainly not reached the server.
func notSent(err error) bool {
	var op *net.OpError
	return errors.Is(err, sdk.ErrSessionMissing) || errors.As(err, &op) && op.Op == "dial"
}
