package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
)

// varz answers as a nats-server's monitoring port does (2.15.2).
func varz(t *testing.T, version, jetstream string) string {
	return monitored(t, version, jetstream, "")
}

// monitored is varz of a server that says what ails it; "" for one that is well.
func monitored(t *testing.T, version, jetstream, unhealthy string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/varz":
			fmt.Fprintf(w, `{"server_name":"n1","version":%q,"jetstream":%s}`, version, jetstream)
		case "/healthz":
			if unhealthy != "" {
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprintf(w, `{"status":"unavailable","status_code":503,"error":%q}`, unhealthy)
				return
			}
			fmt.Fprint(w, `{"status":"ok"}`)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestDoctorOfServers(t *testing.T) {
	t.Parallel()
	url := startDev(t)
	told := func(args ...string) map[string]finding {
		t.Helper()
		var doc struct{ Findings []finding }
		mustDecode(t, longhaul(t, url, "", append([]string{"doctor", "--storage", "memory", "--json"}, args...)...).stdout, &doc)
		found := map[string]finding{}
		for _, f := range doc.Findings {
			if found[f.What].State != findingWrong {
				found[f.What] = f
			}
		}
		return found
	}
	const well = `{"config":{"max_storage":1000000,"sync_interval":120000000000,"sync_always":true},"stats":{"storage":1000,"reserved_storage":0}}`
	for _, tc := range []struct {
		name  string
		args  []string
		state map[string]string
		words string // of the first
	}{
		{"nobody to ask", nil, map[string]string{"fsync": findingUnknown, "disk": findingUnknown, "health": findingUnknown, "clocks": findingOK, "replicas": findingOK,
			"account": findingOK, "versions": findingOK, "permissions": findingOK, "broker": findingOK, "topology": findingOK}, ""},
		{"well", []string{"--monitor", varz(t, "2.15.2", well)}, map[string]string{"fsync": findingOK, "disk": findingOK, "broker": findingOK, "health": findingOK}, ""},
		{"catching up", []string{"--monitor", monitored(t, "2.15.2", well, "JetStream stream 'app > RUNS_LOG' is not current")},
			map[string]string{"health": findingWrong}, "Stop no other one"},
		{"lazy", []string{"--monitor", varz(t, "2.15.2", strings.Replace(well, "true", "false", 1))}, map[string]string{"fsync": findingWrong}, "sync_interval: always"},
		{"full", []string{"--monitor", varz(t, "2.15.2", strings.Replace(well, `"storage":1000`, `"storage":900000`, 1))}, map[string]string{"disk": findingWrong}, "max_file_store"},
		{"reserved", []string{"--monitor", varz(t, "2.15.2", strings.Replace(well, `"reserved_storage":0`, `"reserved_storage":900000`, 1))}, map[string]string{"disk": findingWrong}, ""},
		{"old", []string{"--monitor", varz(t, "2.10.4", well)}, map[string]string{"broker": findingWrong}, "2.10.4"},
		{"gone", []string{"--monitor", "http://127.0.0.1:1"}, map[string]string{"servers": findingWrong}, "http://127.0.0.1:1"},
		{"replicas", []string{"--replicas", "3"}, map[string]string{"replicas": findingWrong}, "nats stream edit"},
	} {
		found := told(tc.args...)
		for what, state := range tc.state {
			if f := found[what]; f.State != state || !strings.Contains(f.Words, tc.words) {
				t.Errorf("%s: %s is %+v, want %s and %q", tc.name, what, f, state, tc.words)
			}
		}
	}
}

// An event that was written by a clock that is wrong gives its worker away.
func TestDoctorOfClocks(t *testing.T) {
	t.Parallel()
	url := startDev(t)
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	log, id, head := runlog.New(js), contracts.NewRunID(), runlog.Head{}
	for _, d := range []contracts.Draft{
		{Type: contracts.TypeQueued, AgentKey: "echo", Priority: contracts.PriorityNormal, MaxAttempts: 1, Payload: contracts.Queued{}},
		{Type: contracts.TypeStarted, WorkerID: "w-late", Payload: contracts.Started{AgentKey: "echo", Epoch: 1, Attempt: 1}},
		{Type: contracts.TypeSucceeded, WorkerID: "w-late", Payload: contracts.Succeeded{}},
	} {
		e, err := contracts.Next(head.Head, id, d, time.Now().Add(-time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		if head, err = log.Append(t.Context(), head, e); err != nil {
			t.Fatal(err)
		}
	}
	r := longhaul(t, url, "", "doctor", "--storage", "memory")
	if r.code != exitError || !strings.Contains(r.stdout, "worker w-late's clock is -1m from the broker's") {
		t.Errorf("%+v", r)
	}
}

// The broker's clock is judged by what is certain of it.
func TestHear(t *testing.T) {
	now := time.Now()
	x := &examination{}
	x.hear(now.Add(10*time.Second), now, now.Add(4*time.Second))
	x.hear(now.Add(8*time.Second), now, now.Add(2*time.Millisecond))
	x.hear(time.Time{}, now, now)
	if x.heard != 2 || x.within != time.Millisecond || x.offset != 8*time.Second-time.Millisecond {
		t.Errorf("%d answers, offset %s within %s", x.heard, x.offset, x.within)
	}
	for version, want := range map[string]bool{"2.11.9": true, "1.99.0": true, "2.12.0": false, "2.15.2": false, "3.0.0": false, "": false} {
		if tooOld(version) != want {
			t.Errorf("tooOld(%s) is %t", version, !want)
		}
	}
}

// In the midst of an upgrade statekeepers of two versions answer.
func TestDoctorOfVersions(t *testing.T) {
	for _, tc := range []struct {
		keepers []keeper
		mixed   bool
	}{{[]keeper{{Version: "0.1.0"}, {Version: "0.1.0"}}, false}, {[]keeper{{Version: "0.1.0"}, {Version: "0.2.0"}}, true}} {
		x := &examination{}
		x.versions(tc.keepers)
		f := x.findings[0]
		if strings.Contains(f.Words, "several versions run side by side") != tc.mixed || !strings.Contains(f.Words, "this is longhaul ") || tc.mixed != (len(f.Names) == 2) {
			t.Errorf("%+v: %+v", tc.keepers, f)
		}
	}
}
