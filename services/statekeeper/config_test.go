package statekeeper

import (
	"strings"
	"testing"

	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

func TestConfigFaultsComeTogether(t *testing.T) {
	t.Parallel()
	b := jstest.Start(t)
	if _, err := New(b.NC, Config{}); err != nil {
		t.Errorf("the zero config: %v", err)
	}
	_, err := New(b.NC, Config{Topology: jsutil.TopologyOptions{Replicas: -1}, Version: "one"})
	if err == nil {
		t.Fatal("a config full of faults was taken")
	}
	for _, want := range []string{"replicas", "version"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %s in: %v", want, err)
		}
	}
}
