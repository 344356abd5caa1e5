package httpagent_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/agent/builtin/httpagent"
	"longhaul/pkg/contracts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "tk-very-secret"

// newService serves, and makes an agent that asks it.
func newService(t *testing.T, serve http.HandlerFunc, change func(*httpagent.Config)) agent.Agent {
	t.Helper()
	server := httptest.NewServer(serve)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	t.Setenv("SERVICE_TOKEN", token)
	cfg := httpagent.Config{Key: "remote", URL: server.URL + "/run", Token: httpagent.Secret{Env: "SERVICE_TOKEN"}}
	if change != nil {
		change(&cfg)
	}
	a, err := httpagent.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// answers is a service that always says the same.
func answers(kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = io.WriteString(w, body)
	}
}

func input() contracts.Submission {
	return contracts.Submission{Input: contracts.Input{Messages: []contracts.Message{contracts.Text("user", "hi")}, Params: json.RawMessage(`{"n":3}`)}}
}

// What the service is sent, and that JSON is the final output.
func TestJSON(t *testing.T) {
	var got *http.Request
	var body string
	a := newService(t, func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		got, body = r, string(raw)
		answers("application/json; charset=utf-8", `{"sum": 6}`)(w, r)
	}, func(c *httpagent.Config) { c.Headers = map[string]string{"X-Team": "red"} })
	o := agenttest.New(a, input()).Run(t.Context())
	if o.Status != contracts.StatusSucceeded || string(o.FinalOutput) != `{"sum":6}` {
		t.Fatalf("%s, %s, %+v", o.Status, o.FinalOutput, o.Error)
	}
	if got.Method != http.MethodPost || got.URL.Path != "/run" || body != `{"messages":[{"role":"user","content":"hi"}],"params":{"n":3}}` {
		t.Errorf("the service got %s %s: %s", got.Method, got.URL, body)
	}
	for name, want := range map[string]string{"Idempotency-Key": agenttest.RunID, "Longhaul-Run-Id": agenttest.RunID, "Longhaul-Attempt": "1",
		"Authorization": "Bearer " + token, "X-Team": "red", "Content-Type": "application/json"} {
		if v := got.Header.Get(name); v != want {
			t.Errorf("header %s is %q, want %q", name, v, want)
		}
	}
}

// The same events in both forms.
func TestEvents(t *testing.T) {
	for name, serve := range map[string]http.HandlerFunc{
		"lines": answers("application/x-ndjson", `{"type":"assistant.delta","payload":{"text":"so"}}

{"type":"tool.call","payload":{"name":"look"}}
{"type":"checkpoint","payload":{"page":1}}
{"type":"result","payload":[1],"usage":{"tokens":7},"artifacts":["a"]}
{"type":"late","payload":1}`),
		"stream": answers("text/event-stream", `: hello
data: {"type":"assistant.delta","payload":{"text":"so"}}

event: tool.call
data: {"name":
data: "look"}

event: checkpoint
data: {"page":1}

data: {"type":"result","payload":[1],"usage":{"tokens":7},"artifacts":["a"]}

event: late
data: 1

`),
	} {
		t.Run(name, func(t *testing.T) {
			trial := agenttest.New(newService(t, serve, nil), input())
			o := trial.Run(t.Context())
			if o.Status != contracts.StatusSucceeded || string(o.FinalOutput) != `[1]` || string(o.Usage) != `{"tokens":7}` || len(o.Artifacts) != 1 {
				t.Errorf("%s, %s, %s, %v, %+v", o.Status, o.FinalOutput, o.Usage, o.Artifacts, o.Error)
			}
			want := []contracts.EventType{"run.queued", "run.started", "assistant.delta", "tool.call", "state.checkpoint", "run.succeeded"}
			if got := trial.Types(); !slices.Equal(got, want) {
				t.Errorf("events %v, want %v", got, want)
			}
			if p := string(trial.Events()[3].Payload); p != `{"name":"look"}` {
				t.Errorf("tool.call is %s", p)
			}
		})
	}
}

