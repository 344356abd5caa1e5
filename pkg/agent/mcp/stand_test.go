package mcp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/goleak"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/mcp"
)

// asServer has the test's binary be an MCP server, with its ledger in the directory.
const asServer = "MCP_TEST_SERVER_DIR"

// asParent has it start one that is deaf, and wait to be killed.
const asParent = "MCP_TEST_PARENT_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asParent); dir != "" {
		self, _ := os.Executable()
		s, err := mcp.New(mcp.Config{Name: "deaf", Command: []string{self}, Env: []string{asServer + "=" + dir, "MCP_TEST_DEAF=1"}})
		if err == nil {
			_, err = s.Tools(context.Background())
		}
		panic(err)
	}
	if dir := os.Getenv(asServer); dir != "" {
		serveStdio(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// serveStdio is the server as a program. It says on stderr that it has begun.
func serveStdio(dir string) {
	note(dir, "starts", fmt.Sprint(os.Getpid()))
	fmt.Fprintln(os.Stderr, "ready to serve")
	if os.Getenv("MCP_TEST_DEAF") != "" {
		select {} // and reads nothing
	}
	err := newServer(dir, func() { fmt.Fprintln(os.Stderr, "I am done for"); os.Exit(3) }).Run(context.Background(), &sdk.StdioTransport{})
	note(dir, "ended", fmt.Sprint(err))
}

// note appends a line to a file.
func note(dir, name, line string) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, line)
	}
	if err != nil {
		panic(err)
	}
	_ = f.Close()
}

func lines(t *testing.T, dir, name string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Fields(string(data))
}

type cityArgs struct {
	City string `json:"city" jsonschema:"the city's name"`
}

// newServer is a server with a tool of each kind. die ends it.
func newServer(dir string, die func()) *sdk.Server {
	s := sdk.NewServer(&sdk.Implementation{Name: "stand", Version: "1.2"}, nil)
	yes, no := true, false
	called := func(name string) { note(dir, "calls", name) }
	text := func(s string) *sdk.CallToolResult {
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: s}}}
	}
	sdk.AddTool(s, &sdk.Tool{Name: "weather", Description: "The weather in a city.", Annotations: &sdk.ToolAnnotations{ReadOnlyHint: true}},
		func(_ context.Context, r *sdk.CallToolRequest, args cityArgs) (*sdk.CallToolResult, map[string]any, error) {
			called("weather:" + args.City)
			return nil, map[string]any{"city": args.City, "sky": "clear"}, nil
		})
	sdk.AddTool(s, &sdk.Tool{Name: "send.mail", Annotations: &sdk.ToolAnnotations{DestructiveHint: &no}},
		func(_ context.Context, r *sdk.CallToolRequest, args struct {
			To string `json:"to"`
		}) (*sdk.CallToolResult, any, error) {
			key, _ := r.Params.Meta["longhaul/idempotency-key"].(string)
			called("mail:" + args.To + ":" + key)
			return text("sent"), nil, nil
		})
	sdk.AddTool(s, &sdk.Tool{Name: "wipe", Annotations: &sdk.ToolAnnotations{DestructiveHint: &yes}},
		func(context.Context, *sdk.CallToolRequest, struct{}) (*sdk.CallToolResult, any, error) {
			called("wipe")
			return text("wiped"), nil, nil
		})
	sdk.AddTool(s, &sdk.Tool{Name: "fail"}, func(context.Context, *sdk.CallToolRequest, struct{}) (*sdk.CallToolResult, any, error) {
		return nil, nil, fmt.Errorf("no luck with %s", os.Getenv("MCP_TEST_PLAIN"))
	})
	sdk.AddTool(s, &sdk.Tool{Name: "picture", Annotations: &sdk.ToolAnnotations{ReadOnlyHint: true}},
		func(context.Context, *sdk.CallToolRequest, struct{}) (*sdk.CallToolResult, any, error) {
			return &sdk.CallToolResult{Content: []sdk.Content{
				&sdk.TextContent{Text: "a dot"}, &sdk.ImageContent{MIMEType: "image/png", Data: []byte("\x89PNG")},
				&sdk.EmbeddedResource{Resource: &sdk.ResourceContents{URI: "file:///big", MIMEType: "video/mp4", Blob: make([]byte, 1<<20)}},
				&sdk.ResourceLink{URI: "file:///a", Name: "a"},
			}}, nil, nil
		})
	// A call that ends the server the first time that it is made, before or after its effect.
	for _, hint := range []bool{true, false} {
		name := map[bool]string{true: "die-reading", false: "die-writing"}[hint]
		sdk.AddTool(s, &sdk.Tool{Name: name, Annotations: &sdk.ToolAnnotations{ReadOnlyHint: hint}},
			func(context.Context, *sdk.CallToolRequest, struct{}) (*sdk.CallToolResult, any, error) {
				called(name)
				if os.Mkdir(filepath.Join(dir, name), 0o700) == nil {
					die()
				}
				return text("alive"), nil, nil
			})
	}
	sdk.AddTool(s, &sdk.Tool{Name: "hang"}, func(ctx context.Context, _ *sdk.CallToolRequest, _ struct{}) (*sdk.CallToolResult, any, error) {
		called("hang")
		<-ctx.Done()
		called("hang-cancelled")
		return nil, nil, ctx.Err()
	})
	s.AddTool(&sdk.Tool{Name: "bad-schema", InputSchema: json.RawMessage(`{"type":"object","properties":{"a":{"$ref":"https://example.org/x"}}}`)},
		func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) { return text("never"), nil })
	return s
}

