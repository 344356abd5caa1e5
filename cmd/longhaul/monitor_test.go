package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"longhaul/internal/shell"
	"longhaul/pkg/agent/builtin"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/metrics"
	"longhaul/services/dispatcher"
	"longhaul/services/statekeeper"
	"longhaul/services/worker"
)

// fetch gets a page; code 0 means that nobody answers.
func fetch(t *testing.T, url string) (code int, body string) {
	t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = r.Body.Close() }()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(data)
}

// address is where a program says in its log that it serves HTTP.
func (p *program) address(purpose string) string {
	p.t.Helper()
	p.says(`"purpose":"` + purpose + `"`)
	for line := range strings.Lines(p.stderr.String()) {
		var entry struct{ Purpose, Address string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Purpose == purpose {
			return "http://" + entry.Address
		}
	}
	p.t.Fatalf("no address in\n%s", p.stderr)
	return ""
}

// waitReady polls /readyz until it has the code and says the words.
func waitReadyz(t *testing.T, url string, code int, words string) {
	t.Helper()
	var last string
	deadline := time.Now().Add(patience)
	for {
		got, body := fetch(t, url+"/readyz")
		if last = fmt.Sprint(got, " ", body); got == code && strings.Contains(body, words) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited for /readyz to answer %d with %q; last: %s", code, words, last)
		}
		time.Sleep(20 * time.Millisecond) // between two looks
	}
}

func TestDevServesMetrics(t *testing.T) {
	t.Parallel()
	dev := start(t, "", "dev", "--memory", "--port", "0", "--http", "127.0.0.1:0", "--json")
	var welcome struct{ URL, HTTP string }
	mustDecode(t, dev.line(), &welcome)
	waitReadyz(t, welcome.HTTP, http.StatusOK, `{"ok":true,"faults":[]}`)
	if code, body := fetch(t, welcome.HTTP+"/healthz"); code != http.StatusOK || body != `{"ok":true,"faults":[]}`+"\n" {
		t.Errorf("/healthz: %d %s", code, body)
	}
	if code, _ := fetch(t, welcome.HTTP+"/debug/pprof/goroutine?debug=1"); code != http.StatusOK {
		t.Errorf("pprof on loopback: %d", code)
	}
	if r := longhaul(t, welcome.URL, "", "submit", "echo", "-m", "hi", "--wait"); r.code != exitOK {
		t.Fatalf("%+v", r)
	}
	if r := longhaul(t, welcome.URL, "", "submit", "flaky", "-p", "fail_times=1", "--wait"); r.code != exitOK {
		t.Fatalf("%+v", r)
	}
	_, page := fetch(t, welcome.HTTP+"/metrics")
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(page))
	if err != nil {
		t.Fatalf("%v in\n%s", err, page)
	}
	for _, line := range []string{
		`longhaul_dispatcher_submissions_total{outcome="queued"} 2`,
		`longhaul_worker_attempts_ended_total{agent_key="echo",outcome="succeeded"} 1`,
		`longhaul_worker_attempts_ended_total{agent_key="flaky",outcome="retrying"} 1`,
		`longhaul_broker_connected{service="worker"} 1`,
		`longhaul_broker_connected{service="statekeeper"} 1`,
	} {
		if !strings.Contains(page, line+"\n") {
			t.Errorf("/metrics lacks %s", line)
		}
	}
	// The types that the documents name are those that are served.
	documented := documentedMetrics(t)
	for name, f := range families {
		if d, ok := documented[name]; ok && d.kind != strings.ToLower(f.GetType().String()) {
			t.Errorf("%s is a %s, and a %s in docs/operations.md", name, strings.ToLower(f.GetType().String()), d.kind)
		}
	}
	dev.signal(syscall.SIGINT)
	if code, _ := dev.end(); code != exitOK {
		t.Errorf("exit code %d: %s", code, dev.stderr)
	}
	if code, _ := fetch(t, welcome.HTTP+"/healthz"); code != 0 {
		t.Error("it is served still")
	}
}

// Ready means able to work, and alive does not depend on the broker.
func TestReadyFollowsTheBroker(t *testing.T) {
	t.Parallel()
	cfg := jsutil.EmbeddedConfig{Dir: t.TempDir()}
	broker, err := jsutil.StartEmbedded(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { broker.Shutdown() }()
	url := broker.URL()
	if _, err := fmt.Sscanf(url[strings.LastIndex(url, ":"):], ":%d", &cfg.Port); err != nil {
		t.Fatal(err)
	}
	keeper := start(t, url, "statekeeper", "--http", "127.0.0.1:0")
	wk := start(t, url, "worker", "--agent", "echo", "--http", "127.0.0.1:0", "--pprof", "127.0.0.1:0")
	at := map[string]string{"statekeeper": keeper.address("http"), "worker": wk.address("http")}
	for _, base := range at {
		waitReadyz(t, base, http.StatusOK, "true")
	}
	if code, _ := fetch(t, at["worker"]+"/debug/pprof/"); code != http.StatusNotFound {
		t.Errorf("pprof beside the metrics though it has an address of its own: %d", code)
	}
	if code, _ := fetch(t, wk.address("pprof")+"/debug/pprof/"); code != http.StatusOK {
		t.Errorf("pprof on its own address: %d", code)
	}

	broker.Shutdown()
	for name, base := range at {
		waitReadyz(t, base, http.StatusServiceUnavailable, name+": no connection to the broker")
		if code, body := fetch(t, base+"/healthz"); code != http.StatusOK {
			t.Errorf("%s is said to be dead without a broker: %s", name, body)
		}
	}
	if broker, err = jsutil.StartEmbedded(cfg); err != nil {
		t.Fatal(err)
	}
	for _, base := range at {
		waitReadyz(t, base, http.StatusOK, "true")
	}

	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jsutil.JetStream(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), "RUNS_SCHEDULE"); err != nil {
		t.Fatal(err)
	}
	for name, base := range at {
		waitReadyz(t, base, http.StatusServiceUnavailable, name+": stream RUNS_SCHEDULE")
	}
	if err := jsutil.EnsureTopology(t.Context(), js, jsutil.NewTopology(jsutil.TopologyOptions{})); err != nil {
		t.Fatal(err)
	}
	for _, base := range at {
		waitReadyz(t, base, http.StatusOK, "true")
	}
}