// The state that an answer saved is sent with the next attempt's request, which
// has the same idempotency key.
func TestResume(t *testing.T) {
	var tries atomic.Int32
	var bodies, keys []string
	a := newService(t, func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		bodies, keys = append(bodies, string(raw)), append(keys, r.Header.Get("Idempotency-Key")+" "+r.Header.Get("Longhaul-Attempt"))
		if tries.Add(1) == 1 {
			answers("application/x-ndjson", `{"type":"checkpoint","payload":{"page":1}}`)(w, r)
			return
		}
		answers("application/json", `1`)(w, r)
	}, nil)
	o := agenttest.New(a, contracts.Submission{}).Run(t.Context())
	if o.Status != contracts.StatusSucceeded || bodies[1] != `{"state":{"page":1}}` {
		t.Errorf("%s, the service got %q", o.Status, bodies)
	}
	if want := []string{agenttest.RunID + " 1", agenttest.RunID + " 2"}; !slices.Equal(keys, want) {
		t.Errorf("keys %q, want %q", keys, want)
	}
}

func TestFailures(t *testing.T) {
	status := func(code int, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(code)
			_, _ = io.WriteString(w, body)
		}
	}
	const nd, ev, js = "application/x-ndjson", "text/event-stream", "application/json"
	for name, c := range map[string]struct {
		serve     http.HandlerFunc
		want      string // type and a part of the message
		retriable bool
		after     float64
	}{
		"429":                 {status(429, "slow down", "Retry-After", "9"), "RateLimited: slow down", true, 9},
		"503":                 {status(503, ""), "ServiceUnavailable: 503", true, 0},
		"409":                 {status(409, "at it"), "ServiceUnavailable: at it", true, 0},
		"400":                 {status(400, "no such field"), "RequestRefused: no such field", false, 0},
		"401":                 {status(401, "who, "+token+"?"), "Unauthorized: who, ***?", false, 0},
		"404":                 {status(404, ""), "RequestRefused: 404", false, 0},
		"elsewhere":           {status(302, "", "Location", "http://127.0.0.1:1/"), "RequestRefused: redirections", false, 0},
		"no known form":       {answers("text/html", "<html>"), "BadAnswer: text/html", false, 0},
		"no JSON":             {answers(js, `{"a":`), "BadAnswer: no JSON", false, 0},
		"long JSON":           {answers(js, `"`+strings.Repeat("x", 600<<10)+`"`), "AnswerTooLong: above 524288", false, 0},
		"cut off":             {cut(js, `{"a":`), "AnswerCutOff: broke off", true, 0},
		"lines, cut off":      {cut(nd, `{"type":"tick"}`+"\n"+`{"type":"resu`), "AnswerCutOff: broke off", true, 0},
		"lines, ended":        {answers(nd, `{"type":"tick"}`), "AnswerCutOff: without a result", true, 0},
		"lines, half":         {answers(nd, `{"type":"tick"}`+"\n"+`{"type":"resu`), "AnswerCutOff: without a result", true, 0},
		"lines of else":       {answers(nd, "hello\n"+`{"type":"result"}`), "BadAnswer: no event", false, 0},
		"lines, long":         {answers(nd, `{"type":"x","payload":"`+strings.Repeat("x", 600<<10)+"\"}\n"), "AnswerTooLong: an event", false, 0},
		"lines, many":         {answers(nd, strings.Repeat(`{"type":"tick"}`+"\n", 1000)), "AnswerTooLong: above 10000", false, 0},
		"lines, reserved":     {answers(nd, `{"type":"run.succeeded"}`+"\n"), "AgentError: run.succeeded", false, 0},
		"lines, an error":     {answers(nd, `{"type":"error","payload":{"type":"NoMonth","message":"none such","retriable":false}}`), "NoMonth: none such", false, 0},
		"lines, a late error": {answers(nd, `{"type":"error","payload":{"message":"busy","retry_after_seconds":4}}`), "ServiceUnavailable: busy", true, 4},
		"stream, cut off":     {cut(ev, "event: tick\n\ndata: {"), "AnswerCutOff: broke off", true, 0},
		"stream, ended":       {answers(ev, "event: tick\ndata: 1\n\nevent: result\ndata: 1\n"), "AnswerCutOff: without a result", true, 0},
		"stream of else":      {answers(ev, "data: hello\n\n"), "BadAnswer: no event", false, 0},
		"stream, reserved":    {answers(ev, "event: step.completed\ndata: 1\n\n"), "AgentError: step.completed", false, 0},
		"stream, long":        {answers(ev, "event: x\ndata: "+strings.Repeat("x", 600<<10)+"\n\n"), "AnswerTooLong: an event", false, 0},
		"silent":              {func(_ http.ResponseWriter, r *http.Request) { drain(r); <-r.Context().Done() }, "AnswerStalled: nothing", true, 0},
		"stalled":             {hang(nd, `{"type":"tick"}`+"\n"), "AnswerStalled: nothing", true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			a := newService(t, c.serve, func(cfg *httpagent.Config) {
				if cfg.IdleTimeout = time.Minute; strings.HasPrefix(c.want, "AnswerStalled") {
					cfg.IdleTimeout = 200 * time.Millisecond
				}
				if name == "lines, many" {
					cfg.MaxResponse = 10_000
				}
			})
			var logged strings.Builder
			trial := agenttest.New(a, input())
			trial.Log = slog.New(slog.NewTextHandler(&logged, nil))
			o := trial.Attempt(t.Context())
			kind, text, _ := strings.Cut(c.want, ": ")
			if o.Error.Type != kind || !strings.Contains(o.Error.Message, text) || o.Error.Retriable != c.retriable || o.Error.RetryAfterSeconds != c.after {
				t.Errorf("%+v, want %s, retriable: %t, after %v s", o.Error, c.want, c.retriable, c.after)
			}
			for _, e := range trial.Events() {
				if strings.Contains(string(e.Payload), token) {
					t.Errorf("the token is in %s", e.Payload)
				}
			}
			if strings.Contains(logged.String(), token) {
				t.Errorf("the token is logged: %s", &logged)
			}
		})
	}
}

