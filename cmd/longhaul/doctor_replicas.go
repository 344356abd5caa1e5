package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/jsutil"
)

const (
	// looks is how often replicas that are behind are looked at before they are
	// said to be: under load each of them is behind for moments.
	looks = 5
	// lookPause is between two looks.
	lookPause = 300 * time.Millisecond
)

// group is who keeps one stream or one consumer.
type group struct {
	name    string
	cluster *jetstream.ClusterInfo // nil on a single server
}

// streams looks at the replicas of each stream and consumer, and takes the broker's time.
func (x *examination) streams(ctx context.Context) error {
	var few, bad []string
	servers := map[string]bool{}
	var behind map[string]bool // in every look so far; nil before the first
	for look := 1; ; look++ {
		groups, fewest, err := x.groups(ctx)
		if err != nil {
			return err
		}
		few, bad = fewest, nil
		lag := map[string]bool{}
		for _, g := range groups {
			bad = append(bad, g.faults(servers, behind, lag)...)
		}
		behind = lag
		// What is offline or without a leader may be about to come back; but who
		// asks wants to know how it is now.
		if look == looks || len(bad) > len(behind) || len(behind) == 0 {
			break
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lookPause):
		}
	}
	switch {
	case len(bad) > 0:
		x.say("replicas", findingWrong, "some are not well: start the servers that are down, look at the disks of those behind. Stop no other server until this is well", bad...)
	case x.replicas > 0 && x.replicas < x.Replicas:
		x.say("replicas", findingWrong, fmt.Sprintf("fewer than --replicas %d: nats stream edit STREAM --replicas %d", x.Replicas, x.Replicas), few...)
	case x.replicas == 1:
		x.say("replicas", findingOK, "one of each stream: the broker's disk is the only copy, back it up (longhaul backup)")
	case x.replicas > 1:
		x.say("replicas", findingOK, fmt.Sprintf("%d of each stream, all current, on %s", x.replicas, plural(len(servers), "server")))
	}
	return nil
}

// groups asks for all streams and consumers, and how many replicas each stream has.
func (x *examination) groups(ctx context.Context) (all []group, few []string, err error) {
	x.replicas = 0
	for _, want := range jsutil.NewTopology(x.Options()).Streams {
		sent := time.Now()
		s, err := x.js.Stream(ctx, want.Name)
		if err != nil {
			if errors.Is(jsutil.Translate(err), jsutil.ErrNoTopology) {
				continue // said of the topology
			}
			return nil, nil, fmt.Errorf("stream %s: %w", want.Name, jsutil.Translate(err))
		}
		info, got := s.CachedInfo(), time.Now()
		x.hear(info.TimeStamp, sent, got)
		if n := info.Config.Replicas; x.replicas == 0 || n < x.replicas {
			x.replicas = n
		}
		few = append(few, fmt.Sprintf("%s has %d", want.Name, info.Config.Replicas))
		all = append(all, group{want.Name, info.Cluster})
		consumers := s.ListConsumers(ctx)
		for c := range consumers.Info() {
			all = append(all, group{want.Name + " > " + c.Name, c.Cluster})
		}
		if err := consumers.Err(); err != nil {
			return nil, nil, fmt.Errorf("consumers of stream %s: %w", want.Name, jsutil.Translate(err))
		}
	}
	return all, few, nil
}

// faults says what is wrong with a group. Replicas that are behind, and were
// before (nil: nobody has looked before), are also noted in lag.
func (g group) faults(servers, before, lag map[string]bool) (bad []string) {
	if g.cluster == nil {
		return nil
	}
	if g.cluster.Leader == "" {
		bad = append(bad, g.name+" has no leader: most of its replicas are out of reach, or one is being chosen")
	} else {
		servers[g.cluster.Leader] = true
	}
	for _, r := range g.cluster.Replicas {
		servers[r.Name] = true
		who := fmt.Sprintf("%s: the replica on %s", g.name, r.Name)
		switch {
		case r.Offline:
			bad = append(bad, who+" is offline")
		case !r.Current && (before == nil || before[who]):
			lag[who] = true
			bad = append(bad, fmt.Sprintf("%s is %s behind", who, plural(int(r.Lag), "operation"))) //nolint:gosec // a count
		}
	}
	return bad
}
