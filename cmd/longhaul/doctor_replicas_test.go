package main

import (
	"slices"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// A replica is behind when it was in every look; one that is offline, or a
// group without a leader, is told of at once.
func TestFaultsOfAGroup(t *testing.T) {
	of := func(leader string, replicas ...*jetstream.PeerInfo) group {
		return group{"RUNS_LOG", &jetstream.ClusterInfo{Leader: leader, Replicas: replicas}}
	}
	late := &jetstream.PeerInfo{Name: "n2", Lag: 3}
	const who = "RUNS_LOG: the replica on n2"
	for _, tc := range []struct {
		name   string
		g      group
		before map[string]bool
		want   []string
		lag    int
	}{
		{"a single server", group{"RUNS_LOG", nil}, nil, nil, 0},
		{"well", of("n1", &jetstream.PeerInfo{Name: "n2", Current: true}), nil, nil, 0},
		{"behind", of("n1", late), nil, []string{who + " is 3 operations behind"}, 1},
		{"still behind", of("n1", late), map[string]bool{who: true}, []string{who + " is 3 operations behind"}, 1},
		{"behind now, not before", of("n1", late), map[string]bool{}, nil, 0},
		{"offline", of("n1", &jetstream.PeerInfo{Name: "n2", Offline: true}), map[string]bool{}, []string{who + " is offline"}, 0},
		{"without a leader", of(""), map[string]bool{}, []string{"RUNS_LOG has no leader: most of its replicas are out of reach, or one is being chosen"}, 0},
	} {
		lag := map[string]bool{}
		if got := tc.g.faults(map[string]bool{}, tc.before, lag); !slices.Equal(got, tc.want) || len(lag) != tc.lag {
			t.Errorf("%s: %q, %d behind; want %q, %d", tc.name, got, len(lag), tc.want, tc.lag)
		}
	}
}
