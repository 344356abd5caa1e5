package jsutil_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

// logBuffer is a log that a test may read while others write.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// deadAddress returns an address that nothing listens on.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a listener that nobody used
	return l.Addr().String()
}

func waitConnected(t *testing.T, nc *nats.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := jsutil.WaitConnected(ctx, nc); err != nil {
		t.Fatal(err)
	}
}

func TestConnectWithoutRetryFailsSoon(t *testing.T) {
	dead := deadAddress(t)
	start := time.Now()
	_, err := jsutil.Connect(jsutil.ConnectConfig{URL: "nats://user:secret@" + dead + ",nats://token@" + dead})
	if !errors.Is(err, jsutil.ErrUnavailable) {
		t.Fatalf("got %v, want ErrUnavailable", err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
	for _, part := range []string{"secret", "token", "user"} {
		if strings.Contains(err.Error(), part) {
			t.Errorf("error %q shows %s", err, part)
		}
	}
	if !strings.Contains(err.Error(), dead) {
		t.Errorf("error %q does not say what was tried", err)
	}
}

// A server that takes the connection and says nothing must not hold a person up.
func TestConnectToASilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // ends the test
	start := time.Now()
	_, err = jsutil.Connect(jsutil.ConnectConfig{URL: l.Addr().String()})
	if !errors.Is(err, jsutil.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestConnectConfigFaults(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.creds")
	broken := filepath.Join(t.TempDir(), "broken.json")
	if err := os.WriteFile(broken, []byte(`{"url": "nats://user:sec ret@host:4222"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	noSeed := filepath.Join(t.TempDir(), "none.nk")
	if err := os.WriteFile(noSeed, []byte("SUsecret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		cfg  jsutil.ConnectConfig
		says string
	}{
		"no nkey":           {jsutil.ConnectConfig{NKey: missing, Retry: true}, missing},
		"no seed":           {jsutil.ConnectConfig{NKey: noSeed, Retry: true}, "holds no seed"},
		"no CA":             {jsutil.ConnectConfig{TLSCA: missing, Retry: true}, "TLS CA file"},
		"a CA of no use":    {jsutil.ConnectConfig{TLSCA: noSeed, Retry: true}, "root certificate"},
		"no key":            {jsutil.ConnectConfig{TLSCert: noSeed, Retry: true}, "go together"},
		"no certificate":    {jsutil.ConnectConfig{TLSKey: noSeed, TLSCert: missing, Retry: true}, "TLS certificate file"},
		"url and context":   {jsutil.ConnectConfig{URL: "nats://secret@localhost", Context: "ctx"}, "both a URL and a context"},
		"no url":            {jsutil.ConnectConfig{URL: "nats://user:sec ret@host:4222"}, "nats://host:4222"},
		"no port":           {jsutil.ConnectConfig{URL: "nats://localhost,nats://u:secret@host:port"}, "address 2"},
		"empty in the list": {jsutil.ConnectConfig{URL: "nats://localhost,,"}, "address 2"},
		"no credentials":    {jsutil.ConnectConfig{Creds: missing, Retry: true}, missing},
		"no context":        {jsutil.ConnectConfig{Context: "certainly-not-there", Retry: true}, "certainly-not-there"},
		"no context file":   {jsutil.ConnectConfig{Context: "./certainly/not.json", Retry: true}, "certainly/not.json"},
		"context's url":     {jsutil.ConnectConfig{Context: broken}, "URL"},
		"inbox prefix":      {jsutil.ConnectConfig{InboxPrefix: "bad.>"}, "prefix"},
	} {
		t.Run(name, func(t *testing.T) {
			nc, err := jsutil.Connect(tc.cfg)
			if err == nil {
				nc.Close()
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tc.says) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "sec ret") {
				t.Errorf("error is %q; want it to say %q, and no secret", err, tc.says)
			}
		})
	}
}

func TestConnectByContext(t *testing.T) {
	b := jstest.StartEmpty(t)
	config := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", config)
	dir := filepath.Join(config, "nats", "context")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name+".json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	path := write("dev", fmt.Sprintf(`{"url": %q, "inbox_prefix": "_FROM_CONTEXT"}`, b.URL()))
	for _, context := range []string{"dev", path} {
		nc, err := jsutil.Connect(jsutil.ConnectConfig{Context: context, Name: "me"})
		if err != nil {
			t.Fatal(err)
		}
		if inbox := nc.NewInbox(); !strings.HasPrefix(inbox, "_FROM_CONTEXT.") || nc.Opts.Name != "me" {
			t.Errorf("inbox is %s, name %s", inbox, nc.Opts.Name)
		}
		nc.Close()
	}
	write("domain", fmt.Sprintf(`{"url": %q, "jetstream_domain": "hub"}`, b.URL()))
	if _, err := jsutil.Connect(jsutil.ConnectConfig{Context: "domain"}); err == nil || !strings.Contains(err.Error(), "domain") {
		t.Errorf("a context with a domain: got %v", err)
	}
}

func TestConnectInboxPrefix(t *testing.T) {
	b := jstest.StartEmpty(t)
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: b.URL(), InboxPrefix: "_INBOX_worker"})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if inbox := nc.NewRespInbox(); !strings.HasPrefix(inbox, "_INBOX_worker.") {
		t.Errorf("answers come to %s", inbox)
	}
}

func TestConnectBeforeTheBroker(t *testing.T) {
	dead := deadAddress(t)
	var log logBuffer
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: "nats://secretuser:secretpass@" + dead, Retry: true, Logger: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	waitFor(t, "a failed attempt in the log", func() bool { return strings.Contains(log.String(), "broker out of reach") })

	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errors.New("enough"))
	defer cancel()
	if err := jsutil.WaitConnected(ctx, nc); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("WaitConnected without a broker: %v", err)
	}

	_, port, err := net.SplitHostPort(dead)
	if err != nil {
		t.Fatal(err)
	}
	var e *jsutil.Embedded
	waitFor(t, "the broker to start on its port", func() bool {
		var number int
		if _, err := fmt.Sscan(port, &number); err != nil {
			t.Fatal(err)
		}
		e, err = jsutil.StartEmbedded(jsutil.EmbeddedConfig{Port: number})
		return err == nil
	})
	defer e.Shutdown()
	waitConnected(t, nc)
	waitFor(t, "the connection in the log", func() bool { return strings.Contains(log.String(), "connected to the broker") })
	if strings.Contains(log.String(), "secret") {
		t.Errorf("the log shows a secret:\n%s", &log)
	}
}

func TestReconnect(t *testing.T) {
	b := jstest.StartFile(t)
	var log logBuffer
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: b.URL(), Logger: log.logger()}) // without Retry: once connected it reconnects too
	if err != nil {
		t.Fatal(err)
	}
	b.Restart(t)
	waitFor(t, "the reconnect in the log", func() bool { return strings.Contains(log.String(), "reconnected to the broker") })
	waitConnected(t, nc)
	if got := strings.Count(log.String(), "level=WARN"); got != 1 {
		t.Errorf("one outage is told by %d warnings:\n%s", got, &log)
	}
	nc.Close()
	if err := jsutil.WaitConnected(t.Context(), nc); !errors.Is(err, jsutil.ErrUnavailable) {
		t.Errorf("WaitConnected of a closed connection: %v", err)
	}
	if got := strings.Count(log.String(), "level=WARN"); got != 1 {
		t.Errorf("our own Close is told as an outage:\n%s", &log)
	}
}

// A service with a wrong password goes on trying, and says so; a person is told at once.
func TestConnectWithAWrongPassword(t *testing.T) {
	s := mustServer(t, &server.Options{Username: "u", Password: "right"})
	url := "nats://u:wrong@" + s.Addr().String()
	_, err := jsutil.Connect(jsutil.ConnectConfig{URL: url})
	if !errors.Is(err, jsutil.ErrRefused) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("got %v, want ErrRefused without the password", err)
	}
	var log logBuffer
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: url, Retry: true, Logger: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	waitFor(t, "the refusal in the log", func() bool { return strings.Contains(strings.ToLower(log.String()), "authorization violation") })
	waitFor(t, "more than two attempts", func() bool { return nc.Stats().Reconnects > 2 })
	if nc.IsClosed() {
		t.Error("the connection gave up")
	}
}

// What no call can return is in the log.
func TestForbiddenPublishIsLogged(t *testing.T) {
	s := mustServer(t, &server.Options{Users: []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Deny: []string{"secret"}},
	}}}})
	var log logBuffer
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: "nats://u:p@" + s.Addr().String(), Logger: log.logger()})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := nc.Publish("secret", nil); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the violation in the log", func() bool { return strings.Contains(strings.ToLower(log.String()), "permissions violation") })
}
