package main

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
)

// standing is what stands on a broker, but for deletion markers: messages by
// stream, consumers of the work queue, runs that are listed.
func standing(t *testing.T, url string) map[string]int {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	names := js.StreamNames(t.Context())
	for name := range names.Name() {
		s, err := js.Stream(t.Context(), name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue // just now
		}
		if err != nil {
			t.Fatal(err)
		}
		found[name] = int(s.CachedInfo().State.Msgs)
		if name == contracts.StreamWork {
			found["queues"] = s.CachedInfo().State.Consumers
		}
	}
	if err := names.Err(); err != nil {
		t.Fatal(err)
	}
	for bucket, stream := range map[string]string{contracts.BucketRuns: contracts.StreamRuns, contracts.BucketAgents: contracts.StreamAgents} {
		kv, err := js.KeyValue(t.Context(), bucket)
		if err != nil {
			t.Fatal(err)
		}
		keys, err := kv.Keys(t.Context())
		if err != nil && len(keys) > 0 {
			t.Fatal(err)
		}
		found[stream] = len(keys)
	}
	return found
}

// benchLeft waits until nothing stands that was not there before.
func benchLeft(t *testing.T, url string, before map[string]int) {
	t.Helper()
	same := func(after map[string]int) bool {
		a, _ := json.Marshal(before) //nolint:errchkjson // numbers
		b, _ := json.Marshal(after)  //nolint:errchkjson // numbers
		return string(a) == string(b)
	}
	for deadline := time.Now().Add(patience); !same(standing(t, url)); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("before the bench there was %v, after it %v", before, standing(t, url))
		}
	}
}

func TestBench(t *testing.T) {
	t.Parallel()
	url := startDev(t)
	mustSubmit(t, url, "echo", "-m", "hi", "-w")
	before := standing(t, url)
	for range 2 { // the second finds what the first has removed
		r := longhaul(t, url, "", "bench", "--runs", "200", "--rounds", "2", "--latency", "5", "--concurrency", "8", "--json")
		if r.code != exitOK {
			t.Fatal(r)
		}
		var doc benchDocument
		if err := json.Unmarshal([]byte(r.stdout), &doc); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{benchPublish, benchIdeal, benchRuns} {
			if doc.PerSecond[name] <= 0 {
				t.Errorf("%s is not measured: %s", name, r.stdout)
			}
		}
		// 400 runs and the first one, and those that were followed one by one.
		if doc.RatioToIdeal <= 0 || doc.Latencies[benchEnd].Count != 10 || doc.Latencies[benchBegin].Count != 11 {
			t.Errorf("%s", r.stdout)
		}
		benchLeft(t, url, before)
	}
}

func TestBenchRefuses(t *testing.T) {
	t.Parallel()
	url := startDev(t)
	mustSubmit(t, url, "count", "--param", "n=1", "--param", "pause_ms=60000")
	waitFor(t, "the run to be known", func() bool {
		return strings.Contains(longhaul(t, url, "", "list").stdout, "running")
	})
	before := standing(t, url)
	r := longhaul(t, url, "", "bench", "--runs", "100")
	if r.code != exitError || !strings.Contains(r.stderr, "1 run live") || !strings.Contains(r.stderr, "--force") {
		t.Errorf("a broker with a live run: %v", r)
	}
	benchLeft(t, url, before)
	r = longhaul(t, url, "", "bench", "--runs", "100", "--rounds", "1", "--latency", "3", "--force")
	if r.code != exitOK || !strings.Contains(r.stdout, "ideal run") {
		t.Errorf("forced: %v", r)
	}
	benchLeft(t, url, before)
}

// An interruption removes what was made, too.
func TestBenchInterrupted(t *testing.T) {
	t.Parallel()
	url := startDev(t)
	before := standing(t, url)
	p := start(t, url, "bench", "--runs", "2000", "--rounds", "50")
	waitFor(t, "runs of the bench", func() bool { return standing(t, url)[contracts.StreamLog] > 500 })
	p.signal(os.Interrupt)
	if code, _ := p.end(); code != exitInterrupted {
		t.Errorf("exit code %d, want %d; stderr:\n%s", code, exitInterrupted, p.stderr)
	}
	benchLeft(t, url, before)
}
