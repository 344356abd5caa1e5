package statekeeper

import (
	"strings"
	"testing"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

func TestConfigFaultsComeTogether(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	if _, err := New(b.NC, Config{}); err != nil {
		t.Errorf("the zero config: %v", err)
	}
	_, err := New(b.NC, Config{Topology: jsutil.TopologyOptions{Replicas: -1}, Version: "one", CheckpointHistory: -1,
		RetentionFor: map[contracts.Status]time.Duration{contracts.StatusFailed: -time.Hour, contracts.StatusRunning: time.Hour}})
	if err == nil {
		t.Fatal("a config full of faults was taken")
	}
	for _, want := range []string{"replicas", "version", "checkpoint history must be at least 1, not -1", "retention for failed: must be more than 0, not -1h0m0s", `retention for "running": is no status that a run ends with`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %s in: %v", want, err)
		}
	}
}
