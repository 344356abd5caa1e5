package chat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/packages/ssestream"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/internal/remote"
	"longhaul/pkg/contracts"
)

// newHTTPClient makes a client of the agent's own: what others do to the
// process's default one is not ours.
func newHTTPClient() *http.Client {
	return &http.Client{
		Transport: http.DefaultTransport.(*http.Transport).Clone(),
		// Where an endpoint sends us, neither our key nor the conversation goes.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask has the model make its n-th turn. What it streams is emitted as it comes,
// the whole message when it is there.
func (c *chat) ask(ctx context.Context, run *agent.Run, p Params, tools *agent.Tools, talk *conversation, n int) (turn, error) {
	key, err := c.cfg.APIKey.Read()
	if err != nil {
		return turn{}, fmt.Errorf("api_key: %w", err) // a file may come back
	}
	within, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	idle := time.AfterFunc(c.cfg.IdleTimeout, func() {
		stop(remote.Fail(remote.TypeStalled, true, "the endpoint has sent nothing for %v", c.cfg.IdleTimeout))
	})
	defer idle.Stop()

	var response *http.Response
	options := append(c.options(key), option.WithResponseInto(&response), option.WithMiddleware(func(r *http.Request, next option.MiddlewareNext) (*http.Response, error) {
		res, err := next(r)
		if err == nil {
			remote.Watch(res, func() { idle.Reset(c.cfg.IdleTimeout) })
		}
		return res, err
	}))
	service := openai.NewChatCompletionService() // nothing of the process's environment
	stream := service.NewStreaming(within, c.request(p, tools, talk), options...)
	defer func() { _ = stream.Close() }()
	a := &answer{run: run, whole: talk.name != ""}
	for stream.Next() {
		if err := a.add(stream.Current()); err != nil {
			return turn{}, err
		}
	}
	if err := failure(ctx, within, response, stream.Err(), a.finish != ""); err != nil {
		var f *remote.Failure
		if errors.As(err, &f) {
			f.Info.Message = remote.Hide(f.Info.Message, key)
		}
		return turn{}, err
	}
	said := a.turn()
	answered(ctx, said, a.model, a.usage)
	talk.nameCalls(said.Message.ToolCalls, n)
	run.AddUsage(c.cfg.Price.usage(a.usage))
	return said, run.Message(said.Message)
}

func (p Price) usage(u openai.CompletionUsage) agent.Usage {
	input, output := uint64(max(u.PromptTokens, 0)), uint64(max(u.CompletionTokens, 0))
	return agent.Usage{InputTokens: input, OutputTokens: output, Cost: (float64(input)*p.Input + float64(output)*p.Output) / 1e6}
}

// options are how each request is made. There are no retries: the next attempt
// is the run's, and holds no worker while it waits.
func (c *chat) options(key string) []option.RequestOption {
	options := []option.RequestOption{
		option.WithBaseURL(c.cfg.BaseURL), option.WithHTTPClient(c.http), option.WithMaxRetries(0),
		option.WithJSONSet("stream_options.include_usage", true),
	}
	switch {
	case key == "":
	case c.cfg.APIKeyHeader != "":
		options = append(options, option.WithHeader(c.cfg.APIKeyHeader, key))
	default:
		options = append(options, option.WithAPIKey(key))
	}
	for name, value := range c.cfg.Headers {
		options = append(options, option.WithHeader(name, value))
	}
	for name, value := range c.cfg.Request {
		options = append(options, option.WithJSONSet(strings.ReplaceAll(name, ".", `\.`), value))
	}
	return options
}

// request is the body. Messages and tools go as they are: they are in the form
// of the protocol already.
func (c *chat) request(p Params, tools *agent.Tools, talk *conversation) openai.ChatCompletionNewParams {
	body := openai.ChatCompletionNewParams{Model: p.Model, Stop: openai.ChatCompletionNewParamsStopUnion{OfStringArray: p.Stop}}
	if c.cfg.System != "" {
		body.Messages = append(body.Messages, openai.SystemMessage(c.cfg.System))
	}
	for _, m := range talk.messages {
		if m.Content == nil {
			m.Content = json.RawMessage("null") // which some endpoints insist on
		}
		body.Messages = append(body.Messages, param.Override[openai.ChatCompletionMessageParamUnion](m))
	}
	for _, d := range tools.Definitions() {
		body.Tools = append(body.Tools, param.Override[openai.ChatCompletionToolUnionParam](d))
	}
	if p.Temperature != nil {
		body.Temperature = openai.Float(*p.Temperature)
	}
	if p.TopP != nil {
		body.TopP = openai.Float(*p.TopP)
	}
	if p.Seed != nil {
		body.Seed = openai.Int(*p.Seed)
	}
	switch { // OpenAI's newer models refuse the name that everybody else knows
	case p.MaxTokens == nil:
	case c.cfg.BaseURL == defaultBaseURL:
		body.MaxCompletionTokens = openai.Int(*p.MaxTokens)
	default:
		body.MaxTokens = openai.Int(*p.MaxTokens)
	}
	return body
}

// failure says why there is no whole answer, nil if there is one. finished says
// that the model has come to an end.
func failure(ctx, within context.Context, response *http.Response, err error, finished bool) error {
	var refused *openai.Error
	var inStream *ssestream.StreamError
	switch {
	case err == nil && finished:
		return nil // whatever is left out behind it, such as [DONE]
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case finished && !errors.As(err, &inStream):
		return nil // it broke off, or stalled, behind the model's end: to ask again would be to pay again
	case within.Err() != nil:
		return context.Cause(within)
	case errors.As(err, &refused) && refused.Message != "":
		return remote.Status(refused.StatusCode, refused.Response.Header, refused.Message)
	case response != nil && response.StatusCode >= http.StatusBadRequest: // and a body that is none of the protocol's
		body, _ := io.ReadAll(response.Body) // which the client has read, and keeps
		return remote.Status(response.StatusCode, response.Header, strings.ToValidUTF8(string(body), "\uFFFD"))
	case response != nil && response.StatusCode >= http.StatusMultipleChoices:
		return remote.Fail(remote.TypeRefused, false, "status %d: the endpoint is elsewhere, and redirections are not followed", response.StatusCode)
	case errors.As(err, &inStream):
		return streamFailure(inStream.Event.Data)
	case response == nil:
		return remote.Unreachable(err)
	case err == nil:
		return remote.Fail(remote.TypeCutOff, true, "the stream ended before the model did")
	}
	return remote.Fail(remote.TypeCutOff, true, "the stream broke off: %v", err)
}

// streamFailure is an error that the endpoint sent as a part of the stream. It
// passes, unless it says otherwise.
func streamFailure(data []byte) error {
	var said struct {
		Error struct {
			Message string          `json:"message"`
			Type    string          `json:"type"`
			Code    json.RawMessage `json:"code"` // a status, with some
		} `json:"error"`
	}
	if json.Unmarshal(data, &said) != nil {
		return remote.Fail(remote.TypeUnavailable, true, "error in the stream: %s", contracts.Shorten(string(data), 1<<10))
	}
	var status int
	if json.Unmarshal(said.Error.Code, &status) == nil && status >= http.StatusBadRequest {
		return remote.Status(status, nil, said.Error.Message)
	}
	if said.Error.Type == "invalid_request_error" {
		return remote.Fail(remote.TypeRefused, false, "error in the stream: %s", said.Error.Message)
	}
	return remote.Fail(remote.TypeUnavailable, true, "error in the stream: %s", contracts.Shorten(said.Error.Message, 4<<10))
}
