package check

import "longhaul/test/torture/history"

// checkRemembered: invariant 7, for durable steps. The log completes each name
// once, until a redrive from the start forgets them all; and an execution takes
// no step that was completed when its epoch began. It needs KindStep entries
// with history.Durable and the step's name as their text.
func checkRemembered(j *jury, r *story, steps []step) {
	done := map[string]bool{}
	for _, st := range steps {
		switch {
		case st.stale:
		case st.Type == requeued && st.body.FromStart:
			clear(done)
		case st.Type == stepCompleted:
			j.exercised(7, 1)
			if done[st.body.Name] {
				j.breach(7, r.id, "%s completes step %q once more", st.name(), st.body.Name)
			}
			done[st.body.Name] = true
		case st.Type == started:
			for _, x := range r.execs {
				if x.Exec.Epoch == st.Epoch {
					r.checkTaken(j, x, done)
				}
			}
		}
	}
}

func (r *story) checkTaken(j *jury, x *execution, done map[string]bool) {
	for _, e := range x.steps {
		if name := history.DurableStep(e); done[name] {
			j.breach(7, r.id, "the execution of epoch %d takes step %q again, which the log has completed", x.Exec.Epoch, name)
		}
	}
}
