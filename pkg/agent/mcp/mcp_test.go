package mcp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/agent/mcp"
	"longhaul/pkg/contracts"
)

// each runs a test with the server as a program, and over HTTP with sessions and without.
func each(t *testing.T, test func(t *testing.T, cfg mcp.Config, dir string)) {
	t.Run("stdio", func(t *testing.T) {
		dir := t.TempDir()
		test(t, program(t, dir), dir)
	})
	for _, stateless := range []bool{false, true} {
		t.Run("http-stateless-"+strconv.FormatBool(stateless), func(t *testing.T) {
			s := startService(t, stateless)
			test(t, s.config(), s.dir)
		})
	}
}

func TestTools(t *testing.T) {
	each(t, func(t *testing.T, cfg mcp.Config, dir string) {
		tools := mustTools(t, mustNew(t, cfg))
		mail := mcp.ToolName("stand", "send.mail")
		if !strings.HasPrefix(mail, "stand__send_mail_") {
			t.Errorf("send.mail is called %s", mail)
		}
		for name, want := range map[string][2]bool{"stand__weather": {false, false}, mail: {true, false}, "stand__wipe": {true, true}, "stand__fail": {true, false}} {
			if got := [2]bool{tools[name].SideEffects, tools[name].RequiresConfirmation}; got != want {
				t.Errorf("%s: side effects and confirmation are %v, want %v", name, got, want)
			}
		}
		if _, there := tools["stand__bad-schema"]; there || len(tools) != 8 {
			t.Errorf("tools %v", tools)
		}
		if got, err := do(t, tools["stand__weather"], `{"city":"Paris"}`); got != `{"city":"Paris","sky":"clear"}` || err != nil {
			t.Errorf("weather: %q, %v", got, err)
		}
		if got, err := do(t, tools["stand__fail"], `{}`); err == nil || !strings.HasPrefix(err.Error(), "no luck") {
			t.Errorf("fail: %q, %v", got, err)
		}
		// What agent.Tools would not let through is refused by the server; its words are the model's.
		if got, err := do(t, tools["stand__weather"], `{"town":1}`); err == nil || !strings.Contains(err.Error(), "town") {
			t.Errorf("weather with bad arguments: %q, %v", got, err)
		}
	})
}

// calls is an agent that makes calls, and says what they came to.
func calls(tools *agent.Tools, all ...contracts.ToolCall) agent.Agent {
	return agent.Agent{Key: "calls", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		var said []string
		for _, c := range all {
			m, err := tools.Call(ctx, run, c)
			if err != nil {
				return agent.Result{}, err
			}
			said = append(said, m.Text())
		}
		return agent.Result{FinalOutput: said}, nil
	}}
}

func TestConfigDecides(t *testing.T) {
	dir, no, yes := t.TempDir(), false, true
	cfg := program(t, dir)
	cfg.Allow = []string{"weather", "wipe", "fail"}
	cfg.Default = mcp.ToolConfig{RequiresConfirmation: &no, Timeout: 7 * time.Second}
	cfg.Tools = map[string]mcp.ToolConfig{"fail": {SideEffects: &no}, "weather": {RequiresConfirmation: &yes, Timeout: time.Second}}
	tools := mustTools(t, mustNew(t, cfg))
	if len(tools) != 3 {
		t.Errorf("tools %v", tools)
	}
	if w := tools["stand__weather"]; !w.RequiresConfirmation || w.Timeout != time.Second {
		t.Errorf("weather: %+v", w)
	}
	if w := tools["stand__wipe"]; w.RequiresConfirmation || !w.SideEffects || w.Timeout != 7*time.Second {
		t.Errorf("wipe: %+v", w)
	}
	if f := tools["stand__fail"]; f.SideEffects {
		t.Errorf("fail: %+v", f)
	}
	cfg.Allow = append(cfg.Allow, "missing")
	if _, err := mustNew(t, cfg).Tools(t.Context()); err == nil || !strings.Contains(err.Error(), `MCP server stand: it has no tool "missing", which is allowed; it has bad-schema, die-reading`) {
		t.Errorf("a tool that is missing: %v", err)
	}
}

