package e2e

import "testing"

// TestOnThreeBrokers runs the most telling one of these tests on three brokers with
// three replicas of everything; make e2e-cluster runs all of them there.
func TestOnThreeBrokers(t *testing.T) {
	if onThree() {
		return // they do already
	}
	t.Setenv(clusterEnv, "1")
	t.Run("killed in any order", TestKilledInAnyOrder)
}
