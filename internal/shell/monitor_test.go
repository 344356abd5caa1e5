package shell

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"longhaul/pkg/metrics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestLoopback(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:1": true, "[::1]:1": true, "localhost:1": true, "127.9.9.9:1": true,
		"0.0.0.0:1": false, ":1": false, "10.0.0.1:1": false, "localhost.example.com:1": false, "127.0.0.1": false,
	} {
		if loopback(address) != want {
			t.Errorf("loopback(%q) is %t", address, !want)
		}
	}
}

func TestStuckLoops(t *testing.T) {
	set := metrics.NewSet("worker")
	turning, idle := set.Loop("intake"), set.Loop("heartbeat")
	idle.Stop()
	turning.Turn()
	now := time.Now()
	if i, s := loopsOf([]*metrics.Set{set}, now); len(i) != 1 || len(s) != 0 {
		t.Errorf("idle %q, stuck %q", i, s)
	}
	if i, s := loopsOf([]*metrics.Set{set}, now.Add(stallAfter+time.Second)); len(i) != 1 || len(s) != 1 || !strings.Contains(s[0], "worker: loop intake has not turned for 1m1s") {
		t.Errorf("idle %q, stuck %q", i, s)
	}
}
