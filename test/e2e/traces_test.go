package e2e

import (
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest/llm"
	"longhaul/pkg/contracts"
)

// received is a collector's spans.
type received struct {
	mu    sync.Mutex
	spans []seen
}

// seen is a span, and by which service.
type seen struct {
	*otlp.Span
	service string
}

func (s seen) attr(key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			switch v := a.Value; {
			case v.GetStringValue() != "":
				return v.GetStringValue()
			default:
				return fmt.Sprint(v.GetIntValue())
			}
		}
	}
	return ""
}

// startCollector starts what processes started from now on send their spans to.
func startCollector(t *testing.T) *received {
	t.Helper()
	r := &received{}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body := io.Reader(req.Body)
		if req.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(body)
		}
		data, err := io.ReadAll(body)
		var sent collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(data, &sent)
		}
		if err != nil || req.URL.Path != "/v1/traces" || req.Header.Get("X-Team") != "red" {
			http.Error(w, fmt.Sprintf("%s: %v", req.URL.Path, err), http.StatusBadRequest)
			return
		}
		r.take(&sent)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(web.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", web.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "X-Team=red")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20") // ms
	return r
}

func (r *received) take(sent *collector.ExportTraceServiceRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range sent.ResourceSpans {
		service := ""
		for _, a := range of.Resource.Attributes {
			if a.Key == "service.name" {
				service = a.Value.GetStringValue()
			}
		}
		for _, scope := range of.ScopeSpans {
			for _, span := range scope.Spans {
				r.spans = append(r.spans, seen{span, service})
			}
		}
	}
}

// named returns the spans of a name, in the order of their beginnings.
func (r *received) named(name string) []seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []seen
	for _, s := range r.spans {
		if s.Name == name {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b seen) int { return int(a.StartTimeUnixNano) - int(b.StartTimeUnixNano) })
	return found
}

