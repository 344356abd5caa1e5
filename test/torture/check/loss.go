package check

import "longhaul/test/torture/history"

// checkLoss: invariant 14, beside what checkSubmits and checkReaders see of it:
//
//   - a checkpoint whose agent was told that it is committed stands in the log;
//   - the success of a run is that of an execution;
//   - a redrive that was acknowledged when the run had ended badly for good
//     began a round. Commands may overtake each other, so only one that came
//     behind all else says something.
//
// It needs agents' checkpoints with stamps, executions' ends, and redrives.
func (s *stories) checkLoss(j *jury, r *story, steps []step) {
	stamps := map[history.Stamp]bool{}
	for _, st := range steps {
		if stamp := r.stampOf(st.event); stamp != nil && st.Type == checkpointed {
			stamps[*stamp] = true
		}
	}
	for _, x := range r.execs {
		for _, o := range x.saves {
			if !o.acked() || o.Exec.Stamp == nil {
				continue
			}
			j.exercised(14, 1)
			if !stamps[*o.Exec.Stamp] {
				j.breach(14, r.id, "a checkpoint was committed, as its agent was told at %s, and the log does not have it: %s",
					clock(o.answer.Time), show(o.Exec.Stamp))
			}
		}
	}
	if len(r.events) == 0 {
		return
	}
	e := r.events[len(r.events)-1]
	for _, o := range r.redrives {
		if !o.acked() {
			continue
		}
		j.exercised(14, 1)
		if redrivable(e.Status) && o.Time.Sub(e.stored) > s.bounds.Slack && s.end.Sub(s.quiet(o.answer.Time)) > s.bounds.Cancel {
			j.breach(14, r.id, "a redrive was acknowledged at %s, and no round began behind %s", clock(o.answer.Time), e.name())
		}
	}
}

// checkExecutions: invariant 15, and what executions tell of 4. Each execution
// has a run.started of its epoch, attempt and worker, stored before it began,
// and no two have the same. A run that succeeded was executed, in that epoch.
// Behind a newer start an execution of an older epoch may go on while its
// worker does not know of it, and no longer: it takes no step more than
// Bounds.Zombie after it, not counting the time in which its process was
// stopped. Agents that do not listen are not asked to. It needs executions with
// begin, steps and end.
func (s *stories) checkExecutions(j *jury, r *story, steps []step) {
	starts := map[uint64]step{}
	for _, st := range steps {
		if st.Type == started && !st.stale {
			starts[st.Epoch] = st
		}
	}
	seen := map[uint64]*execution{}
	for _, x := range r.execs {
		j.exercised(15, 1)
		st, ok := starts[x.Exec.Epoch]
		switch {
		case !ok:
			j.breach(15, r.id, "worker %s executes epoch %d, which the log does not have", x.Exec.Worker, x.Exec.Epoch)
			continue
		case st.WorkerID != x.Exec.Worker || st.Attempt != x.Exec.Attempt:
			j.breach(15, r.id, "worker %s executes epoch %d as attempt %d, and the log says worker %s, attempt %d",
				x.Exec.Worker, x.Exec.Epoch, x.Exec.Attempt, st.WorkerID, st.Attempt)
		case st.stored.Sub(x.Time) > s.bounds.Slack:
			j.breach(15, r.id, "the execution of epoch %d began at %s, before its start was stored at %s", x.Exec.Epoch, clock(x.Time), clock(st.stored))
		}
		if seen[x.Exec.Epoch] != nil {
			j.breach(15, r.id, "epoch %d is executed twice, at %s and at %s", x.Exec.Epoch, clock(seen[x.Exec.Epoch].Time), clock(x.Time))
		}
		seen[x.Exec.Epoch] = x
		if next, ok := starts[x.Exec.Epoch+1]; ok && !x.Exec.Deaf {
			s.checkZombie(j, r, x, next)
		}
	}
	for _, st := range steps {
		if st.Type != succeeded || st.stale || !s.agents[st.AgentKey] {
			continue
		}
		if x := seen[st.Epoch]; x == nil || x.end == nil || x.end.Exec.Outcome != history.OutcomeSucceeded {
			j.breach(15, r.id, "%s, and no execution of that epoch came to a good end", st.name())
		}
	}
}

// checkZombie judges what an execution still did behind the start of the next epoch.
func (s *stories) checkZombie(j *jury, r *story, x *execution, next step) {
	for i := len(x.steps) - 1; i >= 0; i-- {
		at := x.steps[i].Time
		if !at.After(next.stored) {
			return
		}
		awake := at.Sub(next.stored)
		for _, f := range s.faults { // one at a time, of one process
			if f.Name == history.FaultStop && f.Target == x.Exec.Worker && f.during(next.stored, at) {
				awake -= earlier(f.end, at).Sub(later(f.begin, next.stored))
			}
		}
		if awake > s.bounds.Zombie {
			j.breach(15, r.id, "the execution of epoch %d by %s took step %d %s after epoch %d had begun",
				x.Exec.Epoch, x.Exec.Worker, x.steps[i].Exec.Step, awake, next.Epoch)
			return
		}
	}
}
