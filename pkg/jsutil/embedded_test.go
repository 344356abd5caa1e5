package jsutil_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

func mustStart(t *testing.T, cfg jsutil.EmbeddedConfig) *jsutil.Embedded {
	t.Helper()
	e, err := jsutil.StartEmbedded(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Shutdown)
	return e
}

func TestEmbeddedDirectoryIsUsedOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "for us")
	e := mustStart(t, jsutil.EmbeddedConfig{Dir: dir})
	if e.Storage() != jetstream.FileStorage {
		t.Errorf("storage on a directory is %v", e.Storage())
	}
	_, err := jsutil.StartEmbedded(jsutil.EmbeddedConfig{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "uses the directory") {
		t.Errorf("a second broker on the directory: got %v", err)
	}
	e.Shutdown()
	e.Shutdown() // again, for nothing
	mustStart(t, jsutil.EmbeddedConfig{Dir: dir})
}

func TestEmbeddedFailsSoon(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // ends the test
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("address is %v", l.Addr())
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for says, cfg := range map[string]jsutil.EmbeddedConfig{
		"in use":          {Port: addr.Port},
		"not a directory": {Dir: file},
		"no such host":    {Host: "nowhere.invalid"},
	} {
		start := time.Now()
		e, err := jsutil.StartEmbedded(cfg)
		if err == nil {
			e.Shutdown()
			t.Errorf("%+v: no error", cfg)
			continue
		}
		if says != "no such host" && !strings.Contains(err.Error(), says) { // resolvers differ in their words
			t.Errorf("error is %q, want it to say %q", err, says)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%q took %s", says, took)
		}
	}
}

// Nor if it is killed: there is nothing while it runs. Whoever keeps a stream in
// files there all the same can, for as long as it runs.
func TestEmbeddedMemoryLeavesNothing(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	b := jstest.Start(t)
	mustPublish(t, b.JS, message(contracts.SubjectSubmit, "{}"))
	if !strings.HasPrefix(b.URL(), "nats://127.0.0.1:") {
		t.Errorf("URL is %s, want the loopback address", b.URL())
	}
	wantNothing := func(when string) {
		t.Helper()
		left, err := os.ReadDir(temp)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) > 0 {
			t.Errorf("there is something %s: %v", when, left)
		}
	}
	wantNothing("while it runs")
	if _, err := b.JS.CreateStream(t.Context(), jetstream.StreamConfig{Name: "files", Subjects: []string{"files"}, Storage: jetstream.FileStorage}); err != nil {
		t.Fatal(err)
	}
	mustPublish(t, b.JS, message("files", "{}"))
	b.Stop(t)
	wantNothing("when it has stopped")
}

func TestEmbeddedListensWhereItIsTold(t *testing.T) {
	e := mustStart(t, jsutil.EmbeddedConfig{Host: "0.0.0.0"})
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: e.URL()})
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
}

func TestEmbeddedLogsThroughSlog(t *testing.T) {
	var log logBuffer
	mustStart(t, jsutil.EmbeddedConfig{Logger: log.logger()})
	for _, part := range []string{"level=DEBUG", "Server is ready"} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("the log lacks %q:\n%s", part, &log)
		}
	}
}
