package chat

import (
	"context"
	"net/url"

	"github.com/openai/openai-go/v3"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"longhaul/pkg/agent"
	"longhaul/pkg/tracing"
)

// traced is ask with a span, named as OpenTelemetry's conventions for generative
// models have it. Neither what the model is told nor what it says is in it.
func (c *chat) traced(ctx context.Context, run *agent.Run, p Params, tools *agent.Tools, talk *conversation, n int) (turn, error) {
	ctx, span := tracing.In(ctx, trace.SpanKindClient, "chat", p.Model)
	if span.On() {
		span.Set(attribute.String("gen_ai.operation.name", "chat"), attribute.String("gen_ai.provider.name", "openai"),
			attribute.String("gen_ai.request.model", p.Model), attribute.Int("longhaul.turn", n))
		if u, err := url.Parse(c.cfg.BaseURL); err == nil {
			span.Set(attribute.String("server.address", u.Hostname()))
		}
		if p.Temperature != nil {
			span.Set(attribute.Float64("gen_ai.request.temperature", *p.Temperature))
		}
		if p.MaxTokens != nil {
			span.Set(attribute.Int64("gen_ai.request.max_tokens", *p.MaxTokens))
		}
	}
	said, err := c.ask(ctx, run, p, tools, talk, n)
	span.End(err)
	return said, err
}

// answered says on the span of a turn what came of it.
func answered(ctx context.Context, said turn, model string, used openai.CompletionUsage) {
	if span := tracing.Of(ctx); span.On() {
		span.Set(attribute.StringSlice("gen_ai.response.finish_reasons", []string{said.Finish}), attribute.String("gen_ai.response.model", model),
			attribute.Int64("gen_ai.usage.input_tokens", used.PromptTokens), attribute.Int64("gen_ai.usage.output_tokens", used.CompletionTokens))
	}
}
