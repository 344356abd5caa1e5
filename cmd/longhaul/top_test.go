package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"longhaul/pkg/contracts"
)

func TestTop(t *testing.T) {
	t.Parallel()
	url := startDev(t)
	ended := mustSubmit(t, url, "echo", "-m", "hi")
	if r := longhaul(t, url, "", "watch", ended); r.code != exitOK {
		t.Fatalf("%+v", r)
	}
	running := mustSubmit(t, url, "count", "-p", "n=100000", "-p", "pause_ms=50")
	if r := longhaul(t, url, "", "pause", "echo"); r.code != exitOK {
		t.Fatalf("%+v", r)
	}
	mustSubmit(t, url, "echo", "--priority", "low", "-m", "waits")
	var v view
	var holder string
	waitFor(t, "the view to have all of it", func() bool {
		r := longhaul(t, url, "", "top", "--json")
		if r.code != exitOK {
			t.Fatalf("%+v", r)
		}
		v = view{}
		mustDecode(t, r.stdout, &v)
		for id := range v.Workers {
			holder = id
		}
		waiting := false
		for _, q := range v.Queues {
			waiting = waiting || q.AgentKey == "echo" && q.Priority == contracts.PriorityLow && q.Waiting == 1 && q.OldestSeconds > 0 && q.Paused
		}
		return waiting && len(v.Workers) == 1 && v.Workers[holder] == 1 && len(v.Runs) == 1 && v.Runs[0].RunID == running && v.ByStatus[contracts.StatusSucceeded] == 1
	})
	r := longhaul(t, url, "", "top", "--once")
	for _, words := range []string{"1 running", "1 succeeded", running, holder, "paused", "low"} {
		if !strings.Contains(r.stdout, words) {
			t.Errorf("it does not show %q:\n%s", words, r.stdout)
		}
	}
	if strings.Contains(r.stdout, "\x1b") {
		t.Errorf("it steers a terminal that is none: %q", r.stdout)
	}
	if r := longhaul(t, url, "", "top", "--runs", "-1"); r.code != exitUsage {
		t.Errorf("%+v", r)
	}
}

// Rates are over what was counted, and what lies behind does not count.
func TestRates(t *testing.T) {
	now := time.Unix(1000, 0)
	m := &meter{now: func() time.Time { return now }, begun: now}
	m.count(contracts.TypeStarted)
	m.count(contracts.TypeStarted)
	m.count(contracts.TypeHeartbeat)
	now = now.Add(2 * time.Second)
	m.count(contracts.TypeSucceeded)
	if r := m.rates(); r["started"] != 1 || r["succeeded"] != 0.5 || r["failed"] != 0 || len(r) != len(rateNames()) {
		t.Errorf("after 2 s: %v", r)
	}
	now = now.Add(rateWindow - time.Second)
	if r := m.rates(); r["started"] != 0 || r["succeeded"] != 0.1 {
		t.Errorf("after 11 s: %v", r)
	}
}

// A frame never scrolls the terminal, nor runs over its edge.
func TestPaintFrame(t *testing.T) {
	var out bytes.Buffer
	a := newApp(nil, &out, nil, func(string) string { return "" })
	a.out = console{w: &out, color: true, now: time.Now}
	a.paintFrame(strings.Repeat(a.out.red(strings.Repeat("é", 200))+"\n", 50))
	if n := strings.Count(out.String(), "\r\n"); n != 23 {
		t.Errorf("%d lines on 24", n)
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(strings.TrimPrefix(out.String(), "\x1b[H"), "\x1b[J"), "\r\n") {
		if w := visibleWidth(strings.ReplaceAll(line, "\x1b[K", "")); w > 80 {
			t.Errorf("%d characters in %q", w, line)
		}
	}
	if !strings.Contains(out.String(), "28 more lines") {
		t.Errorf("it does not say what is left out: %q", out.String())
	}
}