// program is the server as a program of its own, with its ledger in dir.
func program(t *testing.T, dir string) mcp.Config {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return mcp.Config{Name: "stand", Command: []string{self}, Env: []string{asServer + "=" + dir}, Grace: 500 * time.Millisecond}
}

// service is the server over HTTP, on an address that stays the same while it
// comes and goes.
type service struct {
	dir string
	web *httptest.Server

	mu       sync.Mutex
	servers  []*sdk.Server
	handler  http.Handler
	requests []http.Header
	refuse   func(w http.ResponseWriter, r *http.Request) bool // if it has answered itself
}

func startService(t *testing.T, stateless bool) *service {
	t.Helper()
	s := &service{dir: t.TempDir()}
	s.restart(stateless)
	s.web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		handler, refuse := s.handler, s.refuse
		s.requests = append(s.requests, r.Header.Clone())
		s.mu.Unlock()
		if refuse == nil || !refuse(w, r) {
			handler.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		s.web.CloseClientConnections()
		s.web.Close()
		for _, server := range s.servers { // sessions that nobody has taken leave of
			for session := range server.Sessions() {
				_ = session.Close()
			}
		}
	})
	return s
}

// restart has all sessions forgotten.
func (s *service) restart(stateless bool) {
	server := newServer(s.dir, func() { s.web.CloseClientConnections() })
	handler := sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return server }, &sdk.StreamableHTTPOptions{Stateless: stateless, PropagateRequestCancellation: true})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handler, s.servers = handler, append(s.servers, server)
}

func (s *service) setRefuse(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = f
}

func (s *service) config() mcp.Config {
	return mcp.Config{Name: "stand", URL: s.web.URL + "/mcp?q=hidden"}
}

func mustNew(t *testing.T, cfg mcp.Config) *mcp.Server {
	t.Helper()
	s, err := mcp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func mustTools(t *testing.T, s *mcp.Server) map[string]agent.Tool {
	t.Helper()
	tools, err := s.Tools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]agent.Tool{}
	for _, one := range tools {
		all[one.Name] = one
	}
	return all
}

// do calls a tool as agent.Tools does.
func do(t *testing.T, tool agent.Tool, args string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	v, err := tool.Do(ctx, json.RawMessage(args))
	if err != nil {
		return "", err
	}
	return v.(agent.ToolResult).Text, nil
}

// record keeps what is logged.
type record struct {
	mu sync.Mutex
	b  strings.Builder
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}

func (r *record) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(r, nil)) }

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