// A run whose worker is killed in its midst is one trace, from the command that
// submitted it to the end, with both attempts; also the one that could not tell of itself.
func TestTraceOverKill9(t *testing.T) {
	spans := startCollector(t)
	model := llm.Start(t, "sk-e2e", func(r llm.Request) llm.Reply {
		reply := llm.Reply{Usage: agent.Usage{InputTokens: 100, OutputTokens: 10}}
		if r.Turn == 1 {
			reply.Calls = []contracts.ToolCall{llm.Call("a", "weather", `{"city":"confidential"}`)}
			return reply
		}
		if reply.Text = "It is confidential."; r.Try == 1 {
			reply.HoldAfter = 1
		}
		return reply
	})
	dir := t.TempDir()
	for name, text := range map[string]string{"key": "sk-e2e\n", "agents.yaml": fmt.Sprintf(`
tools:
  - {name: weather, description: The weather., exec: {command: [sh, -c, 'echo "$TRACEPARENT" > parent; echo confidential']}}
agents:
  - {key: assistant, chat: {model: m, base_url: %q, api_key_file: key, tools: [weather]}}
`, model.URL)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "agents.yaml")
	s := newStage(t)
	s.start(t, "dispatcher")
	s.start(t, "statekeeper")
	w := s.start(t, "worker", "--config", config)
	s.waitForAgent(t, "assistant")
	id := contracts.NewRunID()
	if _, stderr, code := s.cli(t, "", "submit", "assistant", "--run-id", id, "-m", "Is it confidential?"); code != 0 {
		t.Fatal(stderr)
	}
	waitFor(t, "the second turn, and the spans before it", func() bool {
		return model.Asked(2) == 1 && len(spans.named("step model:1")) == 1 && len(spans.named("step tool:weather:a")) == 1
	})
	w.kill()
	s.start(t, "worker", "--config", config)
	checkLog(t, s.log(t), id)
	waitFor(t, "the last span", func() bool { return len(spans.named("invoke_agent assistant")) == 2 })

	attempts := spans.named("invoke_agent assistant")
	for i, want := range []string{"lost", "succeeded"} {
		if a := attempts[i]; a.attr("longhaul.attempt") != fmt.Sprint(i+1) || a.attr("longhaul.outcome") != want || a.attr("longhaul.run_id") != id || a.service != "longhaul-worker" {
			t.Errorf("attempt %d: %v", i+1, a)
		}
	}
	submitted, dispatched := spans.named("send runs.submit"), spans.named("process runs.submit")
	if len(submitted) != 1 || len(dispatched) != 1 || submitted[0].service != "longhaul-submit" || dispatched[0].service != "longhaul-dispatcher" {
		t.Fatalf("submitted %v, dispatched %v", submitted, dispatched)
	}
	first, chats := spans.named("step model:1"), spans.named("chat m")
	below := func(child, parent seen) {
		t.Helper()
		if string(child.TraceId) != string(submitted[0].TraceId) || string(child.ParentSpanId) != string(parent.SpanId) {
			t.Errorf("%s is not below %s", child.Name, parent.Name)
		}
	}
	below(dispatched[0], submitted[0])
	below(attempts[0], dispatched[0])
	below(attempts[1], dispatched[0])
	below(first[0], attempts[0])
	below(chats[0], first[0])
	below(spans.named("step tool:weather:a")[0], attempts[0])
	below(spans.named("execute_tool weather")[0], spans.named("step tool:weather:a")[0])
	below(spans.named("step model:2")[0], attempts[1])
	for key, want := range map[string]string{"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": "100", "gen_ai.usage.output_tokens": "10"} {
		if got := chats[0].attr(key); got != want {
			t.Errorf("%s is %q", key, got)
		}
	}
	if len(first) != 1 || len(attempts[1].Events) != 2 || attempts[1].Events[0].Name != "step remembered" {
		t.Errorf("the first turn was taken %d times; the second attempt remembers %v", len(first), attempts[1].Events)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "parent")); err != nil || !strings.Contains(string(data), hex.EncodeToString(submitted[0].TraceId)) {
		t.Errorf("the tool was told %q, %v", data, err)
	}
	spans.mu.Lock()
	defer spans.mu.Unlock()
	for _, one := range spans.spans {
		if text := one.String(); strings.Contains(text, "confidential") || strings.Contains(text, "sk-e2e") {
			t.Errorf("what was said is in %s", text)
		}
	}
}

// A stranger's trace is continued; a stranger's nonsense does nobody any harm.
func TestStrangersTraces(t *testing.T) {
	spans := startCollector(t)
	s := newStage(t)
	s.start(t, "dispatcher")
	s.start(t, "statekeeper")
	s.start(t, "worker", "--agent", "echo")
	s.waitForAgent(t, "echo")
	log := s.log(t)
	nc := s.connect(t, "submitter")
	const theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, header := range []string{theirs, strings.Repeat("0", 50<<10), "00-zz", theirs + "; rm"} {
		id := contracts.NewRunID()
		m := &nats.Msg{Subject: contracts.SubjectSubmit, Header: nats.Header{"traceparent": {header}}, Data: []byte(`{"agent_key":"echo","run_id":"` + id + `"}`)}
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
		all := checkLog(t, log, id)
		if end := all[len(all)-1]; end.Type != contracts.TypeSucceeded || strings.Contains(string(all[0].Payload), "0000000000") {
			t.Errorf("%.60q: %s, %s", header, end.Type, all[0].Payload)
		}
		var attempt []seen
		waitFor(t, "the attempt's span", func() bool {
			attempt = slices.DeleteFunc(spans.named("invoke_agent echo"), func(one seen) bool { return one.attr("longhaul.run_id") != id })
			return len(attempt) == 1
		})
		if got := hex.EncodeToString(attempt[0].TraceId); (got == theirs[3:35]) != (header == theirs) {
			t.Errorf("%.60q: the trace is %s", header, got)
		}
	}
}