func TestFaults(t *testing.T) {
	_, err := mcp.New(mcp.Config{Name: "My Server", Command: []string{"/no/such/program"}, Dir: "nowhere", Env: []string{"x"}, PassEnv: []string{"a*b"},
		Grace: -1, Allow: []string{"a"}, Tools: map[string]mcp.ToolConfig{"b": {}}})
	wantFaults(t, err, "name", "command", "dir", "env[0]", "pass_env[0]", "grace", "tools.b")
	_, err = mcp.New(mcp.Config{Name: "a", URL: "https://u:secret@host/", Token: mcp.Secret{Env: "NO_SUCH_VARIABLE"}, Allow: []string{}, ConnectTimeout: -1,
		Headers: map[string]string{"a b": "c"}, SecretHeaders: map[string]mcp.Secret{"X-Key": {File: "nowhere"}}})
	wantFaults(t, err, "url", "token", "allow", "connect_timeout", "headers.a b", "secret_headers.X-Key")
	if strings.Contains(err.Error(), "secret@") {
		t.Errorf("a password is shown: %v", err)
	}
	_, err = mcp.New(mcp.Config{Name: "a"})
	wantFaults(t, err, "")
}

func wantFaults(t *testing.T, err error, want ...string) {
	t.Helper()
	var faults contracts.Faults
	if !errors.As(err, &faults) {
		t.Fatalf("error %v", err)
	}
	var got []string
	for _, f := range faults {
		got = append(got, f.Field)
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("faults of %q, want %q: %v", got, want, err)
	}
}

// A server that dies in the midst of a call is there again for the next one. A
// call that only reads is made again; of another nobody knows.
func TestServerDiesInACall(t *testing.T) {
	each(t, func(t *testing.T, cfg mcp.Config, dir string) {
		tools := mustTools(t, mustNew(t, cfg))
		if got, err := do(t, tools["stand__die-reading"], `{}`); got != "alive" || err != nil {
			t.Errorf("die-reading: %q, %v", got, err)
		}
		_, err := do(t, tools["stand__die-writing"], `{}`)
		if err == nil || !strings.Contains(err.Error(), "MCP server stand: it has not answered, and whether it has done what was asked is not known") {
			t.Errorf("die-writing: %v", err)
		}
		if cfg.URL == "" && err != nil && !strings.Contains(err.Error(), "it has ended: exit status 3: I am done for") {
			t.Errorf("die-writing: %v", err)
		}
		if err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("the address is shown: %v", err)
		}
		if got, err := do(t, tools["stand__weather"], `{"city":"Rome"}`); err != nil {
			t.Errorf("afterwards: %q, %v", got, err)
		}
		if got := lines(t, dir, "calls"); !slices.Equal(got, []string{"die-reading", "die-reading", "die-writing", "weather:Rome"}) {
			t.Errorf("calls %q", got)
		}
	})
}

// A program that was killed between two calls is started again, and the call is made.
func TestServerKilledBetweenCalls(t *testing.T) {
	dir, log := t.TempDir(), &record{}
	cfg := program(t, dir)
	cfg.Log = log.logger()
	mail := mustTools(t, mustNew(t, cfg))[mcp.ToolName("stand", "send.mail")]
	kill(t, dir, 0)
	waitFor(t, "the log to say so", func() bool { return strings.Contains(log.String(), "the mcp server is gone") })
	if got, err := do(t, mail, `{"to":"eve"}`); got != "sent" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for _, want := range []string{`"line":"ready to serve"`, `"mcp_server":"stand"`, `"server_version":"1.2"`, "signal: killed"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %s:\n%s", want, log)
		}
	}
}

