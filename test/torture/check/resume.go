package check

import (
	"encoding/json"
	"time"

	"longhaul/test/torture/history"
)

// checkResume: invariant 7. A run.started names the checkpoint that the log
// says is the newest, or none; the execution of that epoch was given the state
// with that checkpoint's stamp; and no step of it is one that this state has
// behind it. The state of the newest checkpoint is still in the bucket. It needs
// stamps in states, executions' begins with Resumed, and steps.
func checkResume(j *jury, r *story, steps []step) {
	for _, st := range steps {
		if st.stale {
			continue
		}
		if !st.Checkpoint.equal(st.after.checkpoint) {
			j.breach(7, r.id, "%s says that checkpoint %s is the newest, and it is %s", st.name(), st.Checkpoint, st.after.checkpoint)
		}
		if st.Type == checkpointed && st.Checkpoint != nil && st.before.checkpoint != nil && st.Checkpoint.N <= st.before.checkpoint.N {
			j.breach(7, r.id, "%s names checkpoint %s after %s", st.name(), st.Checkpoint, st.before.checkpoint)
		}
		if st.Type != started {
			continue
		}
		newest := st.before.checkpoint
		if !st.body.ResumedFrom.equal(newest) {
			j.breach(7, r.id, "%s resumes from checkpoint %s, and the newest is %s", st.name(), st.body.ResumedFrom, newest)
		}
		for _, x := range r.execs {
			if x.Exec.Epoch == st.Epoch {
				r.checkResumed(j, x, newest)
			}
		}
	}
	if newest := last(steps).checkpoint; newest != nil && len(r.states) > 0 {
		if _, stored := r.states[newest.Revision]; !stored {
			j.breach(7, r.id, "the state of checkpoint %s is not in the bucket", newest)
		}
	}
}

// checkResumed compares the state that an execution was given with the checkpoint.
func (r *story) checkResumed(j *jury, x *execution, newest *checkpoint) {
	want := r.stampAt(newest)
	if newest != nil && want == nil {
		return // nobody stamps its states
	}
	j.exercised(7, 1)
	given := x.Exec.Resumed
	if (given == nil) != (want == nil) || given != nil && *given != *want {
		j.breach(7, r.id, "the execution of epoch %d was given the state %s, and the newest is %s", x.Exec.Epoch, show(given), show(want))
	}
	for _, step := range x.steps {
		if want != nil && step.Exec.Step <= want.Step {
			j.breach(7, r.id, "the execution of epoch %d takes step %d again, which checkpoint %s has behind it", x.Exec.Epoch, step.Exec.Step, newest)
			return
		}
	}
}

// stampAt is the stamp in a checkpoint's state: from the event that names it,
// else from the bucket; nil if there is none.
func (r *story) stampAt(c *checkpoint) *history.Stamp {
	if c == nil {
		return nil
	}
	for _, e := range r.events {
		if e.Type == checkpointed && e.Checkpoint.equal(c) {
			if stamp := e.stamp(); stamp != nil {
				return stamp
			}
		}
	}
	var in history.Stamped
	_ = json.Unmarshal(r.states[c.Revision].Data, &in) // absent or of any shape
	return in.Stamp
}

func show(s *history.Stamp) string {
	if s == nil {
		return "none"
	}
	text, _ := json.Marshal(s) // always encodes
	return string(text)
}

// checkTimes: invariant 9. By the broker's clock no run.started, and no
// run.queued of a scheduled run, is stored before the not_before, retry_at or
// wake_at that the log states, nor before the not_before of the submission that was
// accepted; a redrive is not bound by that, and a signal that the run waits for ends its wait. A worker's clock that is ahead may start it as much too early.
func (s *stories) checkTimes(j *jury, r *story, steps []step) {
	var asked time.Time
	for _, st := range steps {
		if st.Seq == 1 {
			asked = st.body.Submission.NotBefore
		}
		if st.Type == requeued && st.body.Reason == "redrive" {
			asked = time.Time{} // somebody says: now
		}
		if !st.stale && !st.NotBefore.Equal(st.after.notBefore) {
			j.breach(9, r.id, "%s says not_before %s, and it is %s", st.name(), clock(st.NotBefore), clock(st.after.notBefore))
		}
		if !st.stale && st.WaitsFor != st.after.waitsFor {
			j.breach(9, r.id, "%s says that the run waits for signal %q, and it waits for %q", st.name(), st.WaitsFor, st.after.waitsFor)
		}
		if said := later(st.body.RetryAt, st.body.WakeAt); (st.Type == retrying || st.Type == sleeping) && !said.Equal(st.NotBefore) {
			j.breach(9, r.id, "%s says %s in its payload, not_before %s", st.name(), clock(said), clock(st.NotBefore))
		}
		if st.Type != started && (st.Type != queued || st.before.status != "scheduled") {
			continue
		}
		due := later(st.before.notBefore, asked)
		if due.IsZero() {
			continue
		}
		j.exercised(9, 1)
		granted := s.bounds.Early + s.skew(st.WorkerID, st.stored)
		if early := due.Sub(st.stored); early > granted {
			j.breach(9, r.id, "%s comes %s before its time, %s", st.name(), early, clock(due))
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// clock is a time as stories show it.
func clock(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("15:04:05.000000")
}
