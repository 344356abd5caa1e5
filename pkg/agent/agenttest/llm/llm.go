// Package llm is a model for tests: a server that speaks the OpenAI chat
// completions protocol over real HTTP, streams what a script says, refuses what
// the real ones refuse, and counts what it is asked.
package llm

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// Request is one call of the model.
type Request struct {
	// Turn is the model's turn in its conversation: 1 for the first answer.
	Turn int
	// Try counts the calls for this turn, of conversations that begin with the
	// same messages: 1 for the first one.
	Try    int
	Header http.Header
	// Fields is the whole body.
	Fields map[string]json.RawMessage

	Model    string
	Messages []contracts.Message
	Tools    []agent.ToolDefinition
}

// Reply is what the model does with a call. The zero value is an empty answer.
type Reply struct {
	// Text is streamed word by word, Calls in pieces.
	Text  string
	Calls []contracts.ToolCall
	// OneIndex has all calls under the index 0, as some endpoints do.
	OneIndex bool
	// Usage is told at the end.
	Usage agent.Usage
	// Finish is the finish_reason; "stop", or "tool_calls" with calls, unless set.
	Finish string

	// Status, if set, refuses the call, with Message and Header.
	Status  int
	Message string
	Header  http.Header
	// Body, if set, is sent in place of the protocol's own form.
	Body string

	// CutAfter, if above 0, breaks the connection after that many chunks, and
	// EndAfter ends the stream there as if it were over.
	CutAfter, EndAfter int
	// ErrorAfter, if above 0, sends Body as a part of the stream after that many chunks, and ends it.
	ErrorAfter int
	// HoldAfter, if above 0, sends nothing more after that many chunks until
	// Release is closed or the client has gone. A nil Release is never.
	HoldAfter int
	Release   <-chan struct{}
	// Pause is between two chunks.
	Pause time.Duration
}

// Call makes a tool call.
func Call(id, name, arguments string) contracts.ToolCall {
	return contracts.ToolCall{ID: id, Type: "function", Function: contracts.ToolFunction{Name: name, Arguments: arguments}}
}

// Server is the model. It is an endpoint to be given as a base URL.
type Server struct {
	URL string

	web    *httptest.Server
	script func(Request) Reply
	key    string

	mu       sync.Mutex
	requests []Request
	finished map[int]int // by turn
	gone     int
}

// Start starts a model that does what script says. With a key that is not
// empty it refuses who does not send it, and quotes what it was sent, as some
// do. It ends with the test.
func Start(t testing.TB, key string, script func(Request) Reply) *Server {
	t.Helper()
	s := New(key, script)
	t.Cleanup(s.Close)
	return s
}

// New is Start outside of a test, for a program that is to show itself where
// there is no model: its caller calls Close.
func New(key string, script func(Request) Reply) *Server {
	s := &Server{script: script, key: key, finished: map[int]int{}}
	s.web = httptest.NewServer(http.HandlerFunc(s.serve))
	s.URL = s.web.URL + "/v1"
	return s
}

// Close ends the model, answers that are under way included.
func (s *Server) Close() {
	s.web.CloseClientConnections() // of a hold that nobody releases
	s.web.Close()
}

// Requests returns every call so far.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Asked is how often a turn was asked for, Answered how often it was answered to its end.
func (s *Server) Asked(turn int) int {
	n := 0
	for _, r := range s.Requests() {
		if r.Turn == turn {
			n++
		}
	}
	return n
}

// Answered is how often a turn was answered to its end.
func (s *Server) Answered(turn int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.finished[turn]
}

