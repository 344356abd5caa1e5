package main

import (
	"context"
	"fmt"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
	"longhaul/test/cluster"
)

// record is not what was seen of a run but what the broker holds of it in the end.
type record struct {
	head   contracts.Head
	events int
	ends   int
	starts int
}

// readLogs reads every run's log from the broker once more, and judges each event
// by the table.
func (s *stage) readLogs(ctx context.Context, res *result) (map[string]record, error) {
	js, err := jsutil.JetStream(s.nc)
	if err != nil {
		return nil, err
	}
	all := map[string]record{}
	for e, err := range runlog.New(js).Scan(ctx, "", 1) {
		if err != nil {
			return nil, fmt.Errorf("read all logs: %w", err)
		}
		k := all[e.RunID]
		head, err := contracts.Apply(k.head, e.Event)
		if err != nil {
			res.fault("the log of run %s, event %d: %v", e.RunID, e.Seq, err)
			head = e.Event.Head()
		}
		k.head = head
		k.events++
		if e.Type.Terminal() {
			k.ends++
		}
		if e.Type == contracts.TypeStarted {
			k.starts++
		}
		all[e.RunID] = k
	}
	return all, nil
}

// lastWait is how long runs have to end when all is well again: twice a lease.
const lastWait = time.Minute

// judge waits for the end of all that was acknowledged, and holds everything
// that can be looked at against what was promised.
func (m *mix) judge(ctx context.Context, windows []window, res *result) error {
	ids, without := m.acknowledged()
	if err := m.s.awaitEnd(ctx, lastWait, ids); err != nil {
		res.fault("%v", err) // what has not ended by then shows below
	}
	m.depart()
	logs, err := m.s.readLogs(ctx, res)
	if err != nil {
		return err
	}
	executions, err := m.s.performances()
	if err != nil {
		return err
	}
	differ, err := m.s.differing(ctx, logs, res)
	if err != nil {
		return err
	}
	for i := range windows {
		windows[i].figures(m, executions)
	}
	res.Windows = windows
	res.shown("runs acknowledged", float64(len(ids)))
	res.exactly("submissions never acknowledged, of a minute's tries", without, 0)
	m.s.judgeLogs(ids, logs, executions, res)
	m.judgeFollowers(logs, res)
	res.exactly("statuses that say something else than the log", differ, 0)
	for _, w := range windows {
		if !w.MayCharge {
			res.exactly(w.Name+": executed more than once", w.Again, 0)
			res.exactly(w.Name+": charged", w.Charged, 0)
		}
	}
	return nil
}

// judgeLogs looks at each run that was acknowledged.
func (s *stage) judgeLogs(ids []string, logs map[string]record, executions map[string][]string, res *result) {
	lost, ill, shown, again, charged := 0, 0, 0, 0, 0
	for _, id := range ids {
		k, is := logs[id]
		switch {
		case !is:
			lost++
			res.fault("run %s was acknowledged and has no log", id)
			continue
		case k.ends != 1 || k.head.Status != contracts.StatusSucceeded:
			ill++
			res.fault("run %s is %s after %d starts, and has %d ends", id, k.head.Status, k.starts, k.ends)
		}
		if n := len(s.seen.events(id)); n != k.events {
			shown++
			res.fault("of run %s the log has %d events, who follows all runs was shown %d", id, k.events, n)
		}
		if len(executions[id]) != 1 {
			again++
		}
		if k.head.Attempt > 1 {
			charged++
		}
	}
	res.exactly("acknowledged and lost", lost, 0)
	res.exactly("without exactly one end, as it should be", ill, 0)
	res.exactly("of which who follows all was shown another history", shown, 0)
	res.shown("executed more than once", float64(again))
	res.shown("with an attempt charged", float64(charged))
}

// judgeFollowers compares what those were shown who follow one run with its log.
func (m *mix) judgeFollowers(logs map[string]record, res *result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	shown := 0
	for id, n := range m.followed {
		if k := logs[id]; n != k.events {
			shown++
			res.fault("of run %s the log has %d events, its follower was shown %d", id, k.events, n)
		}
	}
	res.Faults = append(res.Faults, m.faults...)
	res.shown("runs with a follower of their own", float64(len(m.followed)))
	res.exactly("whose follower was shown another history", shown, 0)
}

// differing counts the statuses that are not what the log says. A status may
// lag: they have a while to agree.
func (s *stage) differing(ctx context.Context, logs map[string]record, res *result) (int, error) {
	var differ []string
	var failed error
	err := cluster.WaitFor(ctx, upTime, "statuses to be those of the logs", func() bool {
		told, err := s.statuses(ctx)
		if failed = err; err != nil {
			return false
		}
		differ = nil
		for id, k := range logs {
			if told[id] != k.head.Status {
				differ = append(differ, fmt.Sprintf("run %s is %q by its status, %s by its log", id, told[id], k.head.Status))
			}
		}
		return len(differ) == 0
	})
	if failed != nil {
		return 0, failed
	}
	if err != nil {
		for _, d := range differ {
			res.fault("%s", d)
		}
	}
	return len(differ), nil
}
