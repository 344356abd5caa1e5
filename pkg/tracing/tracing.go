// Package tracing makes the spans of a run, for OpenTelemetry: its submission,
// how it was taken in, each attempt, and in an attempt its steps, its calls of
// tools and of models. All spans of a run are one trace, whichever process
// makes them: what they are a part of (a W3C traceparent) goes with the
// submission, into the run's log, and is there for every later attempt.
//
// It is off unless a service, or a client, is given a Tracer. Then nothing is
// made, and nothing allocated. What is in a run, such as messages and
// arguments, is in no span.
package tracing

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"longhaul/pkg/contracts"
)

// scope names what makes the spans.
const scope = "longhaul"

// Tracer makes the spans of a service. A nil one makes none. It may be used by
// several goroutines.
type Tracer struct{ tracer trace.Tracer }

// New returns a Tracer on a provider; of a nil provider, nil. With the SDK's
// provider, give it IDs as well.
func New(provider trace.TracerProvider) *Tracer {
	if provider == nil {
		return nil
	}
	return &Tracer{provider.Tracer(scope)}
}

// Span is one span; the zero value is none, and its methods do nothing.
type Span struct{ span trace.Span }

// On reports whether there is a span. What is dear to find out about one is
// found out only then.
func (s Span) On() bool { return s.span != nil }

// Set adds attributes.
func (s Span) Set(attrs ...attribute.KeyValue) {
	if s.span != nil {
		s.span.SetAttributes(attrs...)
	}
}

// Outcome says what something came to, in a word.
func (s Span) Outcome(word string) {
	if s.span != nil {
		s.span.SetAttributes(attribute.String("longhaul.outcome", word))
	}
}

// maxError bounds what a span says of an error, in bytes.
const maxError = 256

// End ends the span; err, if there is one, is its status.
func (s Span) End(err error) {
	if s.span == nil {
		return
	}
	if err != nil {
		s.fail(err.Error())
	}
	s.span.End()
}

func (s Span) fail(text string) { s.span.SetStatus(codes.Error, contracts.Shorten(text, maxError)) }

// start begins a span if it will be kept.
func (t *Tracer) start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, Span) {
	ctx, span := t.tracer.Start(ctx, name, opts...)
	if !span.IsRecording() {
		return ctx, Span{}
	}
	return ctx, Span{span}
}

// In begins a span within the one that ctx has, by whoever made that one. If there
// is none, or it is not kept, there is no new one either.
func In(ctx context.Context, kind trace.SpanKind, name, more string) (context.Context, Span) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() {
		return ctx, Span{}
	}
	t := New(parent.TracerProvider())
	return t.start(ctx, name+" "+more, trace.WithSpanKind(kind))
}

// Of is the span that ctx has, if it is kept.
func Of(ctx context.Context) Span {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		return Span{span}
	}
	return Span{}
}

// Tool begins the span of a call of a tool.
func Tool(ctx context.Context, name, callID string) (context.Context, Span) {
	ctx, span := In(ctx, trace.SpanKindInternal, "execute_tool", name)
	if span.On() {
		span.Set(attribute.String("gen_ai.operation.name", "execute_tool"), attribute.String("gen_ai.tool.name", name),
			attribute.String("gen_ai.tool.type", "function"), attribute.String("gen_ai.tool.call.id", callID))
	}
	return ctx, span
}

// EndTool ends the span of a call. One that failed has told the model why; what
// it said may hold what the call was about, and is not repeated here.
func (s Span) EndTool(failed bool, err error) {
	if s.span != nil && failed && err == nil {
		s.fail("the tool has failed")
	}
	s.End(err)
}

// Note notes something, such as a step that was remembered, on the span that ctx has.
func Note(ctx context.Context, what, name string) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.AddEvent(what, trace.WithAttributes(attribute.String("longhaul.name", name)))
	}
}

// Traceparent is what says elsewhere what ctx's span is; "" if it has none.
func Traceparent(ctx context.Context) string {
	c := trace.SpanContextFromContext(ctx)
	if !c.IsValid() {
		return ""
	}
	id, span := c.TraceID(), c.SpanID()
	buf := append(make([]byte, 0, 55), "00-"...)
	buf = hex.AppendEncode(buf, id[:])
	buf = hex.AppendEncode(append(buf, '-'), span[:])
	buf = hex.AppendEncode(append(buf, '-'), []byte{byte(c.TraceFlags() & trace.FlagsSampled)})
	return string(buf)
}

