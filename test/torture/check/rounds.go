package check

import (
	"crypto/sha1"
	"fmt"
	"maps"
	"slices"
)

// checkRounds: invariants 1 and 2, by the log alone. Each round has one
// terminal event and nothing behind it. That the last round is over is asked
// of every run, for the dump is taken after the time that the services are
// given to end everything.
func checkRounds(j *jury, r *story, steps []step) {
	for n, round := range rounds(steps) {
		j.exercised(1, 1)
		j.exercised(2, 1)
		ended := ""
		ends := 0
		for _, st := range round.steps {
			if ended != "" && !st.stale { // what is stale is told by 5
				j.breach(2, r.id, "round %d: %s follows %s", n+1, st.name(), ended)
			}
			if terminal(st.Type) {
				ends++
				ended = st.name()
			}
		}
		switch {
		case ends > 1:
			j.breach(1, r.id, "round %d has %d terminal events", n+1, ends)
		case round.open:
			st := round.steps[len(round.steps)-1]
			j.breach(1, r.id, "round %d has no terminal event, its last is %s, status %q", n+1, st.name(), st.Status)
		}
	}
}

// checkTable: every event is one that the table of statuses allows, with the
// status that it leads to; agent, priority and max_attempts never change, and no
// command is carried out twice.
func checkTable(j *jury, r *story, steps []step) {
	for _, err := range r.unread {
		j.breach(logKeepsTable, r.id, "%v", err)
	}
	carried := map[string]bool{} // commands
	for _, st := range steps {
		if st.stale {
			continue
		}
		if id := st.body.CommandID; id != "" && (st.Type == signalled || st.Type == requeued) {
			if carried[id] {
				j.breach(logKeepsTable, r.id, "%s carries out command %s, which was carried out before", st.name(), id)
			}
			carried[id] = true
		}
		j.exercised(logKeepsTable, 1)
		to, ok := leads(st.before.status, st.Type)
		switch {
		case !ok:
			j.breach(logKeepsTable, r.id, "%s after status %q", st.name(), st.before.status)
		case to != st.Status:
			j.breach(logKeepsTable, r.id, "%s after status %q says %q, not %q", st.name(), st.before.status, st.Status, to)
		case st.AgentKey != st.after.agentKey || st.Priority != st.after.priority || st.MaxAttempts != st.after.max:
			j.breach(logKeepsTable, r.id, "%s changes the agent, the priority or max_attempts", st.name())
		}
	}
}

// runIDNamespace is the namespace of run ids that come from idempotency keys
// (docs/protocol.md).
var runIDNamespace = []byte("\x6c\x6f\x6e\x67\x68\x61\x75\x6c\x80\x00\x72\x75\x6e\x6b\x65\x79")

// runIDOfKey is the UUIDv5 of an idempotency key.
func runIDOfKey(key string) string {
	sum := sha1.Sum(append(slices.Clone(runIDNamespace), key...))
	id := sum[:16]
	id[6], id[8] = id[6]&0x0f|0x50, id[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// runID is the run that a submission makes, "" if the broker decides it.
func (o *operation) runID() string {
	if o.Run == "" && o.Key != "" {
		return runIDOfKey(o.Key)
	}
	return o.Run
}

// checkSubmits: invariant 3, and of 1 and 14 what concerns submissions: an
// acknowledged submission has a log, a good one is not refused, a bad one is,
// and all submissions of one key made one run. It needs each submission's
// invoke, with run id, key and whether it is garbage, and its outcome. A
// submission with neither run id nor key is counted only.
func (s *stories) checkSubmits(j *jury) {
	holders := map[string][]string{} // by idempotency key, the runs that were accepted with it
	for _, r := range s.order {
		if len(r.events) > 0 {
			if key := r.events[0].body.Submission.IdempotencyKey; key != "" && r.events[0].Type != rejected {
				holders[key] = append(holders[key], r.id)
			}
		}
	}
	byKey, nameless := map[string][]*operation{}, 0
	claimed := map[string]bool{}
	for _, o := range s.submits {
		if o.Key != "" {
			byKey[o.Key] = append(byKey[o.Key], o)
		}
		id := o.runID()
		if id == "" {
			if o.acked() && (o.answer.Submit == nil || !o.answer.Submit.Duplicate) {
				nameless++
			}
			continue
		}
		claimed[id] = true
		if o.acked() {
			j.exercised(1, 1)
			j.exercised(14, 1)
		}
	}
	for _, r := range s.order {
		r.checkAdmission(j, holders)
	}
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		if len(byKey[key]) > 1 {
			j.exercised(3, 1)
		}
		if n := len(holders[key]); n > 1 {
			j.breach(3, holders[key][1], "idempotency key %q has %d runs: %v", key, n, holders[key])
		}
	}
	unclaimed := 0
	for _, r := range s.order {
		if !claimed[r.id] && len(r.events) > 0 {
			unclaimed++
		}
	}
	if unclaimed < nameless {
		j.breach(14, "", "%d submissions without run id or key were acknowledged, and only %d logs are of such", nameless, unclaimed)
	}
}

// checkAdmission compares a run's first event with its submissions.
func (r *story) checkAdmission(j *jury, holders map[string][]string) {
	if len(r.submits) == 0 {
		return
	}
	if len(r.submits) > 1 {
		j.exercised(3, 1)
	}
	acked, good, bad, contested := false, 0, 0, false
	for _, o := range r.submits {
		acked = acked || o.acked()
		if o.Submit != nil && o.Submit.Garbage {
			bad++
		} else {
			good++
		}
		contested = contested || slices.ContainsFunc(holders[o.Key], func(id string) bool { return id != r.id })
	}
	firsts := 0
	for _, e := range r.events {
		if e.Type == rejected || e.Type == scheduled || e.Type == queued && e.body.Reason == "" && e.Seq == 1 {
			firsts++
		}
	}
	switch {
	case acked && len(r.events) == 0:
		j.breach(14, r.id, "a submission was acknowledged, and there is no log")
		j.breach(1, r.id, "a submission was acknowledged, and there is no log")
	case len(r.events) == 0:
	case firsts > 1:
		j.breach(3, r.id, "the run was accepted or refused %d times", firsts)
	case bad == 0 && !contested && r.events[0].Type == rejected && !r.refusedForConflict(): // of that checkRefusals judges
		j.breach(1, r.id, "a good submission was refused: %.200s", r.events[0].Payload)
	case good == 0 && r.events[0].Type != rejected:
		j.breach(1, r.id, "garbage was accepted: its first event is %s", r.events[0].Type)
	}
}

// checkProbe: invariant 12. A run that was submitted after the faults, beside
// whatever backs off, is poisoned or is large, begins soon. It needs
// submissions with Probe.
func (s *stories) checkProbe(j *jury, r *story) {
	for _, o := range r.submits {
		if o.Submit == nil || !o.Submit.Probe || !o.acked() {
			continue
		}
		j.exercised(12, 1)
		at := slices.IndexFunc(r.events, func(e event) bool { return e.Type == started })
		if at < 0 {
			j.breach(12, r.id, "a probe, acknowledged at %s, was never started", clock(o.answer.Time))
		} else if wait := r.events[at].stored.Sub(s.quiet(o.answer.Time)); wait > s.bounds.Start {
			j.breach(12, r.id, "a probe waited %s for its start", wait)
		}
		return
	}
}
