package chat_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/agent/agenttest/llm"
	"longhaul/pkg/agent/builtin/chat"
	"longhaul/pkg/contracts"
)

// Each way in which the second of three turns can go wrong: what the attempt
// fails with, and that another one, if there is to be one, asks for that turn
// again and for no other.
func TestFailures(t *testing.T) {
	const html = "<html>bad gateway</html>"
	for name, c := range map[string]struct {
		reply     llm.Reply
		want      string // the type, and what the message contains
		retriable bool
		after     float64 // seconds that the next attempt is to wait, about
	}{
		"429":              {llm.Reply{Status: 429, Message: "slow down", Header: http.Header{"Retry-After": {"7"}}}, "RateLimited: slow down", true, 7},
		"429 in ms":        {llm.Reply{Status: 429, Header: http.Header{"Retry-After-Ms": {"1500"}}}, "RateLimited: 429", true, 1.5},
		"429, silent":      {llm.Reply{Status: 429}, "RateLimited: 429", true, 0},
		"500":              {llm.Reply{Status: 500, Message: "oops"}, "ServiceUnavailable: oops", true, 0},
		"502 in HTML":      {llm.Reply{Status: 502, Body: html}, "ServiceUnavailable: " + html, true, 0},
		"503 until a date": {llm.Reply{Status: 503, Header: http.Header{"Retry-After": {time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)}}}, "ServiceUnavailable: 503", true, 3600},
		"408":              {llm.Reply{Status: 408}, "ServiceUnavailable: 408", true, 0},
		"400":              {llm.Reply{Status: 400, Message: "no such model"}, "RequestRefused: no such model", false, 0},
		"400 as text":      {llm.Reply{Status: 400, Body: `{"error":"no such model"}`}, "RequestRefused: no such model", false, 0},
		"401":              {llm.Reply{Status: 401, Message: "who?", Header: http.Header{"Retry-After": {"7"}}}, "Unauthorized: who?", false, 0},
		"403":              {llm.Reply{Status: 403}, "Unauthorized: 403", false, 0},
		"404":              {llm.Reply{Status: 404}, "RequestRefused: 404", false, 0},
		"cut off":          {llm.Reply{Text: "It is not", CutAfter: 3}, "AnswerCutOff: broke off", true, 0},
		"ended early":      {llm.Reply{Text: "It is not", EndAfter: 3}, "AnswerCutOff: before the model did", true, 0},
		"no stream at all": {llm.Reply{Status: 200, Body: "hello"}, "AnswerCutOff: before the model did", true, 0},
		"garbage":          {llm.Reply{Text: "It is", ErrorAfter: 2, Body: "{garbage"}, "AnswerCutOff: broke off", true, 0},
		"error in it":      {llm.Reply{Text: "It is", ErrorAfter: 2, Body: `{"error":{"message":"overloaded","type":"server_error"}}`}, "ServiceUnavailable: overloaded", true, 0},
		"status in it":     {llm.Reply{Text: "It is", ErrorAfter: 2, Body: `{"error":{"message":"no more","code":429}}`}, "RateLimited: no more", true, 0},
		"refusal in it":    {llm.Reply{Text: "It is", ErrorAfter: 2, Body: `{"error":{"message":"too long","type":"invalid_request_error"}}`}, "RequestRefused: too long", false, 0},
		"stalled":          {llm.Reply{Text: "It is", HoldAfter: 2}, "AnswerStalled: nothing for 200ms", true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			model := llm.Start(t, secret, func(r llm.Request) llm.Reply {
				switch {
				case r.Turn == 1:
					return llm.Reply{Calls: []contracts.ToolCall{llm.Call("c1", "look", "{}")}}
				case r.Try == 1:
					return c.reply
				}
				return llm.Reply{Text: "fine"}
			})
			looked := 0
			tools, err := agent.NewTools(agent.NewTool("look", "", func(context.Context, struct{}) (int, error) { looked++; return looked, nil }))
			if err != nil {
				t.Fatal(err)
			}
			trial := agenttest.New(newChat(t, model, func(c *chat.Config) {
				if c.Tools = tools; name == "stalled" {
					c.IdleTimeout = 200 * time.Millisecond
				}
			}), says("hi", ""))
			o := trial.Attempt(t.Context())
			kind, text, _ := strings.Cut(c.want, ": ")
			if o.Error.Type != kind || !strings.Contains(o.Error.Message, text) || o.Error.Retriable != c.retriable {
				t.Errorf("%+v, want %s, retriable: %t", o.Error, c.want, c.retriable)
			}
			if got := o.Error.RetryAfterSeconds; got > c.after || got < c.after-60 || c.after > 0 && got <= 0 {
				t.Errorf("to be tried after %v s, want %v", got, c.after)
			}
			if model.Asked(2) != 1 {
				t.Errorf("the turn was asked for %d times in one attempt", model.Asked(2))
			}
			if !c.retriable {
				if o.Status != contracts.StatusFailed {
					t.Errorf("the run is %s", o.Status)
				}
				return
			}
			if out, err := agenttest.Output[string](trial.Run(t.Context())); out != "fine" || err != nil {
				t.Errorf("then %q, %v", out, err)
			}
			if model.Asked(1) != 1 || model.Asked(2) != 2 || looked != 1 {
				t.Errorf("turn 1 was asked for %d times, turn 2 %d times, the tool called %d times", model.Asked(1), model.Asked(2), looked)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	model := llm.Start(t, "", nil)
	a := newChat(t, model, func(c *chat.Config) { c.BaseURL = "http://127.0.0.1:1/v1?token=hidden" })
	o := agenttest.New(a, says("hi", "")).Attempt(t.Context())
	if o.Error.Type != "ServiceUnreachable" || !o.Error.Retriable || !strings.Contains(o.Error.Message, "refused") || strings.Contains(o.Error.Message, "hidden") {
		t.Errorf("%+v", o.Error)
	}
}

// Whatever goes wrong behind the model's end, the turn is whole and is not paid for again.
func TestBrokenBehindTheEnd(t *testing.T) {
	for name, broken := range map[string]llm.Reply{
		"cut off": {Text: "all of it", CutAfter: 5},
		"stalled": {Text: "all of it", HoldAfter: 5},
		"garbage": {Text: "all of it", ErrorAfter: 5, Body: "{garbage"},
	} {
		t.Run(name, func(t *testing.T) {
			model := llm.Start(t, "", func(llm.Request) llm.Reply { return broken })
			o := agenttest.New(newChat(t, model, func(c *chat.Config) { c.IdleTimeout = 200 * time.Millisecond }), says("hi", "")).Attempt(t.Context())
			if out, err := agenttest.Output[string](o); out != "all of it" || err != nil {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
}

// Where an endpoint sends us, neither the key goes nor the conversation.
func TestRedirectionsAreNotFollowed(t *testing.T) {
	elsewhere := llm.Start(t, "", func(llm.Request) llm.Reply { return llm.Reply{Text: "give it to me"} })
	for _, status := range []int{http.StatusMovedPermanently, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		model := llm.Start(t, "", func(llm.Request) llm.Reply {
			return llm.Reply{Status: status, Header: http.Header{"Location": {elsewhere.URL + "/chat/completions"}}}
		})
		o := agenttest.New(newChat(t, model, func(c *chat.Config) { c.APIKeyHeader = "X-Key" }), says("hi", "")).Run(t.Context())
		if o.Error.Type != "RequestRefused" || o.Error.Retriable || !strings.Contains(o.Error.Message, "redirections are not followed") {
			t.Errorf("%d: %s, %+v", status, o.Status, o.Error)
		}
	}
	for _, r := range elsewhere.Requests() {
		t.Errorf("the other one was asked, with the key %q", r.Header.Get("X-Key"))
	}
}

// A stream that lives, however slowly, is not given up.
func TestSlow(t *testing.T) {
	model := llm.Start(t, "", func(llm.Request) llm.Reply {
		return llm.Reply{Text: "one two three four five six", Pause: 60 * time.Millisecond}
	})
	o := agenttest.New(newChat(t, model, func(c *chat.Config) { c.IdleTimeout = 300 * time.Millisecond }), says("hi", "")).Run(t.Context())
	if out, err := agenttest.Output[string](o); out != "one two three four five six" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
}

// A cancel in the midst of an answer closes the connection: nobody pays for the rest.
func TestCancelInMidStream(t *testing.T) {
	model := llm.Start(t, "", func(llm.Request) llm.Reply { return llm.Reply{Text: "once upon a time", HoldAfter: 3} })
	trial := agenttest.New(newChat(t, model, nil), says("tell me", ""))
	deltas := 0
	trial.After = func(e contracts.Event) agenttest.Act {
		if e.Type == contracts.TypeDelta {
			if deltas++; deltas == 2 {
				return agenttest.Cancel
			}
		}
		return agenttest.GoOn
	}
	begun := time.Now()
	if o := trial.Run(t.Context()); o.Status != contracts.StatusCancelled {
		t.Errorf("%s, %+v", o.Status, o.Error)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	waitFor(t, "the model to be hung up on", func() bool { return model.Gone() == 1 })
	if model.Answered(1) != 0 {
		t.Error("the answer went on to its end")
	}
}

// The endpoint quotes the key that it was sent. It is in no event and in no log.
func TestTheKeyStaysSecret(t *testing.T) {
	for name, reply := range map[string]llm.Reply{
		"refused":  {Status: 400, Message: "cannot use " + secret},
		"as text":  {Status: 500, Body: "key " + secret},
		"streamed": {Text: "so so", ErrorAfter: 1, Body: `{"error":{"message":"key ` + secret + `"}}`},
	} {
		model := llm.Start(t, secret, func(llm.Request) llm.Reply { return reply })
		checkSecret(t, name, newChat(t, model, nil))
	}
	model := llm.Start(t, "another", nil)
	checkSecret(t, "of another", newChat(t, model, nil))
}

func checkSecret(t *testing.T, name string, a agent.Agent) {
	t.Helper()
	var lines strings.Builder
	trial := agenttest.New(a, says("hi", ""))
	trial.Log = slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o := trial.Run(t.Context())
	if !strings.Contains(o.Error.Message, "***") {
		t.Errorf("%s: the endpoint did not quote the key: %+v", name, o.Error)
	}
	for _, e := range trial.Events() {
		if strings.Contains(string(e.Payload), secret) {
			t.Errorf("%s: the key is in %s: %s", name, e.Type, e.Payload)
		}
	}
	if strings.Contains(lines.String(), secret) {
		t.Errorf("%s: the key is logged: %s", name, &lines)
	}
}