// kill kills the program that was the n-th to start.
func kill(t *testing.T, dir string, n int) {
	t.Helper()
	if err := syscall.Kill(pid(t, dir, n), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func pid(t *testing.T, dir string, n int) int {
	t.Helper()
	waitFor(t, "the program to start", func() bool { return len(lines(t, dir, "starts")) > n })
	id, err := strconv.Atoi(lines(t, dir, "starts")[n])
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// A call that hangs ends with its timeout, and the server is told. One that
// answers to other calls is kept; one that does not is ended, and started again.
func TestServerHangs(t *testing.T) {
	each(t, func(t *testing.T, cfg mcp.Config, dir string) {
		tools := mustTools(t, mustNew(t, cfg))
		hang := func() {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			began := time.Now()
			if _, err := tools["stand__hang"].Do(ctx, json.RawMessage(`{}`)); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 3*time.Second {
				t.Fatalf("hang: %v after %v", err, time.Since(began))
			}
		}
		hang()
		waitFor(t, "the server to be told", func() bool { return slices.Contains(lines(t, dir, "calls"), "hang-cancelled") })
		if got, err := do(t, tools["stand__weather"], `{"city":"Oslo"}`); err != nil {
			t.Errorf("afterwards: %q, %v", got, err)
		}
		if cfg.URL != "" {
			return
		}
		if n := len(lines(t, dir, "starts")); n != 1 {
			t.Errorf("started %d times", n)
		}
		if err := syscall.Kill(pid(t, dir, 0), syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		hang()
		if got, err := do(t, tools["stand__weather"], `{"city":"Oslo"}`); err != nil {
			t.Errorf("after it was stopped: %q, %v", got, err)
		}
		if n := len(lines(t, dir, "starts")); n != 2 {
			t.Errorf("started %d times", n)
		}
		waitFor(t, "the stopped program to be ended", func() bool { return syscall.Kill(pid(t, dir, 0), 0) != nil })
	})
}

// A call is cancelled with the run; the server is not suspected for it.
func TestCancel(t *testing.T) {
	dir := t.TempDir()
	tools := mustTools(t, mustNew(t, program(t, dir)))
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		waitFor(t, "the call", func() bool { return slices.Contains(lines(t, dir, "calls"), "hang") })
		cancel(agent.ErrCancelled)
	}()
	if _, err := tools["stand__hang"].Do(ctx, json.RawMessage(`{}`)); !errors.Is(err, agent.ErrCancelled) {
		t.Errorf("error %v", err)
	}
	waitFor(t, "the server to be told", func() bool { return slices.Contains(lines(t, dir, "calls"), "hang-cancelled") })
}

// A program that does not get to its greetings, or does not start, is an error in time.
func TestServerDoesNotStart(t *testing.T) {
	dir := t.TempDir()
	cfg := program(t, dir)
	cfg.Env, cfg.ConnectTimeout = append(cfg.Env, "MCP_TEST_DEAF=1"), 200*time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	began := time.Now()
	_, err := mustNew(t, cfg).Tools(ctx)
	if err == nil || !strings.Contains(err.Error(), "MCP server stand: it has not answered within 200ms") || time.Since(began) > 5*time.Second {
		t.Errorf("deaf: %v after %v", err, time.Since(began))
	}
	if n := len(lines(t, dir, "starts")); n < 2 || n > 3 {
		t.Errorf("it was started %d times", n)
	}
	for i := range lines(t, dir, "starts") {
		waitFor(t, "the program to be ended", func() bool { return syscall.Kill(pid(t, dir, i), 0) != nil })
	}
	_, err = mustNew(t, mcp.Config{Name: "false", Command: []string{"sh", "-c", "echo no such file: data >&2; exit 7"}}).Tools(ctx)
	if err == nil || !strings.Contains(err.Error(), "MCP server false: it has ended: exit status 7: no such file: data") {
		t.Errorf("false: %v", err)
	}
}

// What a server cannot be reached by, or refuses, and what is a secret.
func TestServiceRefuses(t *testing.T) {
	t.Setenv("MCP_TEST_TOKEN", "t0ken")
	t.Setenv("MCP_TEST_KEY", "k3y")
	s := startService(t, false)
	cfg := s.config()
	cfg.Token, cfg.SecretHeaders = mcp.Secret{Env: "MCP_TEST_TOKEN"}, map[string]mcp.Secret{"X-Key": {Env: "MCP_TEST_KEY"}}
	cfg.Headers = map[string]string{"X-Team": "red"}
	s.setRefuse(func(w http.ResponseWriter, r *http.Request) bool {
		http.Error(w, "not with "+r.Header.Get("Authorization")+" and "+r.Header.Get("X-Key"), http.StatusUnauthorized)
		return true
	})
	server := mustNew(t, cfg)
	began := time.Now()
	_, err := server.Tools(t.Context())
	if err == nil || err.Error() != "MCP server stand: status 401 Unauthorized: not with Bearer *** and ***" || time.Since(began) > time.Second {
		t.Errorf("401: %v after %v", err, time.Since(began))
	}
	s.setRefuse(nil)
	tools := mustTools(t, server)
	for _, h := range s.requests {
		if h.Get("X-Team") != "red" || h.Get("X-Key") != "k3y" || h.Get("Authorization") != "Bearer t0ken" {
			t.Errorf("headers %v", h)
		}
	}
	mail := tools[mcp.ToolName("stand", "send.mail")]
	times := 0
	s.setRefuse(func(w http.ResponseWriter, r *http.Request) bool {
		times++
		if times == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
		}
		return times == 1
	})
	if got, err := do(t, mail, `{"to":"eve"}`); got != "sent" || err != nil || times != 2 {
		t.Errorf("429 and then not: %q, %v, %d times", got, err, times)
	}
	s.setRefuse(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusBadGateway); return true })
	if _, err := do(t, mail, `{"to":"eve"}`); err == nil || !strings.Contains(err.Error(), "is not known: status 502") {
		t.Errorf("502: %v", err)
	}
	s.setRefuse(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "http://example.invalid/", http.StatusTemporaryRedirect)
		return true
	})
	if _, err := do(t, mail, `{"to":"eve"}`); err == nil || !strings.Contains(err.Error(), "status 307") {
		t.Errorf("a redirection: %v", err)
	}
}

