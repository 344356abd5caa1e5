// Package alerts tests what operators are given for Prometheus and Grafana,
// with Prometheus' own libraries. They bring a hundred modules along, so the
// module is not Longhaul's.
package alerts

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
)

const (
	rulesFile = "../../../deploy/prometheus/longhaul.rules.yaml"
	dashboard = "../../../deploy/grafana/longhaul.json"
	manual    = "../../../docs/operations.md"
)

func mustRead(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func alertRules(t *testing.T) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(rulesFile, false, model.LegacyValidation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var all []rulefmt.Rule
	for _, g := range groups.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

// documented are the names of all metrics, as the manual lists them; another
// test holds its list against what is registered.
func documented(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(longhaul_[a-z_]+)` \\| ([a-z]+) \\|").FindAllStringSubmatch(mustRead(t, manual), -1) {
		all[m[1]] = m[2]
	}
	if len(all) < 30 {
		t.Fatalf("only %d metrics in the manual", len(all))
	}
	return all
}

// checkMetrics reports every metric of an expression that does not exist.
func checkMetrics(t *testing.T, where, expr string, known map[string]string) {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		for _, m := range selector.LabelMatchers {
			if m.Name != model.MetricNameLabel {
				continue
			}
			found := slices.ContainsFunc(slices.Collect(maps.Keys(known)), func(name string) bool {
				return m.Matches(name) || known[name] == "histogram" && slices.ContainsFunc([]string{"_bucket", "_sum", "_count"}, func(part string) bool {
					return m.Matches(name + part)
				})
			})
			if !found {
				t.Errorf("%s: no metric is called %s", where, m.Value)
			}
		}
		return nil
	})
}

func TestRules(t *testing.T) {
	text := mustRead(t, manual)
	known := documented(t)
	for _, r := range alertRules(t) {
		checkMetrics(t, r.Alert, r.Expr, known)
		anchor := "docs/operations.md#" + strings.ToLower(r.Alert)
		if r.Annotations["runbook"] != anchor || !strings.Contains(text, "\n### "+r.Alert+"\n") {
			t.Errorf("%s: its runbook is %q, want the section of its name", r.Alert, r.Annotations["runbook"])
		}
		if r.Annotations["summary"] == "" || r.Labels["severity"] != "page" && r.Labels["severity"] != "ticket" {
			t.Errorf("%s: lacks a summary, or has severity %q", r.Alert, r.Labels["severity"])
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^### (Longhaul\w+)$|\(#(longhaul\w+)\)`).FindAllStringSubmatch(text, -1) {
		if !slices.ContainsFunc(alertRules(t), func(r rulefmt.Rule) bool { return strings.EqualFold(r.Alert, m[1]+m[2]) }) {
			t.Errorf("the manual speaks of %s%s, and there is no such alert", m[1], m[2])
		}
	}
}

// healthy is an hour of a deployment at work, a sample every 30 s.
const healthy = `load 30s
  longhaul_broker_connected{service="worker",instance="a"} 1x120
  longhaul_broker_errors_total{service="worker",instance="a",kind="other"} 0+1x120
  longhaul_broker_errors_total{service="worker",instance="a",kind="slow_consumer"} 3x120
  longhaul_worker_loop_timestamp_seconds{instance="a",loop="intake"} 0+30x120
  longhaul_dispatcher_loop_timestamp_seconds{instance="b",loop="tend"} 0+30x120
  longhaul_worker_loop_timestamp_seconds{instance="drained",loop="intake"} 0x120
  longhaul_worker_slots{instance="a"} 10x120
  longhaul_statekeeper_queue_oldest_seconds{instance="c",agent_key="echo",priority="low"} 0+5x20 0x100
  longhaul_statekeeper_queue_oldest_seconds{instance="c",agent_key="paused",priority="low"} 0+30x120
  longhaul_statekeeper_queue_paused{instance="c",agent_key="paused",priority="low"} 1x120
  longhaul_statekeeper_queue_paused{instance="c",agent_key="echo",priority="low"} 0x120
  longhaul_statekeeper_inbox_messages{instance="c",consumer="dispatcher-submit"} 0 40 0 300 0 0x115
  longhaul_statekeeper_storage_used_bytes{instance="c"} 0+50x120
  longhaul_statekeeper_storage_limit_bytes{instance="c"} 10000x120
  longhaul_statekeeper_projection_lag_seconds{instance="c"} 0 1 2 0 1x116
  longhaul_worker_takeovers_total{instance="a"} 0x60 3x60
  longhaul_worker_attempts_ended_total{instance="a",agent_key="echo",outcome="succeeded"} 0+50x120
  longhaul_worker_attempts_ended_total{instance="a",agent_key="echo",outcome="fenced"} 0x60 2x60
  longhaul_worker_lease_silence_seconds{instance="a"} 3 8 10 1x117
  longhaul_worker_abandoned_agents{instance="a"} 0x30 1x6 0x84
  longhaul_worker_runs_closed_total{instance="a",agent_key="echo",status="failed"} 0x120
  longhaul_worker_runs_closed_total{instance="a",agent_key="echo",status="timed_out"} 0+1x120
  longhaul_statekeeper_sweeper_repairs_total{instance="c",kind="requeued"} 0x120
  longhaul_statekeeper_sweeper_repairs_total{instance="c",kind="released"} 0+1x120
  longhaul_statekeeper_poison_events_total{instance="c"} 0x120
`

// scenarios are what each alert is for: a line that takes the place of that of
// the same series in healthy, or none with a leading minus, and by when the
// alert must fire.
var scenarios = map[string]struct {
	instead string
	by      time.Duration
}{
	"LonghaulBrokerDisconnected": {`longhaul_broker_connected{service="worker",instance="a"} 1x20 0x100`, 12 * time.Minute},
	"LonghaulBrokerErrors":       {`longhaul_broker_errors_total{service="worker",instance="a",kind="slow_consumer"} 3x20 4x100`, 12 * time.Minute},
	"LonghaulLoopStuck":          {`longhaul_worker_loop_timestamp_seconds{instance="a",loop="intake"} 0+30x20 600x100`, 14 * time.Minute},
	"LonghaulNoWorker":           {`-longhaul_worker_slots{instance="a"}`, 3 * time.Minute},
	"LonghaulQueueAging":         {`longhaul_statekeeper_queue_oldest_seconds{instance="c",agent_key="echo",priority="low"} 0+30x120`, 9 * time.Minute},
	"LonghaulQueuePaused":        {`longhaul_statekeeper_queue_oldest_seconds{instance="c",agent_key="paused",priority="low"} 13000+30x120`, 52 * time.Minute},
	"LonghaulInboxBacklog":       {`longhaul_statekeeper_inbox_messages{instance="c",consumer="dispatcher-submit"} 0x20 50x100`, 20 * time.Minute},
	"LonghaulStorageFull":        {`longhaul_statekeeper_storage_used_bytes{instance="c"} 0x20 8001x100`, 16 * time.Minute},
	"LonghaulProjectionLag":      {`longhaul_statekeeper_projection_lag_seconds{instance="c"} 0+5x120`, 6 * time.Minute},
	"LonghaulProjectionUnknown":  {`-longhaul_statekeeper_projection_lag_seconds{instance="c"}`, 6 * time.Minute},
	"LonghaulTakeovers":          {`longhaul_worker_takeovers_total{instance="a"} 0x20 0+1x100`, 20 * time.Minute},
	"LonghaulFenced":             {`longhaul_worker_attempts_ended_total{instance="a",agent_key="echo",outcome="fenced"} 0x20 10x100`, 12 * time.Minute},
	"LonghaulLeaseSilent":        {`longhaul_worker_lease_silence_seconds{instance="a"} 3 8 10 1x17 21+1x100`, 13 * time.Minute},
	"LonghaulAgentsAbandoned":    {`longhaul_worker_abandoned_agents{instance="a"} 0x20 1x100`, 17 * time.Minute},
	"LonghaulAttemptsExhausted":  {`longhaul_worker_runs_closed_total{instance="a",agent_key="echo",status="failed"} 0x20 1x100`, 12 * time.Minute},
	"LonghaulSweeperRepairs":     {`longhaul_statekeeper_sweeper_repairs_total{instance="c",kind="requeued"} 0x20 1x100`, 12 * time.Minute},
	"LonghaulPoisonEvents":       {`longhaul_statekeeper_poison_events_total{instance="c"} 0x20 2x100`, 12 * time.Minute},
}

// fired evaluates the rules over an hour of series, and says when each alert
// fired first.
func fired(t *testing.T, series string) map[string]time.Duration {
	t.Helper()
	storage := promqltest.LoadedStorage(t, series)
	defer func() { _ = storage.Close() }()
	engine := promqltest.NewTestEngine(t, false, 5*time.Minute, 1_000_000)
	manager := rules.NewManager(&rules.ManagerOptions{
		QueryFunc: rules.EngineQueryFunc(engine, storage), Appendable: storage, Queryable: storage, Context: t.Context(),
		NotifyFunc: func(_ context.Context, _ string, _ ...*rules.Alert) {}, Logger: slog.New(slog.DiscardHandler),
	})
	groups, errs := manager.LoadGroups(30*time.Second, labels.EmptyLabels(), "", nil, false, rulesFile)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	first := map[string]time.Duration{}
	for at := time.Duration(0); at <= time.Hour; at += 30 * time.Second {
		for _, g := range groups {
			g.Eval(t.Context(), time.Unix(0, 0).Add(at).UTC())
			for _, r := range g.AlertingRules() {
				if err := r.LastError(); err != nil {
					t.Fatalf("%s: %v", r.Name(), err)
				}
				if _, seen := first[r.Name()]; !seen && r.State() == rules.StateFiring {
					first[r.Name()] = at
				}
			}
		}
	}
	return first
}

func TestHealthyIsQuiet(t *testing.T) {
	if first := fired(t, healthy); len(first) > 0 {
		t.Errorf("fired with nothing wrong: %v", first)
	}
}

func TestAlertsFire(t *testing.T) {
	for _, r := range alertRules(t) {
		t.Run(r.Alert, func(t *testing.T) {
			s, ok := scenarios[r.Alert]
			if !ok {
				t.Fatal("there is no scenario for it")
			}
			first := fired(t, replaced(t, s.instead))
			at, ok := first[r.Alert]
			if !ok || at > s.by {
				t.Errorf("fired: %t, after %s; want by %s", ok, at, s.by)
			}
			if len(first) > 1 {
				t.Errorf("fired, too: %v", first)
			}
		})
	}
}

// replaced is healthy with another line for one of its series.
func replaced(t *testing.T, instead string) string {
	t.Helper()
	gone := strings.HasPrefix(instead, "-")
	series, _, _ := strings.Cut(strings.TrimPrefix(instead, "-"), "}")
	var out strings.Builder
	found := false
	for line := range strings.Lines(healthy) {
		switch {
		case !strings.HasPrefix(line, "  "+series+"}"):
			out.WriteString(line)
		case !gone:
			out.WriteString("  " + instead + "\n")
		}
		found = found || strings.HasPrefix(line, "  "+series+"}")
	}
	if !found {
		t.Fatalf("%s is not in the healthy series", series)
	}
	return out.String()
}

func TestDashboard(t *testing.T) {
	var board struct {
		Title, UID string
		Panels     []struct {
			Title, Type, Description string
			Targets                  []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Name, Query string }
		}
	}
	if err := json.Unmarshal([]byte(mustRead(t, dashboard)), &board); err != nil {
		t.Fatal(err)
	}
	known := documented(t)
	// What Grafana puts in before it asks.
	fill := strings.NewReplacer("$__rate_interval", "5m", "$agent", ".*", "$instance", ".*")
	queries := 0
	for _, p := range board.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for i, target := range p.Targets {
			queries++
			checkMetrics(t, fmt.Sprintf("panel %q, query %d", p.Title, i), fill.Replace(target.Expr), known)
		}
	}
	for _, v := range board.Templating.List {
		if m := regexp.MustCompile(`^label_values\((\w+), *\w+\)$`).FindStringSubmatch(v.Query); m != nil {
			checkMetrics(t, "variable "+v.Name, m[1], known)
		}
	}
	if board.UID == "" || queries < 15 {
		t.Errorf("uid %q, %d queries", board.UID, queries)
	}
}
