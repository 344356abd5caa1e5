package check

import (
	"time"

	"longhaul/test/torture/history"
)

// checkCharges: invariant 8. A start of a run that is held (a takeover) costs
// an attempt, so there must be a reason for it in the history:
//
//   - the holder's process was killed, stopped or cut off, or ended by itself; or
//   - its execution had ended before, because the worker gave the run up by its
//     own clock, and brokers or links were out of order then; or was about to
//     end, and a broker was away for as long as that takes; or
//   - there never was an execution, because the answer to the start was lost in
//     such a time.
//
// A drain is no reason: it gives the run back with run.requeued. Nor is a
// broker's restart while the holder's execution goes on. It needs the faults
// with their targets, and executions with begin and end.
func (s *stories) checkCharges(j *jury, r *story, steps []step) {
	var begun step // the run.started of the epoch that is held
	for _, st := range steps {
		if st.stale {
			continue
		}
		if st.Type == requeued && held(st.before.status) {
			j.exercised(8, 1) // a drain; that it is not charged is 4's to see
		}
		if held(st.Status) && s.find(st.stored.Add(-s.bounds.Settle), st.stored, isBroker) != nil && st.Type != started {
			j.exercised(8, 1) // it went on behind a broker's restart
		}
		if st.Type == started && held(st.before.status) {
			j.exercised(8, 1)
			s.checkTakeover(j, r, begun, st)
		}
		if st.Type == started {
			begun = st
		}
	}
}

func isBroker(f *fault) bool { return f.Name == history.FaultBroker }

// checkTakeover asks for the reason of a takeover.
func (s *stories) checkTakeover(j *jury, r *story, begun, over step) {
	from, to := begun.stored.Add(-s.bounds.Slack), over.stored.Add(s.bounds.Slack)
	worker := begun.WorkerID
	if s.touched(worker, from, to) != nil {
		return
	}
	// Its own clock runs out some while after the brokers' trouble.
	troubled := s.shaken(from.Add(-s.bounds.Settle), to) != nil
	var x *execution
	for _, c := range r.execs {
		if c.Exec.Epoch == begun.Epoch && c.Exec.Worker == worker {
			x = c
		}
	}
	switch {
	case x == nil && troubled:
	case x == nil:
		j.breach(8, r.id, "%s by %s: epoch %d of %s was never executed, and nothing was out of order", over.name(), over.WorkerID, begun.Epoch, worker)
	// Its lease is as young as its start: what was over before is no reason.
	case x.end == nil || x.over().After(over.stored) && s.outage(from.Add(-s.bounds.Wake), to) < s.bounds.Outage:
		j.breach(8, r.id, "%s by %s: %s was executing it, and nothing had befallen it", over.name(), over.WorkerID, worker)
	case troubled:
	case x.cause() == history.CauseShutdown:
		j.breach(8, r.id, "%s by %s: %s was drained, and charged for it", over.name(), over.WorkerID, worker)
	case x.Exec.Deaf && x.cause() == "":
	default:
		j.breach(8, r.id, "%s by %s: the execution of %s had ended (%s) at %s, and nothing was out of order",
			over.name(), over.WorkerID, worker, x.cause(), clock(x.over()))
	}
}

// outage is the longest time, of those that reach beyond from, for which a
// broker had been down by to; two such times that follow each other closely
// are taken together.
func (s *stories) outage(from, to time.Time) (longest time.Duration) {
	var begin, end time.Time
	for _, f := range s.faults { // in the order of their begins
		if !f.during(from, to) || f.Name != history.FaultBroker && f.Name != history.FaultStall {
			continue
		}
		if end.IsZero() || f.begin.Sub(end) > s.bounds.Settle/2 {
			begin, end = f.begin, f.end
		}
		end = later(end, f.end)
		if end.After(to) {
			end = to
		}
		longest = max(longest, end.Sub(begin))
	}
	return longest
}

// checkMovers: invariant 10. A run that is live when the dump is taken has a
// work message, a schedule, or a holder whose execution goes on. And one whose
// work message the nemesis deleted came to its end, which 1 sees to. It needs
// the dumps, and the faults with Entry.Run.
func (s *stories) checkMovers(j *jury, r *story, steps []step) {
	for _, f := range s.faults {
		if f.Name == history.FaultDeleteWork && f.run == r.id {
			j.exercised(10, 1)
		}
	}
	at := last(steps)
	if at.status == "" || next[at.status] == nil || redrivable(at.status) {
		return
	}
	j.exercised(10, 1)
	if len(r.work) > 0 || len(r.schedule) > 0 {
		return
	}
	for _, x := range r.execs {
		if held(at.status) && x.Exec.Epoch == at.epoch && x.end == nil {
			return
		}
	}
	j.breach(10, r.id, "the run is %s in epoch %d, and nothing would move it", at.status, at.epoch)
}

// leftOver counts the work messages of runs that have ended.
func (s *stories) leftOver() (n int) {
	for _, r := range s.order {
		if l := len(r.events); l > 0 && terminal(r.events[l-1].Type) {
			n += len(r.work)
		}
	}
	return n
}

// checkCancels: invariant 11. Behind an acknowledged cancel the run is
// terminal within Bounds.Cancel, not counting the time in which faults were in
// force or in their wake. It may have ended otherwise: the cancel may have come
// too late. It needs the cancels with their outcomes.
func (s *stories) checkCancels(j *jury, r *story) {
	for _, o := range r.cancels {
		if !o.acked() || len(r.events) == 0 {
			continue
		}
		if r.events[0].stored.After(o.Time) {
			continue // it waits for its submission, but not for ever
		}
		j.exercised(11, 1)
		due := s.quiet(o.answer.Time).Add(s.bounds.Cancel)
		over := false
		for _, e := range r.events {
			switch {
			case e.stored.Before(o.Time):
				over = terminal(e.Type)
			case terminal(e.Type) && e.stored.Before(due):
				over = true
			}
		}
		if !over && s.end.After(due) {
			j.breach(11, r.id, "a cancel was acknowledged at %s, and the run had not ended by %s", clock(o.answer.Time), clock(due))
		}
	}
}
