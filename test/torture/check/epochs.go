package check

import "longhaul/test/torture/history"

// checkEpochs: invariant 4. The log is folded: each run.started has the epoch
// and the attempt before it plus one, a drain and a sleep take theirs back, a
// redrive begins at 0, and nothing else moves either. Beside the envelopes, starts that
// no drain took back are counted in each round and held against max_attempts:
// a crash leaves a start without anything, and is charged so. What agents saw
// has to agree: checkExecutions.
func checkEpochs(j *jury, r *story, steps []step) {
	for n, round := range rounds(steps) {
		starts, refunds := 0, 0
		for _, st := range round.steps {
			if st.stale {
				continue
			}
			if st.Epoch != st.after.epoch {
				j.breach(4, r.id, "%s: the epoch should be %d", st.name(), st.after.epoch)
			}
			if st.Attempt != st.after.attempt {
				j.breach(4, r.id, "%s: the attempt is %d and should be %d", st.name(), st.Attempt, st.after.attempt)
			}
			if st.Attempt > st.MaxAttempts {
				j.breach(4, r.id, "%s: attempt %d of %d", st.name(), st.Attempt, st.MaxAttempts)
			}
			switch {
			case st.Type == started:
				j.exercised(4, 1)
				starts++
			case (st.Type == requeued || st.Type == sleeping) && held(st.before.status):
				refunds++
			case st.Type == failed && st.body.Kind == "AttemptsExhausted" && starts-refunds < st.MaxAttempts:
				j.breach(4, r.id, "round %d is said to be exhausted after %d of %d attempts", n+1, starts-refunds, st.MaxAttempts)
			}
		}
		if most := round.steps[0].MaxAttempts; starts-refunds > most {
			j.breach(4, r.id, "round %d has %d starts, %d of them taken back, of %d attempts", n+1, starts, refunds, most)
		}
	}
}

// checkStamps: invariant 5. No event of the log is of an older epoch than a
// run.started before it; who is named in an event is the holder of its epoch;
// a checkpoint is of the epoch in which it is named. Envelopes may lie, so what
// agents stamped into states, payloads and results has to be of the epoch and
// the worker that the envelope names. Without stamps the first part remains.
func checkStamps(j *jury, r *story, steps []step) {
	for _, st := range steps {
		if st.before.epoch > 0 {
			j.exercised(5, 1)
		}
		if st.stale {
			j.breach(5, r.id, "%s by %s comes after the start of epoch %d by %s", st.name(), st.WorkerID, st.before.epoch, st.before.worker)
			continue
		}
		if st.WorkerID != st.after.worker {
			j.breach(5, r.id, "%s is said to be by %q, and %q holds the run", st.name(), st.WorkerID, st.after.worker)
		}
		if st.Type == checkpointed && (st.Checkpoint == nil || st.Checkpoint.Epoch != st.Epoch) {
			j.breach(5, r.id, "%s names checkpoint %s", st.name(), st.Checkpoint)
		}
		if stamp := r.stampOf(st.event); stamp != nil && (stamp.Epoch != st.Epoch || stamp.Worker != st.WorkerID) {
			j.breach(5, r.id, "%s, worker %s, was written by an execution of epoch %d, worker %s, at its step %d",
				st.name(), st.WorkerID, stamp.Epoch, stamp.Worker, stamp.Step)
		}
	}
}

// stampOf is an event's stamp; a checkpoint's that is too large for its event
// is read from the bucket.
func (r *story) stampOf(e event) *history.Stamp {
	if s := e.stamp(); s != nil || e.Type != checkpointed {
		return s
	}
	return r.stampAt(e.Checkpoint)
}
