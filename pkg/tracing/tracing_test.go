package tracing_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"longhaul/pkg/contracts"
	"longhaul/pkg/tracing"
)

const (
	parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	run    = "0198c0de-7a11-7abc-8def-0123456789ab"
)

// newTracer makes a Tracer whose spans are recorded.
func newTracer() (*tracing.Tracer, *tracetest.SpanRecorder) {
	r := tracetest.NewSpanRecorder()
	return tracing.New(sdk.NewTracerProvider(sdk.WithSpanProcessor(r), sdk.WithIDGenerator(tracing.IDs{}))), r
}

// What runs take on their way when nobody traces them.
func untraced(ctx context.Context, h nats.Header, s *contracts.Submission) {
	var off *tracing.Tracer
	s.Traceparent, s.Tracestate = "", ""
	_, span := off.Submit(ctx, *s)
	span.End(nil)
	if done := off.Dispatch(h, s); done != nil {
		done(nil)
	}
	ctx, span = off.Attempt(ctx, tracing.Start{Submission: s, Head: contracts.Head{}})
	inner, step := tracing.In(ctx, trace.SpanKindInternal, "step", "fetch")
	tracing.Note(inner, "step remembered", "fetch")
	_, tool := tracing.Tool(inner, "weather", "call_1")
	tool.EndTool(false, nil)
	step.End(nil)
	_ = tracing.Environ(ctx, nil)
	span.EndAttempt("succeeded", "")
}

// Off costs nothing: nothing is allocated.
func TestOffAllocatesNothing(t *testing.T) {
	ctx, s := context.WithValue(t.Context(), struct{ k int }{}, 1), contracts.Submission{RunID: run, AgentKey: "echo"}
	for name, h := range map[string]nats.Header{"no header": nil, "others": {"Nats-Expected-Stream": {"RUNS_INBOX"}}, "a trace": {"traceparent": {parent}}} {
		if n := testing.AllocsPerRun(1000, func() { untraced(ctx, h, &s) }); n != 0 {
			t.Errorf("with %s: %v allocations", name, n)
		}
	}
}

func BenchmarkOff(b *testing.B) {
	ctx, s := b.Context(), contracts.Submission{RunID: run, AgentKey: "echo"}
	h := nats.Header{"Nats-Expected-Stream": {"RUNS_INBOX"}}
	b.ReportAllocs()
	for b.Loop() {
		untraced(ctx, h, &s)
	}
}

// A stranger's header is taken as it is well formed, or not at all.
func TestStrangersHeaders(t *testing.T) {
	on, _ := newTracer()
	for header, taken := range map[string]bool{
		parent: true, strings.Replace(parent, "-01", "-00", 1): true, strings.Replace(parent, "-01", "-ff", 1): true,
		"": false, "00": false, strings.ToUpper(parent): false, parent + "-more": false, "01" + parent[2:]: false, "ff" + parent[2:]: false,
		strings.Repeat("0", 1<<20): false, parent[:54] + "\n": false, parent[:54] + "é": false, strings.Replace(parent, "-", "_", 1): false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": false, "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": false,
	} {
		for _, inBody := range []bool{false, true} {
			s, h := contracts.Submission{RunID: run}, nats.Header{"traceparent": {header, parent}}
			if inBody {
				s.Traceparent, h = header, nil
			}
			var off *tracing.Tracer
			off.Dispatch(h, &s)
			if want := map[bool]string{true: header}[taken]; s.Traceparent != want {
				t.Errorf("%.60q: the run's is %.60q", header, s.Traceparent)
			}
			s = contracts.Submission{RunID: run}
			on.Dispatch(h, &s)
			if taken != strings.HasPrefix(s.Traceparent, "00-0af7651916cd43dd8448eb211c80319c-") && !inBody {
				t.Errorf("%.60q: with a tracer the run's is %.60q", header, s.Traceparent)
			}
			if len(s.Traceparent) > contracts.MaxTraceparent {
				t.Errorf("%.60q: the run's has %d bytes", header, len(s.Traceparent))
			}
		}
	}
}

