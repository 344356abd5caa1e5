package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

func TestRedriveByFilter(t *testing.T) {
	t.Parallel()
	const failing = 200
	url := startDev(t)
	var in strings.Builder
	for i := range failing {
		fmt.Fprintf(&in, `{"agent_key":"flaky","max_attempts":1,"metadata":{"batch":"%d"},"input":{"params":{"fail_times":1}}}`+"\n", i%2)
	}
	if r := longhaul(t, url, in.String(), "submit", "-", "--wait"); r.code != exitFailed {
		t.Fatalf("%+v", r)
	}
	slow := mustSubmit(t, url, "count", "-p", "n=1000", "-p", "pause_ms=50", "--timeout", "0.1s", "--metadata", "batch=0")
	good := mustSubmit(t, url, "echo", "--metadata", "batch=0")
	stats := newCounter(t, url)
	count := func(status contracts.Status) int { return stats()[status] }
	waitFor(t, "all runs to have ended in the projection", func() bool {
		return count("failed") == failing && count("timed_out") == 1 && count("succeeded") == 1
	})

	for _, args := range []string{"redrive --status failed", "redrive --agent flaky --json"} {
		r := longhaul(t, url, "y\n", strings.Fields(args)...)
		if r.code != exitUsage || r.stdout != "" || !strings.Contains(r.stderr, "200 runs match, and there is nobody to ask") {
			t.Errorf("without --yes: %+v", r)
		}
	}
	if r := longhaul(t, url, "", "redrive", "--since", "2099-01-01", "--yes"); r.code != exitOK || r.stdout != "" {
		t.Errorf("since a time to come: %+v", r)
	}
	if count("failed") != failing || count("timed_out") != 1 {
		t.Fatal("a redrive that was not confirmed was carried out")
	}

	r := longhaul(t, url, "", "redrive", "--status", "timed_out,cancelled", "--since", "1h", "--metadata", "batch=0")
	if r.code != exitOK || r.stdout != slow+"\n" || !strings.Contains(r.stderr, "1 run: 1 timed out.") {
		t.Errorf("of one run, unasked: %+v", r)
	}
	r = longhaul(t, url, "", "redrive", "--status", "failed", "--agent", "flaky", "--metadata", "batch=1", "--since", "1h", "--from-start", "--by", "ann", "--yes", "--json")
	docs := decodeLines[redriveDocument](t, r.stdout)
	if r.code != exitOK || r.stderr != "" || len(docs) != failing/2 {
		t.Fatalf("exit code %d, %d lines, want %d, stderr %s", r.code, len(docs), failing/2, r.stderr)
	}
	c := newClient(t, url)
	for i, d := range docs {
		if i%20 != 0 {
			continue
		}
		waitFor(t, "it to have failed again", func() bool {
			got, err := c.Get(t.Context(), d.RunID)
			return err == nil && got.Run.Epoch == 2 && got.Run.Status == contracts.StatusFailed
		})
		events := decodeLines[contracts.Event](t, longhaul(t, url, "", "watch", d.RunID, "--json").stdout)
		var p contracts.Requeued
		mustDecode(t, string(events[d.From-1].Payload), &p)
		if events[d.From-1].Type != contracts.TypeRequeued || !p.FromStart || p.By != "ann" || len(events) != 6 {
			t.Errorf("run %s from %d on: %d events, %+v", d.RunID, d.From, len(events), p)
		}
	}
	var got contracts.GetResponse
	mustDecode(t, longhaul(t, url, "", "get", good, "--json").stdout, &got)
	if got.Run.Epoch != 1 {
		t.Errorf("a run that succeeded is in epoch %d", got.Run.Epoch)
	}
}

// newCounter counts runs by status, by a connection of its own: a program for each of many looks would take all the time.
func newCounter(t *testing.T, url string) func() map[contracts.Status]int {
	t.Helper()
	c := newClient(t, url)
	return func() map[contracts.Status]int {
		s, err := c.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.ByStatus
	}
}

