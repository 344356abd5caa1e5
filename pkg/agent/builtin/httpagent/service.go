package httpagent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/builtin/internal/lines"
	"longhaul/pkg/agent/internal/remote"
	"longhaul/pkg/contracts"
	"longhaul/pkg/tracing"
)

// typeTimeout is the type of the error of a service that takes too long in all.
const typeTimeout = "ServiceTimeout"

// service is the agent. It holds no state of a run.
type service struct {
	cfg  Config
	http *http.Client
}

// run is one attempt.
func (s *service) run(ctx context.Context, run *agent.Run) (agent.Result, error) {
	token, err := s.cfg.Token.Read()
	if err != nil {
		return agent.Result{}, fmt.Errorf("token: %w", err) // a file may come back
	}
	result, err := s.ask(ctx, run, token)
	var f *remote.Failure
	if errors.As(err, &f) {
		f.Info.Message = remote.Hide(f.Info.Message, token)
	}
	return result, err
}

func (s *service) ask(ctx context.Context, run *agent.Run, token string) (agent.Result, error) {
	within, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if d := s.cfg.Timeout; d > 0 {
		late := time.AfterFunc(d, func() { stop(remote.Fail(typeTimeout, true, "the service took longer than %v", d)) })
		defer late.Stop()
	}
	idle := time.AfterFunc(s.cfg.IdleTimeout, func() {
		stop(remote.Fail(remote.TypeStalled, true, "the service has sent nothing for %v", s.cfg.IdleTimeout))
	})
	defer idle.Stop()
	req, err := s.request(within, run, token)
	if err != nil {
		return agent.Result{}, err
	}
	res, err := s.http.Do(req)
	if err != nil {
		if within.Err() != nil {
			return agent.Result{}, context.Cause(within)
		}
		return agent.Result{}, remote.Unreachable(err)
	}
	remote.Watch(res, func() { idle.Reset(s.cfg.IdleTimeout) })
	defer func() { _ = res.Body.Close() }()
	result, err := s.answer(within, run, res)
	if err != nil && within.Err() != nil {
		return agent.Result{}, context.Cause(within)
	}
	return result, err
}

// body is what is posted.
type body struct {
	contracts.Input
	State json.RawMessage `json:"state,omitempty"`
}

func (s *service) request(ctx context.Context, run *agent.Run, token string) (*http.Request, error) {
	b := body{Input: run.Submission.Input}
	if state := run.RawState(); len(state) > 0 {
		if !json.Valid(state) {
			return nil, agent.Permanent(errors.New("the checkpoint is no JSON: it was saved by other code"))
		}
		b.State = state
	}
	raw, err := contracts.Encode(b)
	if err != nil {
		return nil, agent.Permanent(fmt.Errorf("encode the input: %w", err))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.URL, bytes.NewReader(raw))
	if err != nil {
		return nil, agent.Permanent(errors.New("the address is none")) // which may hold a secret
	}
	// A connection that was shut meanwhile is not tried again by the transport
	// itself, as it would be with Idempotency-Key among the headers: attempts are the run's.
	req.GetBody = nil
	for name, value := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/x-ndjson, text/event-stream, application/json", "User-Agent": "longhaul",
		"Idempotency-Key": run.ID, "Longhaul-Run-Id": run.ID, "Longhaul-Attempt": strconv.Itoa(run.Attempt),
	} {
		req.Header.Set(name, value)
	}
	for name, value := range s.cfg.Headers {
		req.Header.Set(name, value)
	}
	tracing.Carry(ctx, req.Header.Set)
	switch {
	case token == "":
	case s.cfg.TokenHeader != "":
		req.Header.Set(s.cfg.TokenHeader, token)
	default:
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req, nil
}

// answer makes the result of what is answered.
func (s *service) answer(ctx context.Context, run *agent.Run, res *http.Response) (agent.Result, error) {
	switch {
	case res.StatusCode >= http.StatusBadRequest:
		said, _ := io.ReadAll(res.Body) // whatever there is of it
		return agent.Result{}, remote.Status(res.StatusCode, res.Header, strings.ToValidUTF8(strings.TrimSpace(string(said)), "\uFFFD"))
	case res.StatusCode >= http.StatusMultipleChoices:
		return agent.Result{}, remote.Fail(remote.TypeRefused, false, "status %d: the service is elsewhere, and redirections are not followed", res.StatusCode)
	case res.StatusCode == http.StatusNoContent:
		return agent.Result{}, nil
	}
	in := &capped{r: res.Body, left: s.cfg.MaxResponse, max: s.cfg.MaxResponse}
	events := &stream{sink: lines.Sink{Ctx: ctx, Run: run}}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch kind {
	case "text/event-stream":
		return events.result(events.readSSE(in))
	case "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines":
		return events.result(events.readLines(in))
	case "application/json":
		return whole(in)
	}
	return agent.Result{}, remote.Fail(remote.TypeBadAnswer, false,
		"the service must answer with application/json, application/x-ndjson or text/event-stream, not %.80q", kind)
}

// whole is an answer of JSON.
func whole(in io.Reader) (agent.Result, error) {
	raw, err := io.ReadAll(io.LimitReader(in, lines.Max+1))
	switch {
	case err != nil:
		return agent.Result{}, broken(err)
	case len(raw) > lines.Max:
		return agent.Result{}, remote.Fail(remote.TypeAnswerTooLong, false, "the answer is above %d bytes", lines.Max)
	case !json.Valid(raw):
		return agent.Result{}, remote.Fail(remote.TypeBadAnswer, false, "the answer is no JSON")
	}
	return agent.Result{FinalOutput: json.RawMessage(raw)}, nil
}

// broken is the error of an answer that could not be read to its end.
func broken(err error) error {
	var f *remote.Failure
	if errors.As(err, &f) {
		return f
	}
	return remote.Fail(remote.TypeCutOff, true, "the answer broke off: %v", err)
}

// capped ends with an error where too much comes.
type capped struct {
	r         io.Reader
	left, max int64
}

func (c *capped) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return 0, remote.Fail(remote.TypeAnswerTooLong, false, "the answer is above %d bytes", c.max)
	}
	return n, err
}