// A service that was restarted has forgotten the session; the call was not made, and is.
func TestServiceRestarts(t *testing.T) {
	s := startService(t, false)
	tools := mustTools(t, mustNew(t, s.config()))
	s.restart(false)
	if got, err := do(t, tools[mcp.ToolName("stand", "send.mail")], `{"to":"eve"}`); got != "sent" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// A service that accepts connections and says nothing is given up in time.
func TestServiceIsMute(t *testing.T) {
	s := startService(t, false)
	hold := make(chan struct{})
	defer close(hold)
	s.setRefuse(func(http.ResponseWriter, *http.Request) bool { <-hold; return true })
	cfg := s.config()
	cfg.ConnectTimeout = 200 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 900*time.Millisecond)
	defer cancel()
	began := time.Now()
	if _, err := mustNew(t, cfg).Tools(ctx); err == nil || !strings.Contains(err.Error(), "within 200ms") || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

// The program has little of the worker's environment.
func TestEnvironment(t *testing.T) {
	for name, value := range map[string]string{"MCP_TEST_PLAIN": "secret", "LONGHAUL_NATS": "nats://secret"} {
		t.Setenv(name, value)
	}
	dir := t.TempDir()
	_, err := do(t, mustTools(t, mustNew(t, program(t, dir)))["stand__fail"], `{}`)
	if err == nil || err.Error() != "no luck with " {
		t.Errorf("error %v", err)
	}
	cfg := program(t, dir)
	cfg.PassEnv = []string{"MCP_TEST_P*"}
	if _, err = do(t, mustTools(t, mustNew(t, cfg))["stand__fail"], `{}`); err == nil || err.Error() != "no luck with secret" {
		t.Errorf("error %v", err)
	}
}

// Close ends the program, also one that does not want to; and calls fail from then on.
func TestClose(t *testing.T) {
	for _, stubborn := range []bool{false, true} {
		dir := t.TempDir()
		s := mustNew(t, program(t, dir))
		tools := mustTools(t, s)
		id := pid(t, dir, 0)
		if stubborn {
			if err := syscall.Kill(id, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		if err := syscall.Kill(id, 0); err == nil {
			t.Errorf("stubborn %t: %d lives", stubborn, id)
		}
		if _, err := do(t, tools["stand__weather"], `{"city":"Rome"}`); err == nil || err.Error() != "MCP server stand: it is closed" {
			t.Errorf("error %v", err)
		}
		if got := lines(t, dir, "ended"); !stubborn && len(got) == 0 {
			t.Error("it was not let end by itself")
		}
	}
}

// Names are a model's, and tell tools apart.
func TestToolName(t *testing.T) {
	long := strings.Repeat("x", 100)
	seen := map[string]bool{}
	for _, name := range []string{"a", "a.b", "a/b", "a_b", "ä", long, long + "y"} {
		n := mcp.ToolName("server", name)
		if seen[n] || len(n) > 64 {
			t.Errorf("%s is %s", name, n)
		}
		if _, err := agent.NewTools(agent.Tool{Name: n, Do: func(context.Context, json.RawMessage) (any, error) { return nil, nil }}); err != nil {
			t.Error(err)
		}
		seen[n] = true
	}
}

// A server's tools are used like any others.
func Example() {
	files, err := mcp.New(mcp.Config{Name: "files", Command: []string{"files-server", "/data"}, Allow: []string{"read_file"}})
	if err != nil {
		panic(err)
	}
	defer files.Close()
	assistant := agent.Agent{Key: "assistant", Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
		theirs, err := files.Tools(ctx)
		if err != nil {
			return agent.Result{}, err
		}
		tools, err := agent.NewTools(theirs...)
		if err != nil {
			return agent.Result{}, err
		}
		answer, err := tools.Call(ctx, run, contracts.ToolCall{ID: "1", Function: contracts.ToolFunction{Name: "files__read_file", Arguments: `{"path":"a"}`}})
		return agent.Result{FinalOutput: answer.Text()}, err
	}}
	fmt.Println(assistant.Check())
}

// In a run: arguments are held against the server's schema before it is called,
// files are for people, and what does not fit is left out.
func TestInARun(t *testing.T) {
	dir := t.TempDir()
	theirs, err := mustNew(t, program(t, dir)).Tools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tools, err := agent.NewTools(theirs...)
	if err != nil {
		t.Fatal(err)
	}
	call := func(id, name, args string) contracts.ToolCall {
		return contracts.ToolCall{ID: id, Type: "function", Function: contracts.ToolFunction{Name: name, Arguments: args}}
	}
	mail := mcp.ToolName("stand", "send.mail")
	trial := agenttest.New(calls(tools, call("1", "stand__weather", `{"town":"Bonn"}`), call("2", mail, `{"to":"eve"}`), call("3", "stand__picture", `{}`)), contracts.Submission{})
	trial.After = agenttest.At(agenttest.Crash, contracts.TypeStepCompleted, "tool:"+mail+":2")
	got, err := agenttest.Output[[]string](trial.Run(t.Context()))
	want := []string{"error: 2 faults: arguments.city: is required; arguments.town: is no field here", "sent",
		"a dot\n[image/png of 4 bytes, which you cannot see]\n[video/mp4 of 1048576 bytes, which you cannot see] file:///big\n[file:///a] a"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v\n got %q\nwant %q", err, got, want)
	}
	if got := lines(t, dir, "calls"); !slices.Equal(got, []string{"mail:eve:" + agenttest.RunID + "/tool:" + mail + ":2"}) {
		t.Errorf("calls %q", got)
	}
	all := trial.Events()
	var result struct{ Attachments []agent.Attachment }
	if err := json.Unmarshal(all[len(all)-2].Payload, &result); err != nil || len(result.Attachments) != 2 {
		t.Fatalf("the last result is %s, %v", all[len(all)-2].Payload, err)
	}
	if a := result.Attachments[0]; a.MediaType != "image/png" || string(a.Data) != "\x89PNG" {
		t.Errorf("attachment %+v", a)
	}
	if a := result.Attachments[1]; len(a.Data) != 0 || !strings.Contains(a.Name, "too large") {
		t.Errorf("attachment %+v", a)
	}
}

// A worker that is killed leaves no server behind, also none that does not look at its stdin.
func TestKilledParentLeavesNothing(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // the system has no means for it: a server has to notice that its stdin has ended
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self)
	parent.Env = append(os.Environ(), asParent+"="+dir)
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	child := pid(t, dir, 0)
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // which was killed
	waitFor(t, "the server to end", func() bool {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child)) // nobody may be there to collect it
		return err != nil || strings.Contains(string(state), ") Z ")
	})
}