func newClient(t *testing.T, url string) *client.Client {
	t.Helper()
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	c, err := client.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAsk(t *testing.T) {
	for answer, yes := range map[string]bool{"y\n": true, "YES\r\n": true, "\n": false, "n\n": false, "": false, "yellow\n": false} {
		var out bytes.Buffer
		a := newApp(strings.NewReader(answer), &out, &out, nil)
		if err := a.ask(t.Context(), "Really?"); (err == nil) != yes || exitCode(err) == exitUsage {
			t.Errorf("%q: %v", answer, err)
		}
		if out.String() != "Really? [y/N] " {
			t.Errorf("asked %q", &out)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	silent, end := io.Pipe() // nobody answers
	t.Cleanup(func() { _ = end.Close() })
	if err := newApp(silent, &bytes.Buffer{}, &bytes.Buffer{}, nil).ask(ctx, "Really?"); !errors.Is(err, errInterrupted) {
		t.Errorf("interrupted: %v", err)
	}
}

// More than a thousand runs match, several pages. It goes through them without a limit of
// time, is interrupted in the midst of it, and goes on with the rest.
func TestRedrivePages(t *testing.T) {
	t.Parallel()
	const n = contracts.MaxListLimit + 200 // two pages; tried by hand with 20,000
	url := startDev(t)
	nc, err := jsutil.Connect(jsutil.ConnectConfig{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jsutil.JetStream(nc)
	if err != nil {
		t.Fatal(err)
	}
	cancelMany(t, runlog.New(js), n)
	stats := newCounter(t, url)
	waitFor(t, "all runs to have ended in the projection", func() bool { return stats()[contracts.StatusCancelled] == n })

	p := start(t, url, "redrive", "--status", "cancelled", "--yes")
	seen := map[string]bool{}
	for range n / 4 {
		seen[strings.TrimSpace(p.line())] = true
	}
	p.signal(syscall.SIGINT)
	code, rest := p.end()
	for _, id := range strings.Fields(rest) {
		seen[id] = true
	}
	if code != exitInterrupted || len(seen) == n || !strings.Contains(p.stderr.String(), "of 1,200 runs") {
		t.Fatalf("exit code %d after %d runs: %s", code, len(seen), p.stderr)
	}
	t.Logf("interrupted after %d", len(seen))
	waitFor(t, "those to wait again", func() bool { return stats()[contracts.StatusPending] >= len(seen) })
	r := longhaul(t, url, "", "redrive", "--status", "cancelled", "--yes")
	for _, id := range strings.Fields(r.stdout) {
		seen[id] = true
	}
	if r.code != exitOK || len(seen) < n-1 { // one was under way at the interruption
		t.Errorf("exit code %d, %d runs of %d: %s", r.code, len(seen), n, r.stderr)
	}
	waitFor(t, "all to wait again", func() bool { return stats()[contracts.StatusPending] == n })
}

// cancelMany makes logs of runs that were cancelled before a worker had them,
// of an agent that no worker hosts.
func cancelMany(t *testing.T, log *runlog.Log, n int) {
	t.Helper()
	const window = 400
	var under []*runlog.Pending
	settle := func() (heads []runlog.Head) {
		for _, p := range under {
			h, err := p.Wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			heads = append(heads, h)
		}
		under = under[:0]
		return heads
	}
	send := func(at runlog.Head, id string, d contracts.Draft) {
		e, err := contracts.Next(at.Head, id, d, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		p, err := log.AppendAsync(at, e)
		if err != nil {
			t.Fatal(err)
		}
		under = append(under, p)
	}
	for made := 0; made < n; made += window {
		for range min(window, n-made) {
			id := contracts.NewRunID()
			send(runlog.Head{}, id, contracts.Draft{Type: contracts.TypeQueued, AgentKey: "nobody", Priority: contracts.PriorityNormal, MaxAttempts: 1,
				Payload: contracts.Queued{Submission: contracts.Submission{RunID: id, AgentKey: "nobody"}}})
		}
		for _, h := range settle() {
			send(h, h.RunID, contracts.Draft{Type: contracts.TypeCancelled})
		}
		settle()
	}
}
