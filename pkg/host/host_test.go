package host

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/agenttest/live"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// The broker is found by the environment, runs are executed, and the end is a drain.
func TestRun(t *testing.T) {
	stage := live.Start(t, agent.New("other", "", func(context.Context, *agent.Run, struct{}) (string, error) { return "", nil }))
	t.Setenv("LONGHAUL_NATS", stage.URL)
	t.Setenv("LONGHAUL_STORAGE", "memory")
	t.Setenv("LONGHAUL_HTTP", "127.0.0.1:0")
	t.Setenv("LONGHAUL_CONCURRENCY", "3")
	sent := make(chan string, 100)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { sent <- r.URL.Path }))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	var log syncBuffer
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, Config{Logger: slog.New(slog.NewJSONHandler(&log, nil)), Agents: []agent.Agent{
			agent.New("double", "", func(_ context.Context, _ *agent.Run, p struct {
				N int `json:"n"`
			}) (int, error) {
				return 2 * p.N, nil
			})}})
	}()
	waitFor(t, "the agent to be known", func() bool {
		known, err := stage.Client.Agents(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(known) == 2
	})
	id, err := stage.Client.Submit(t.Context(), contracts.Submission{AgentKey: "double", Input: contracts.Input{Params: []byte(`{"n":21}`)}})
	if err != nil {
		t.Fatal(err)
	}
	outcome, err := stage.Client.Wait(t.Context(), id)
	var n int
	if err == nil {
		err = outcome.Output(&n)
	}
	if n != 42 || err != nil {
		t.Errorf("it comes to %d, %v", n, err)
	}

	// It shows itself as longhaul worker does.
	var address string
	for line := range strings.Lines(log.String()) {
		var said struct{ Msg, Address string }
		if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "serving http" {
			address = said.Address
		}
	}
	waitFor(t, "it to be ready", func() bool {
		page := get(t, "http://"+address+"/readyz")
		return page == `{"ok":true,"faults":[]}`+"\n"
	})
	page := get(t, "http://"+address+"/metrics")
	for _, line := range []string{`longhaul_worker_attempts_ended_total{agent_key="double",outcome="succeeded"} 1`, `longhaul_worker_slots 3`,
		`longhaul_broker_connected{service="worker"} 1`, `longhaul_build_info{`} {
		if !strings.Contains(page, "\n"+line) {
			t.Errorf("/metrics lacks %s", line)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("told to end it returns %v", err)
	}
	if len(sent) == 0 || <-sent != "/v1/traces" {
		t.Error("the collector was sent no spans")
	}
}

func TestFaults(t *testing.T) {
	fine := []agent.Agent{agent.New("fine", "", func(context.Context, *agent.Run, struct{}) (string, error) { return "", nil })}
	for variable, tc := range map[string]struct{ value, says string }{
		"LONGHAUL_CONCURRENCY":         {"many", "LONGHAUL_CONCURRENCY"},
		"LONGHAUL_RUN_TIMEOUT_SECONDS": {"0", "--run-timeout-seconds must be above 0"},
		"LONGHAUL_AGENT_CONCURRENCY":   {"other=1", "must be one of fine"},
		"LONGHAUL_TLS_CERT":            {"a.pem", "go together"},
		"LONGHAUL_PPROF":               {"0.0.0.0:1", "must be a loopback address"},
		"LONGHAUL_SEAL_KEYS":           {"/nosuch", "--seal-keys"},
		"LONGHAUL_LOG_LEVEL":           {"loud", "--log-level must be one of"},
		"OTEL_TRACES_EXPORTER":         {"zipkin", "must be otlp or none"},
	} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, tc.value)
			if err := run(t.Context(), Config{Logger: quiet, Agents: fine}); err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%s=%s: %v, want %q in it", variable, tc.value, err, tc.says)
			}
		})
	}
	t.Run("metrics twice", func(t *testing.T) {
		t.Setenv("LONGHAUL_HTTP", "127.0.0.1:0")
		if err := run(t.Context(), Config{Logger: quiet, Agents: fine, Metrics: prometheus.NewRegistry()}); err == nil || !strings.Contains(err.Error(), "elsewhere") {
			t.Error(err)
		}
	})
	if err := run(t.Context(), Config{Logger: quiet}); err == nil || !strings.Contains(err.Error(), "agents: at least one is needed") {
		t.Errorf("without agents: %v", err)
	}
	t.Setenv("LONGHAUL_NATS", "nats://127.0.0.1:1")
	t.Setenv("LONGHAUL_CONTEXT", "nosuch")
	if err := run(t.Context(), Config{Logger: quiet}); err == nil {
		t.Error("two brokers at once are admitted")
	}
}

// What the program says holds unless the environment says otherwise, and each has its default.
func TestSettings(t *testing.T) {
	resolved := func(cfg Config) Config {
		t.Helper()
		s, err := read(cfg)
		if err == nil {
			err = s.Configure(&cfg)
		}
		if err != nil {
			t.Fatal(err)
		}
		cfg.Topology = s.Options()
		return cfg
	}
	said := Config{WorkerID: "w-mine", Concurrency: 4, RunTimeout: 1500 * time.Millisecond, MaxAttempts: 5, Lease: 20 * time.Second,
		HeartbeatInterval: 2 * time.Second, HeartbeatEventInterval: 7 * time.Second, RetryBackoffBase: 1.5, RetryBackoffMax: 8 * time.Second,
		DrainTimeout: 9 * time.Second, CancelGrace: 11 * time.Second, TakeoverGrace: 3 * time.Second, HistoryLimit: 12,
		Topology: jsutil.TopologyOptions{Replicas: 3, Storage: jetstream.MemoryStorage}}
	if got := resolved(said); !reflect.DeepEqual(got, said) {
		t.Errorf("got  %+v\nwant %+v", got, said)
	}
	plain := resolved(Config{})
	if plain.Concurrency != 10 || plain.Lease != 30*time.Second || plain.HeartbeatInterval != 10*time.Second || plain.DrainTimeout != 30*time.Second || plain.Topology.Replicas != 1 {
		t.Errorf("without a word: %+v", plain)
	}
	for variable, value := range map[string]string{"WORKER_ID": "w-env", "CONCURRENCY": "7", "RUN_TIMEOUT_SECONDS": "0.5", "DRAIN_TIMEOUT_SECONDS": "0", "REPLICAS": "5"} {
		t.Setenv("LONGHAUL_"+variable, value)
	}
	want := said
	want.WorkerID, want.Concurrency, want.RunTimeout, want.DrainTimeout, want.Topology.Replicas = "w-env", 7, 500*time.Millisecond, 1, 5
	if got := resolved(said); !reflect.DeepEqual(got, want) {
		t.Errorf("by the environment\ngot  %+v\nwant %+v", got, want)
	}
}

// syncBuffer takes a log while others look at it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func get(t *testing.T, url string) string {
	t.Helper()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	page, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(fmt.Sprint("waited in vain for ", what))
		}
	}
}