// A service that waits for its broker is alive, and not ready.
func TestAliveWithoutBroker(t *testing.T) {
	t.Parallel()
	p := start(t, "nats://127.0.0.1:1", "dispatcher", "--http", "127.0.0.1:0")
	base := p.address("http")
	waitReadyz(t, base, http.StatusServiceUnavailable, "dispatcher: no connection to the broker")
	if code, body := fetch(t, base+"/healthz"); code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}
	p.signal(syscall.SIGTERM)
	if code, _ := p.end(); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
}

func TestHTTPFlags(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	taken := start(t, url, "dispatcher", "--storage", "memory", "--http", "127.0.0.1:0").address("http")
	for want, args := range map[string][]string{
		"--pprof: must be a loopback address": {"dispatcher", "--pprof", "0.0.0.0:6060"},
		"--http: listen tcp":                  {"dispatcher", "--http", strings.TrimPrefix(taken, "http://")},
		"--once: --http and --pprof":          {"worker", "--agent", "echo", "--once", "--http", "127.0.0.1:0"},
	} {
		if r := longhaul(t, url, "", args...); r.code == exitOK || !strings.Contains(r.stderr, want) {
			t.Errorf("%v: exit code %d, %s", args, r.code, r.stderr)
		}
	}
}

// documented is a metric as docs/operations.md has it.
type documented struct {
	kind   string
	labels []string
}

// documentedMetrics reads the tables of docs/operations.md.
func documentedMetrics(t *testing.T) map[string]documented {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]documented{}
	for line := range strings.Lines(string(page)) {
		cell := strings.Split(line, "|")
		name, found := strings.CutPrefix(strings.TrimSpace(line), "| `longhaul_")
		if !found || len(cell) != 7 {
			continue
		}
		name, _, _ = strings.Cut("longhaul_"+name, "`")
		d := documented{kind: strings.TrimSpace(cell[2])}
		for _, m := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cell[3], -1) {
			d.labels = append(d.labels, m[1])
		}
		slices.Sort(d.labels)
		all[name] = d
	}
	return all
}

// descriptor is what Prometheus writes of a metric's description; there is no
// other way to its name.
var descriptor = regexp.MustCompile(`fqName: "([a-z_]+)", help: "(.*?)", unit: ".*?", constLabels: \{(.*?)\}, variableLabels: \{(.*?)\}`)

// registeredMetrics are all that the services register, with their labels.
func registeredMetrics(t *testing.T) map[string][]string {
	t.Helper()
	nc, err := nats.Connect("nats://127.0.0.1:1", nats.RetryOnFailedConnect(true))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	m, err := shell.Ports{HTTP: "127.0.0.1:0"}.Open("v1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	_, dispatcherErr := dispatcher.New(nc, dispatcher.Config{Metrics: m})
	_, workerErr := worker.New(nc, worker.Config{Metrics: m, Agents: builtin.All()})
	_, keeperErr := statekeeper.New(nc, statekeeper.Config{Metrics: m})
	for _, err := range []error{dispatcherErr, workerErr, keeperErr, m.Watch("worker", nc, jsutil.TopologyOptions{})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	descriptions := make(chan *prometheus.Desc)
	go func() {
		defer close(descriptions)
		m.Describe(descriptions)
	}()
	all := map[string][]string{}
	for d := range descriptions {
		if !strings.Contains(d.String(), `"`+metrics.Namespace+"_") {
			continue // of the Go runtime, or of the process
		}
		found := descriptor.FindStringSubmatch(d.String())
		if found == nil {
			t.Fatalf("cannot read the description %s", d)
		}
		var labels []string
		for _, m := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(found[3], -1) {
			labels = append(labels, m[1])
		}
		if found[4] != "" {
			labels = append(labels, strings.Split(found[4], ",")...)
		}
		slices.Sort(labels)
		all[found[1]] = labels
		if found[2] == "" {
			t.Errorf("%s has no help", found[1])
		}
	}
	return all
}

func TestMetricsAreDocumented(t *testing.T) {
	registered, documented := registeredMetrics(t), documentedMetrics(t)
	if len(registered) < 30 {
		t.Fatalf("only %d metrics were found", len(registered))
	}
	for _, name := range slices.Sorted(maps.Keys(registered)) {
		d, ok := documented[name]
		switch {
		case !ok:
			t.Errorf("%s is registered, and not in docs/operations.md", name)
		case !slices.Equal(d.labels, registered[name]):
			t.Errorf("%s has labels %v, in docs/operations.md %v", name, registered[name], d.labels)
		case strings.HasSuffix(name, "_total") != (d.kind == "counter"):
			t.Errorf("%s cannot be a %s", name, d.kind)
		case slices.Contains(d.labels, "run_id"):
			t.Errorf("%s has a label that grows with the runs", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if _, ok := registered[name]; !ok {
			t.Errorf("%s is in docs/operations.md, and not registered", name)
		}
	}
}
