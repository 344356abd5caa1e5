package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"longhaul/internal/bench"
)

func some(rate, cpu float64) sample {
	return sample{PerSecond: rate, CPU: map[string]float64{"client": cpu, "worker": 2 * cpu}, Allocs: map[string]float64{"worker": cpu}}
}

// measured is a report of three rounds: the machine was slow in the last one,
// for both.
func measured(t *testing.T) *report {
	t.Helper()
	r := newReport(options{rounds: 3})
	g := group{name: "end-to-end", stage: stageConfig{name: "one replica"}}
	of, ours := measurement{name: ideal64}, measurement{name: ours64, of: ideal64}
	for _, round := range [][2]sample{{some(1000, 50), some(500, 90)}, {some(1100, 40), some(660, 100)}, {some(100, 60), some(60, 110)}} {
		for i, m := range []measurement{of, ours} {
			if err := r.add(g, m, 1000, round[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	return r
}

func TestRatiosAreThoseOfTheSameRound(t *testing.T) {
	r := measured(t)
	ours := r.find("end-to-end", ours64)
	if math.Abs(ours.Ratio-0.6) > 1e-9 || ours.Median.PerSecond != 500 || ours.Median.cpu() != 300 {
		t.Errorf("ratio %v, want 0.6; %v a second, want 500; %v us, want 300", ours.Ratio, ours.Median.PerSecond, ours.Median.cpu())
	}
	if of := r.find("end-to-end", ideal64); of.Ratio != 0 || of.Median.PerSecond != 1000 {
		t.Errorf("the ideal run: ratio %v, want none; %v a second", of.Ratio, of.Median.PerSecond)
	}
}

func TestLatenciesOfAllRoundsAreTogether(t *testing.T) {
	r := newReport(options{rounds: 2})
	g, m := group{name: "latency"}, measurement{name: "at rest"}
	for round := range 2 {
		h := bench.NewLatencies()
		for range 100 {
			h.Record(time.Duration(1+round) * time.Millisecond)
		}
		if err := r.add(g, m, 100, sample{latencies: latencies{toEnd: h}}); err != nil {
			t.Fatal(err)
		}
	}
	if q := r.Lines[0].Latencies[toEnd]; q.Count != 200 || q.P50 != 1 || math.Abs(q.P99-2) > 0.01 {
		t.Errorf("%+v", q)
	}
}

func TestReportIsShown(t *testing.T) {
	r := measured(t)
	r.Figures = []figure{{"depth", "500,000 wait: execute", 5123, "runs/s"}}
	var peers peersReport
	peers.Lines = append(peers.Lines, struct {
		Name   string
		Median struct {
			PerSecond float64 `json:"per_second"`
			CPU       float64 `json:"cpu_us"`
		}
	}{Name: "a <queue> & its kin"})
	peers.Lines[0].Median.PerSecond = 4321
	picture := r.draw(&peers)
	for dec := xml.NewDecoder(strings.NewReader(picture)); ; {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the picture: %v\n%s", err, picture)
		}
	}
	var table, tables bytes.Buffer
	r.print(&table)
	r.markdown(&tables)
	for _, c := range []struct{ what, text, want string }{
		{"picture", picture, ">0.60<"}, {"picture", picture, ">4321<"}, {"picture", picture, "a &lt;queue&gt;"},
		{"table", table.String(), "0.60"}, {"table", table.String(), "5123 runs/s"},
		{"markdown", tables.String(), "| longhaul, 64 slots | 500 | 0.60 | 300 | 100 | 0 | 0 | 200 | 0 | 100 |"}, {"markdown", tables.String(), "| 500,000 wait: execute | 5,120 runs/s |"},
	} {
		if !strings.Contains(c.text, c.want) {
			t.Errorf("the %s lacks %q:\n%s", c.what, c.want, c.text)
		}
	}
}

func TestOnlyNamesGroups(t *testing.T) {
	if some, err := chosen("latency,synced"); err != nil || len(some) != 2 || some[0].name != "latency" || some[1].name != "synced" {
		t.Errorf("%v, %v", some, err)
	}
	if _, err := chosen("nothing"); err == nil || !strings.Contains(err.Error(), "end-to-end") {
		t.Errorf("an error that names what there is, not %v", err)
	}
	for _, g := range groups() {
		for _, m := range g.all {
			if m.of != "" && !has(g.all, m.of) {
				t.Errorf("%s: %s is held against %s, which is not measured beside it", g.name, m.name, m.of)
			}
		}
	}
}

func has(all []measurement, name string) bool {
	for _, m := range all {
		if m.name == name {
			return true
		}
	}
	return false
}