// Carry has set say elsewhere what ctx's span is, if it has one, by the names of
// W3C Trace Context in lower case.
func Carry(ctx context.Context, set func(name, value string)) {
	parent := Traceparent(ctx)
	if parent == "" {
		return
	}
	set(contracts.HeaderTraceparent, parent)
	if state := tracestate(ctx); state != "" {
		set(contracts.HeaderTracestate, state)
	}
}

// tracestate is what others have noted of ctx's trace; "" if that is nothing, or
// more than is passed on.
func tracestate(ctx context.Context) string {
	state := trace.SpanContextFromContext(ctx).TraceState()
	if state.Len() == 0 {
		return ""
	}
	return wellNoted(state.String())
}

// wellNoted is state if it is a tracestate that may be passed on, else "".
func wellNoted(state string) string {
	if len(state) > contracts.MaxTracestate {
		return ""
	}
	if _, err := trace.ParseTraceState(state); err != nil {
		return ""
	}
	return state
}

// Environ adds to a program's environment what ctx's span is, if there is one:
// TRACEPARENT and TRACESTATE.
func Environ(ctx context.Context, env []string) []string {
	Carry(ctx, func(name, value string) { env = append(env, strings.ToUpper(name)+"="+value) })
	return env
}

// FromEnviron is ctx under what this program was told of its span, if it was.
func FromEnviron(ctx context.Context, getenv func(string) string) context.Context {
	return Under(ctx, getenv("TRACEPARENT"), getenv("TRACESTATE"))
}

// Under is ctx under what a traceparent says, with the tracestate that came with
// it; under nothing if the first says nothing.
func Under(ctx context.Context, traceparent, tracestate string) context.Context {
	if !wellFormed(traceparent) {
		return ctx
	}
	id, err := trace.TraceIDFromHex(traceparent[3:35])
	span, err2 := trace.SpanIDFromHex(traceparent[36:52])
	flags, err3 := hex.DecodeString(traceparent[53:])
	if errors.Join(err, err2, err3) != nil { // which cannot be
		return ctx
	}
	state, _ := trace.ParseTraceState(wellNoted(tracestate)) // which it is
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: id, SpanID: span, TraceFlags: trace.TraceFlags(flags[0]) & trace.FlagsSampled, TraceState: state, Remote: true,
	}))
}

// wellFormed reports whether s is a traceparent of version 00.
func wellFormed(s string) bool {
	const hex = "0123456789abcdef"
	return len(s) == contracts.MaxTraceparent && s[:3] == "00-" && s[35] == '-' && s[52] == '-' &&
		strings.Trim(s[3:35], hex)+strings.Trim(s[36:52], hex)+strings.Trim(s[53:], hex) == "" &&
		strings.Trim(s[3:35], "0") != "" && strings.Trim(s[36:52], "0") != ""
}

// IDs makes the ids of spans, for the SDK (trace.WithIDGenerator). The trace of a
// run that nobody has a trace for comes from the run's id, and the span of an attempt
// from its epoch: so attempts of one run meet in one trace, and whoever takes a
// run over can tell of an attempt whose worker died with its span.
type IDs struct{}

// known is what ids come from.
type known struct {
	run   string
	epoch uint64 // 0 if the span is none of an attempt
}

type knownKey struct{}

// NewIDs implements the SDK's IDGenerator.
func (g IDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	var id trace.TraceID
	if k, ok := ctx.Value(knownKey{}).(known); ok {
		sum := sha256.Sum256([]byte("trace of run " + k.run))
		copy(id[:], sum[:])
	} else {
		binary.BigEndian.PutUint64(id[:8], rand.Uint64())
		binary.BigEndian.PutUint64(id[8:], rand.Uint64()|1) // never all zeros
	}
	return id, g.NewSpanID(ctx, id)
}

// NewSpanID implements the SDK's IDGenerator.
func (IDs) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	var id trace.SpanID
	if k, ok := ctx.Value(knownKey{}).(known); ok && k.epoch > 0 {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("attempt of run "+k.run), k.epoch))
		copy(id[:], sum[:])
	} else {
		binary.BigEndian.PutUint64(id[:], rand.Uint64()|1)
	}
	return id
}