// cut breaks the connection after body.
func cut(kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answers(kind, body)(w, r)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

// hang sends body, and then nothing until the client has gone.
func hang(kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		drain(r)
		answers(kind, body)(w, r)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
}

// drain reads the request: only then does a server see that the client goes.
func drain(r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }

func TestTimeout(t *testing.T) {
	a := newService(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			_, _ = fmt.Fprint(w, ": alive\n\n")
			w.(http.Flusher).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	}, func(c *httpagent.Config) { c.Timeout, c.IdleTimeout = time.Second, 400*time.Millisecond })
	if o := agenttest.New(a, input()).Attempt(t.Context()); o.Error.Type != "ServiceTimeout" || !o.Error.Retriable {
		t.Errorf("%+v", o.Error)
	}
}

// A cancel hangs up on the service.
func TestCancel(t *testing.T) {
	gone := make(chan struct{})
	a := newService(t, func(w http.ResponseWriter, r *http.Request) {
		hang("text/event-stream", "event: tick\ndata: 1\n\n")(w, r)
		close(gone)
	}, nil)
	trial := agenttest.New(a, input())
	trial.After = agenttest.At(agenttest.Cancel, "tick", "")
	if o := trial.Run(t.Context()); o.Status != contracts.StatusCancelled {
		t.Errorf("%s, %+v", o.Status, o.Error)
	}
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("waited 10 s for the service to be hung up on")
	}
}

func TestConfig(t *testing.T) {
	_, err := httpagent.New(httpagent.Config{Key: "No Key", URL: "ftp://x", Token: httpagent.Secret{File: "/no/such/file"}, Timeout: -1,
		IdleTimeout: -1, MaxResponse: -1, InputSchema: json.RawMessage("{")})
	var faults contracts.Faults
	if !errors.As(err, &faults) {
		t.Fatal(err)
	}
	var fields []string
	for _, f := range faults {
		fields = append(fields, f.Field)
	}
	if want := []string{"idle_timeout", "input_schema", "key", "max_response", "timeout", "token", "url"}; !slices.Equal(fields, want) {
		t.Errorf("faults of %q, want %q", fields, want)
	}
}
