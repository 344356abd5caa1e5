package main

import (
	"context"
	"fmt"
	"time"

	"longhaul/test/cluster"
	"longhaul/test/torture/history"
)

// linkFaults harm the links between one process and the brokers.
func linkFaults() []fault {
	return []fault{
		{name: "cut", lane: laneLinks, weight: 3, do: onLinks(func(h *harm, l *cluster.Link) { l.Cut() })},
		{name: "drop", lane: laneLinks, weight: 2, do: onLinks(func(h *harm, l *cluster.Link) { l.Drop() })},
		{name: "hold", lane: laneLinks, weight: 3, do: onLinks(func(h *harm, l *cluster.Link) { l.Hold(cluster.Up, cluster.Down) })},
		{name: "hold-up", lane: laneLinks, weight: 2, do: onLinks(func(h *harm, l *cluster.Link) { l.Hold(cluster.Up) })},
		{name: "hold-down", lane: laneLinks, weight: 3, do: onLinks(func(h *harm, l *cluster.Link) { l.Hold(cluster.Down) })},
		{name: "slow", lane: laneLinks, weight: 2, do: onLinks(func(h *harm, l *cluster.Link) { l.Slow(h.between(5*time.Millisecond, 200*time.Millisecond)) })},
		{name: "lost-answer", lane: laneLinks, weight: 5, do: lostAnswer},
	}
}

// linked is a process by its links: a service or a client of the load.
type linked struct {
	who   func() string // a worker has another id in each life
	links []*cluster.Link
}

func (h *harm) anyLinked() linked {
	var all []linked
	for _, sv := range h.s.all {
		all = append(all, linked{sv.who, sv.links})
	}
	for _, c := range h.s.loaders() {
		all = append(all, linked{func() string { return c.name }, c.links})
	}
	return all[h.rng.IntN(len(all))]
}

// onLinks does something to all links of one process, for less or more than a lease.
func onLinks(do func(*harm, *cluster.Link)) func(context.Context, *harm) error {
	return func(ctx context.Context, h *harm) error {
		who := h.anyLinked()
		d := h.between(200*time.Millisecond, 3*time.Second)
		if h.rng.IntN(3) == 0 {
			d = h.between(h.s.o.lease-time.Second, h.s.o.lease+5*time.Second)
		}
		name, begun := who.who(), time.Now()
		end := h.begin(history.FaultPartition, name, 0)
		for _, l := range who.links {
			do(h, l)
		}
		_ = cluster.Sleep(ctx, d)
		for _, l := range who.links {
			l.Heal()
		}
		end()
		if again := who.who(); again != name { // started again meanwhile, behind the same links
			f := history.Fault{Name: history.FaultPartition, Target: again}
			h.write(history.OpBegin, begun, f, "")
			h.write(history.OpEnd, time.Now(), f, "")
		}
		return nil
	}
}

// lostAnswer lets a write pass and loses what the broker says to it.
func lostAnswer(ctx context.Context, h *harm) error {
	var who linked
	var pattern string
	switch h.rng.IntN(5) {
	case 0:
		sv := h.one(kindDispatcher)
		who, pattern = linked{sv.who, sv.links}, "PUB runs.work."
	case 1:
		sv := h.one(kindDispatcher)
		who, pattern = linked{sv.who, sv.links}, ".log "
	case 2:
		sv := h.one(kindStatekeeper)
		who, pattern = linked{sv.who, sv.links}, "PUB $KV.runs.status."
	case 3:
		all := h.s.loaders()
		c := all[h.rng.IntN(len(all))]
		who, pattern = linked{func() string { return c.name }, c.links}, "PUB runs."
	default:
		sv := h.one(kindWorker)
		who, pattern = linked{sv.who, sv.links}, ".log "
	}
	t := cluster.Trap{Way: cluster.Up, Pattern: []byte(pattern), Before: h.rng.IntN(5) == 0}
	if !h.trap(ctx, who.links, t, 2*time.Second, func() { h.begin(history.FaultPartition, who.who(), 0)() }) {
		return fmt.Errorf("nothing of the kind passed at %s", who.who())
	}
	return nil
}