// What others have noted of a trace goes with it, if it is well formed, to the
// run's attempts and beyond, traced here or not; without a trace it is nothing.
func TestTracestate(t *testing.T) {
	const states = "rojo=00f067aa0ba902b7,congo@vendor=t61rcWkgMzE"
	on, _ := newTracer()
	var off *tracing.Tracer
	for name, tracer := range map[string]*tracing.Tracer{"on": on, "off": off} {
		for what, tc := range map[string]struct {
			h    nats.Header
			s    contracts.Submission
			want string
		}{
			"by the header":          {nats.Header{"traceparent": {parent}, "tracestate": {states}}, contracts.Submission{}, states},
			"by two headers":         {nats.Header{"traceparent": {parent}, "tracestate": {"rojo=00f067aa0ba902b7", "congo@vendor=t61rcWkgMzE"}}, contracts.Submission{}, states},
			"by fields":              {nil, contracts.Submission{Traceparent: parent, Tracestate: states}, states},
			"header before fields":   {nats.Header{"traceparent": {parent}}, contracts.Submission{Traceparent: parent, Tracestate: states}, ""},
			"of no trace":            {nats.Header{"tracestate": {states}}, contracts.Submission{}, ""},
			"of no trace, by fields": {nil, contracts.Submission{Traceparent: "00", Tracestate: states}, ""},
			"ill formed":             {nats.Header{"traceparent": {parent}, "tracestate": {"rojo=\n"}}, contracts.Submission{}, ""},
			"twice the same":         {nats.Header{"traceparent": {parent}, "tracestate": {"a=1,a=2"}}, contracts.Submission{}, ""},
			"too long":               {nats.Header{"traceparent": {parent}, "tracestate": {"a=" + strings.Repeat("x", 255) + ",b=" + strings.Repeat("x", 255)}}, contracts.Submission{}, ""},
		} {
			s := tc.s
			s.RunID = run
			if done := tracer.Dispatch(tc.h, &s); done != nil {
				done(nil)
			}
			if s.Tracestate != tc.want {
				t.Errorf("tracing %s, %s: the run's is %q, want %q", name, what, s.Tracestate, tc.want)
			}
			ctx, span := on.Attempt(t.Context(), tracing.Start{Submission: &s})
			span.EndAttempt("succeeded", "")
			var carried string
			tracing.Carry(ctx, func(name, value string) {
				if name == "tracestate" {
					carried = value
				}
			})
			env := strings.Join(tracing.Environ(ctx, nil), " ")
			if carried != tc.want || strings.Contains(env, "TRACESTATE="+states) != (tc.want != "") {
				t.Errorf("tracing %s, %s: carried on is %q, in the environment %q, want %q", name, what, carried, env, tc.want)
			}
			if h, _ := tracer.Submit(tracing.Under(t.Context(), parent, tc.want), contracts.Submission{RunID: run}); h.Get("tracestate") != tc.want {
				t.Errorf("tracing %s, %s: submitted is %v, want %q", name, what, h, tc.want)
			}
		}
	}
}

// Whatever is well formed is understood, and comes out as it went in.
func FuzzTraceparent(f *testing.F) {
	f.Add(parent)
	f.Add("")
	f.Fuzz(func(t *testing.T, header string) {
		var off *tracing.Tracer
		s := contracts.Submission{}
		off.Dispatch(nats.Header{"traceparent": {header}}, &s)
		if got := tracing.Traceparent(tracing.Under(t.Context(), header, "")); (got == "") != (s.Traceparent == "") || got != "" && got[:53] != header[:53] {
			t.Errorf("%q is taken as %q, and is %q", header, s.Traceparent, got)
		}
	})
}