// Gone is how many clients went away before the end of their answer.
func (s *Server) Gone() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	req, fault := s.read(r)
	if fault != "" {
		refuse(w, Reply{Status: http.StatusBadRequest, Message: fault})
		return
	}
	if got := r.Header.Get("Authorization"); s.key != "" && got != "Bearer "+s.key {
		refuse(w, Reply{Status: http.StatusUnauthorized, Message: "incorrect API key provided: " + got})
		return
	}
	reply := s.script(req)
	switch {
	case reply.Status != 0:
		refuse(w, reply)
	case s.stream(r.Context(), w, req, reply):
		s.mu.Lock()
		s.finished[req.Turn]++
		s.mu.Unlock()
	default:
		if r.Context().Err() != nil {
			s.mu.Lock()
			s.gone++
			s.mu.Unlock()
		}
	}
}

// read takes the call in, and says what a real endpoint would not like about it.
func (s *Server) read(r *http.Request) (req Request, fault string) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &req.Fields)
	}
	if err == nil {
		err = json.Unmarshal(body, &req) // names of fields are found in any case
	}
	if err != nil {
		return req, err.Error()
	}
	req.Header, req.Turn, req.Try = r.Header, 1, 1
	waiting := map[string]bool{}
	for i, m := range req.Messages {
		if m.Role == contracts.RoleTool {
			if !waiting[m.ToolCallID] {
				return req, fmt.Sprintf("messages[%d]: there is no call %q to answer", i, m.ToolCallID)
			}
			delete(waiting, m.ToolCallID)
			continue
		}
		if len(waiting) > 0 {
			return req, fmt.Sprintf("messages[%d]: %d calls have no answer", i, len(waiting))
		}
		for _, c := range m.ToolCalls {
			waiting[c.ID] = true
		}
		if m.Role == contracts.RoleAssistant {
			req.Turn++
		}
	}
	switch {
	case r.Method != http.MethodPost || r.URL.Path != "/v1/chat/completions":
		return req, "no such address: " + r.URL.Path
	case len(waiting) > 0:
		return req, "calls have no answer"
	case len(req.Messages) == 0 || req.Model == "":
		return req, "messages and model are required"
	case string(req.Fields["stream"]) != "true":
		return req, "this endpoint only streams"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, before := range s.requests {
		if before.Turn == req.Turn && before.Messages[0].Text() == req.Messages[0].Text() {
			req.Try++
		}
	}
	s.requests = append(s.requests, req)
	return req, ""
}

func refuse(w http.ResponseWriter, r Reply) {
	for name, values := range r.Header {
		w.Header()[name] = values
	}
	body := r.Body
	if body == "" {
		w.Header().Set("Content-Type", "application/json")
		raw, _ := json.Marshal(map[string]any{"error": map[string]any{"message": r.Message, "type": "error", "code": nil, "param": nil}})
		body = string(raw)
	}
	w.WriteHeader(r.Status)
	_, _ = io.WriteString(w, body)
}

// stream sends the reply. It reports whether the model came to its end.
func (s *Server) stream(ctx context.Context, w http.ResponseWriter, req Request, r Reply) bool {
	w.Header().Set("Content-Type", "text/event-stream")
	for i, chunk := range chunks(req, r) {
		switch at := i; { // chunks that were sent
		case r.CutAfter > 0 && at == r.CutAfter:
			panic(http.ErrAbortHandler)
		case r.EndAfter > 0 && at == r.EndAfter:
			return false
		case r.ErrorAfter > 0 && at == r.ErrorAfter:
			_, _ = fmt.Fprintf(w, "data: %s\n\n", r.Body)
			return false
		case r.HoldAfter > 0 && at == r.HoldAfter:
			select {
			case <-r.Release:
			case <-ctx.Done():
				return false
			}
		}
		if r.Pause > 0 && i > 0 {
			select {
			case <-time.After(r.Pause):
			case <-ctx.Done():
				return false
			}
		}
		if _, err := fmt.Fprintf(w, ": alive\n\ndata: %s\n\n", chunk); err != nil {
			return false
		}
		w.(http.Flusher).Flush()
	}
	_, err := io.WriteString(w, "data: [DONE]\n\n")
	return err == nil
}
