package tracing

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
)

// lostTimeout bounds the look for the beginning of an attempt that was lost.
const lostTimeout = 2 * time.Second

// about is what spans say of a run.
func about(runID, agentKey string) trace.SpanStartOption {
	return trace.WithAttributes(attribute.String("longhaul.run_id", runID), attribute.String("longhaul.agent_key", agentKey))
}

// Submit begins the span of a submission, within the one that ctx has, if any.
// The headers are for its message: what the run's spans are to be a part of.
// Without a Tracer, there is a span if ctx has one.
func (t *Tracer) Submit(ctx context.Context, s contracts.Submission) (nats.Header, Span) {
	var span Span
	ctx = Under(ctx, s.Traceparent, s.Tracestate)
	if t == nil {
		ctx, span = In(ctx, trace.SpanKindProducer, "send", contracts.SubjectSubmit)
	} else {
		ctx, span = t.start(context.WithValue(ctx, knownKey{}, known{run: s.RunID}), "send "+contracts.SubjectSubmit, trace.WithSpanKind(trace.SpanKindProducer))
	}
	if span.On() {
		span.Set(attribute.String("longhaul.run_id", s.RunID), attribute.String("longhaul.agent_key", s.AgentKey),
			attribute.String("messaging.system", "nats"), attribute.String("messaging.destination.name", contracts.SubjectSubmit),
			attribute.String("messaging.operation.type", "send"))
	}
	var h nats.Header
	Carry(ctx, func(name, value string) {
		if h == nil {
			h = nats.Header{}
		}
		h[name] = []string{value}
	})
	return h, span
}

// Dispatch takes what a submission is a part of from its message, by a stranger,
// and begins the span of taking it in. What the run's spans are a part of then
// stands in s, and nothing that is not well formed. The function ends the span;
// it is nil if there is none.
func (t *Tracer) Dispatch(h nats.Header, s *contracts.Submission) func(error) {
	if parent := h.Get(contracts.HeaderTraceparent); wellFormed(parent) {
		s.Traceparent, s.Tracestate = parent, ""
		if states := h.Values(contracts.HeaderTracestate); len(states) > 0 { // several are one that was cut
			s.Tracestate = wellNoted(strings.Join(states, ","))
		}
	} else if s.Tracestate = wellNoted(s.Tracestate); !wellFormed(s.Traceparent) {
		s.Traceparent, s.Tracestate = "", ""
	}
	if t == nil {
		return nil
	}
	ctx := Under(context.WithValue(context.Background(), knownKey{}, known{run: s.RunID}), s.Traceparent, s.Tracestate)
	ctx, span := t.start(ctx, "process "+contracts.SubjectSubmit, trace.WithSpanKind(trace.SpanKindConsumer), about(s.RunID, s.AgentKey),
		trace.WithAttributes(attribute.String("messaging.system", "nats"), attribute.String("messaging.destination.name", contracts.SubjectSubmit),
			attribute.String("messaging.operation.type", "process")))
	s.Traceparent, s.Tracestate = Traceparent(ctx), tracestate(ctx)
	if !span.On() {
		return nil
	}
	return span.End
}

// Start is what the span of an attempt says.
type Start struct {
	Submission *contracts.Submission
	// Head is that of the attempt's run.started.
	Head contracts.Head
	// TookOver says that the attempt before it was lost with its worker. Its span
	// is then made as well, from what Log has of it.
	TookOver bool
	Log      *runlog.Log
}

// Attempt begins the span of an attempt, which is then ctx's.
func (t *Tracer) Attempt(ctx context.Context, s Start) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	at, span := t.attempt(ctx, s, s.Head.Epoch, s.Head.Attempt, s.Head.WorkerID, time.Time{})
	if span.On() && s.TookOver {
		t.lost(ctx, s)
	}
	return at, span
}

func (t *Tracer) attempt(ctx context.Context, s Start, epoch uint64, attempt int, worker string, at time.Time) (context.Context, Span) {
	ctx = Under(context.WithValue(ctx, knownKey{}, known{s.Submission.RunID, epoch}), s.Submission.Traceparent, s.Submission.Tracestate)
	opts := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer), about(s.Submission.RunID, s.Head.AgentKey), trace.WithAttributes(
		attribute.String("gen_ai.operation.name", "invoke_agent"), attribute.String("gen_ai.agent.name", s.Head.AgentKey),
		attribute.Int("longhaul.attempt", attempt), attribute.Int64("longhaul.epoch", int64(epoch)), attribute.String("longhaul.worker_id", worker))}
	if c := s.Submission.ConversationID; c != "" {
		opts = append(opts, trace.WithAttributes(attribute.String("gen_ai.conversation.id", c)))
	}
	if !at.IsZero() {
		opts = append(opts, trace.WithTimestamp(at))
	}
	ctx, span := t.start(ctx, "invoke_agent "+s.Head.AgentKey, opts...)
	return context.WithValue(ctx, knownKey{}, nil), span // what is below it has ids of its own
}

// lost makes the span of the attempt before this one, which its worker could not.
func (t *Tracer) lost(ctx context.Context, s Start) {
	within, cancel := context.WithTimeout(ctx, lostTimeout)
	defer cancel()
	var first, last contracts.Event
	for e, err := range s.Log.Read(within, s.Submission.RunID, 1) {
		if err != nil || e.Epoch >= s.Head.Epoch {
			break
		}
		if e.Type == contracts.TypeStarted {
			first = e.Event
		}
		last = e.Event
	}
	if first.Epoch != s.Head.Epoch-1 {
		return // its beginning could not be read
	}
	if _, span := t.attempt(ctx, s, first.Epoch, first.Attempt, first.WorkerID, first.Time); span.On() {
		span.Outcome("lost")
		span.fail("its worker was lost; ended with the last event that it wrote")
		span.span.End(trace.WithTimestamp(last.Time))
	}
}

// EndAttempt ends the span of an attempt. outcome is a status, or what became of
// it without one; text is the error's, "" without one.
func (s Span) EndAttempt(outcome, text string) {
	if s.span == nil {
		return
	}
	s.Outcome(outcome)
	if text != "" {
		s.End(errors.New(text))
		return
	}
	s.End(nil)
}