func TestSpansOfARun(t *testing.T) {
	tracer, recorder := newTracer()
	s := contracts.Submission{RunID: run, AgentKey: "echo", ConversationID: "c1"}
	h, span := tracer.Submit(t.Context(), s)
	span.End(errors.New(strings.Repeat("x", 1000)))
	tracer.Dispatch(h, &s)(nil)
	for epoch := uint64(1); epoch <= 2; epoch++ {
		ctx, span := tracer.Attempt(t.Context(), tracing.Start{Submission: &s, Head: contracts.Head{Position: contracts.Position{AgentKey: "echo", Epoch: epoch, Attempt: int(epoch)}}})
		ctx, step := tracing.In(ctx, trace.SpanKindInternal, "step", "fetch")
		_, tool := tracing.Tool(ctx, "weather", "call_1")
		tool.EndTool(true, nil)
		step.End(nil)
		span.EndAttempt("retrying", "no luck")
	}
	spans := recorder.Ended()
	var names []string
	for _, s := range spans {
		names = append(names, s.Name())
		if s.SpanContext().TraceID() != spans[0].SpanContext().TraceID() {
			t.Errorf("%s is of another trace", s.Name())
		}
	}
	if got := strings.Join(names, ", "); got != "send runs.submit, process runs.submit, execute_tool weather, step fetch, invoke_agent echo, execute_tool weather, step fetch, invoke_agent echo" {
		t.Fatalf("spans %s", got)
	}
	for child, parent := range map[int]int{1: 0, 4: 1, 7: 1, 3: 4, 2: 3, 6: 7} {
		if spans[child].Parent().SpanID() != spans[parent].SpanContext().SpanID() {
			t.Errorf("%s is not below %s", names[child], names[parent])
		}
	}
	if spans[4].SpanContext().SpanID() == spans[7].SpanContext().SpanID() || spans[3].SpanContext().SpanID() == spans[6].SpanContext().SpanID() {
		t.Error("two spans have one id")
	}
	if text := spans[0].Status().Description; len(text) > 300 {
		t.Errorf("an error of %d bytes", len(text))
	}
	attrs := attribute.NewSet(spans[4].Attributes()...)
	for key, want := range map[attribute.Key]string{"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "echo", "gen_ai.conversation.id": "c1",
		"longhaul.run_id": run, "longhaul.attempt": "1", "longhaul.outcome": "retrying"} {
		if v, _ := attrs.Value(key); v.String() != want {
			t.Errorf("%s is %q, want %q", key, v.String(), want)
		}
	}
}

// Nobody has a trace for the run: its attempts meet in one all the same.
func TestTraceOfTheRunItself(t *testing.T) {
	var ids []trace.TraceID
	for range 2 {
		tracer, recorder := newTracer() // of another process
		s := contracts.Submission{RunID: run, AgentKey: "echo"}
		_, span := tracer.Attempt(t.Context(), tracing.Start{Submission: &s, Head: contracts.Head{Position: contracts.Position{Epoch: uint64(len(ids) + 1)}}})
		span.EndAttempt("succeeded", "")
		ids = append(ids, recorder.Ended()[0].SpanContext().TraceID())
	}
	if ids[0] != ids[1] || !ids[0].IsValid() {
		t.Errorf("traces %v", ids)
	}
}

// A trace that its sender does not keep is not kept here either, and goes on.
func TestUnsampled(t *testing.T) {
	tracer, recorder := newTracer()
	s := contracts.Submission{RunID: run, Traceparent: strings.Replace(parent, "-01", "-00", 1)}
	if tracer.Dispatch(nil, &s) != nil {
		t.Error("there is a span")
	}
	ctx, span := tracer.Attempt(t.Context(), tracing.Start{Submission: &s, TookOver: true})
	if _, step := tracing.In(ctx, trace.SpanKindInternal, "step", "a"); span.On() || step.On() || len(recorder.Started()) != 0 {
		t.Error("there are spans")
	}
	if got := tracing.Traceparent(ctx); !strings.HasPrefix(got, parent[:36]) || !strings.HasSuffix(got, "-00") {
		t.Errorf("what goes on is %q", got)
	}
}
