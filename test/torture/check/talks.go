package check

import (
	"cmp"
	"maps"
	"math"
	"slices"
)

// talks are the conversations of a history, by their ids.
type talks map[string]*talk

// talk is one conversation.
type talk struct {
	// turns are the runs that were queued, in the order of run.queued. It is
	// that of their turns, for nobody has a turn before the run before him is queued.
	turns []*turn
	// others are those that never were: refused, or cancelled before their time.
	// By a redrive such a one comes in after all.
	others []*turn
	runs   map[string]*turn
}

// turn is a run of a conversation.
type turn struct {
	*story
	queued  bool
	joins   []*event // its run.queued, or else its redrives: they say whom it follows
	started *event   // its first run.started, nil if it never began
	again   []event  // those behind
	ends    []end
}

// end is a terminal event.
type end struct {
	event
	begun bool   // a worker had begun the run before
	next  *event // the redrive behind it, if there is one
}

func newTalks() talks { return talks{} }

// add adds a run to its conversation, if it has one or should not have begun
// as if it had.
func (all talks) add(r *story, steps []step) {
	t := &turn{story: r}
	for i, st := range steps {
		e := &steps[i].event
		switch {
		case st.stale:
			continue
		case st.Type == queued:
			t.queued, t.joins = true, []*event{e}
		case st.Type == started && t.started == nil:
			t.started = e
		case st.Type == started:
			t.again = append(t.again, *e)
		case terminal(st.Type):
			t.ends = append(t.ends, end{event: *e, begun: t.started != nil})
			continue
		case !t.queued && redrivable(st.before.status):
			t.joins = append(t.joins, e)
		}
		if n := len(t.ends); n > 0 && t.ends[n-1].next == nil {
			t.ends[n-1].next = e
		}
	}
	id := r.conversation()
	if all[id] == nil {
		all[id] = &talk{runs: map[string]*turn{}}
	}
	c := all[id]
	c.runs[r.id] = t
	if t.queued {
		c.turns = append(c.turns, t)
	} else {
		c.others = append(c.others, t)
	}
}

// joined is what says whom the run followed at the time of e, nil if nothing.
func (t *turn) joined(e *event) (at *event) {
	for _, j := range t.joins {
		if j.sequence < e.sequence {
			at = j
		}
	}
	return at
}

// conversation is the one that a run belongs to, "" if none: by its log, or by
// what was asked for if that was refused.
func (r *story) conversation() string {
	for _, e := range r.events {
		if e.Type == queued || e.Type == scheduled {
			return e.body.Submission.ConversationID
		}
	}
	for _, o := range r.submits {
		if o.Submit != nil && o.Submit.Conversation != "" {
			return o.Submit.Conversation
		}
	}
	return ""
}

// ended is where the run ended first, in the stream.
func (t *turn) ended() uint64 {
	if len(t.ends) == 0 {
		return math.MaxUint64
	}
	return t.ends[0].sequence
}

// neverBegan reports whether the run had ended before e without a start. It may
// have been redriven since.
func (t *turn) neverBegan(before *event) bool {
	return slices.ContainsFunc(t.ends, func(x end) bool { return !x.begun && x.sequence < before.sequence })
}

// stood are the ends by which a run may have stood when a worker looked whether
// the one behind it may begin. That came in by join and is started by e; in
// between there may have been a redrive.
func (s *stories) stood(t *turn, join, e *event) (all []end) {
	for _, x := range t.ends {
		if x.sequence < e.sequence && (x.next == nil || x.next.sequence > join.sequence && e.stored.Sub(x.next.stored) < s.bounds.Turn) {
			all = append(all, x)
		}
	}
	return all
}

// checkTalks judges invariants 16 and 17 of each conversation.
func (s *stories) checkTalks(j *jury, all talks) {
	for _, id := range slices.Sorted(maps.Keys(all)) {
		c := all[id]
		if id == "" {
			for _, t := range slices.Concat(c.turns, c.others) {
				t.checkSilence(j)
			}
			continue
		}
		slices.SortFunc(c.turns, func(a, b *turn) int { return cmp.Compare(a.joins[0].sequence, b.joins[0].sequence) })
		s.checkOrder(j, c)
		s.checkRefusals(j, c)
		for _, t := range slices.Concat(c.turns, c.others) {
			if t.started != nil {
				s.checkBefore(j, c, t)
				s.checkHistory(j, c, t)
				t.checkAttempts(j)
			}
		}
	}
}

// checkOrder: invariant 16. The runs of a conversation are one chain: each
// follows the one that was queued before it, and passes over none but such as
// had ended without a start. A run begins when all that were queued before it
// have ended. One that was to be rejected if it had to wait never had to, and
// what a run was to interrupt ended soon.
//
// The order in which submissions were sent is not judged: dispatchers that take
// them in at once may change it, and what is sent behind a run.queued cannot come
// before it. Nor are redrives, which have no place: a run may go on beside later
// ones, and one that came in by a redrive may have been passed over just before.
func (s *stories) checkOrder(j *jury, c *talk) {
	var slowest *turn // of those before: the one that ended last
	for i, t := range c.turns {
		j.exercised(16, 1)
		at := t.joins[0]
		c.checkPlace(j, t, at, c.turns[:i])
		if slowest != nil {
			if at.body.Submission.OnConflict == "reject" && slowest.ended() > at.sequence {
				j.breach(16, t.id, "%s, though it was to be rejected: run %s, queued before it, had not ended", at.name(), slowest.id)
			}
			if t.started != nil && slowest.ended() > t.started.sequence {
				j.breach(16, t.id, "%s at @%d, and run %s, queued before it, had not ended", t.started.name(), t.started.sequence, slowest.id)
			}
		}
		if before := c.runs[at.body.Follows]; before != nil {
			s.checkInterrupt(j, t, before)
		}
		if slowest == nil || t.ended() > slowest.ended() {
			slowest = t
		}
	}
}

// checkPlace judges whom a run follows that was queued at some place.
func (c *talk) checkPlace(j *jury, t *turn, at *event, before []*turn) {
	follows := at.body.Follows
	var late *event // by which redrive that came in, if it was not queued
	if f := c.runs[follows]; f != nil && !f.queued {
		if late = f.joined(at); late == nil {
			j.breach(16, t.id, "it follows run %s, which had no place before it", follows)
			return
		}
	}
	for _, b := range slices.Backward(before) {
		switch {
		case b.id == follows || late != nil && b.joins[0].sequence < late.sequence:
			return
		case !b.neverBegan(at):
			j.breach(16, t.id, "it follows %q, and not run %s, which was queued behind that", follows, b.id)
			return
		}
	}
	if follows != "" && late == nil {
		j.breach(16, t.id, "it follows %q, which was not queued before it in its conversation", follows)
	}
}

// checkBefore: of invariant 16 that the run which another one follows stands as
// ended when that begins. A redrive may overtake it in between, but not by more
// than Bounds.Turn.
func (s *stories) checkBefore(j *jury, c *talk, t *turn) {
	at := t.joined(t.started)
	if at == nil || c.runs[at.body.Follows] == nil {
		return
	}
	j.exercised(16, 1)
	before := c.runs[at.body.Follows]
	switch {
	case before.ended() > t.started.sequence:
		j.breach(16, t.id, "%s at @%d, and run %s, which it follows, had not ended", t.started.name(), t.started.sequence, before.id)
	case len(s.stood(before, at, t.started)) == 0:
		j.breach(16, t.id, "%s at @%d, and run %s, which it follows, had been redriven", t.started.name(), t.started.sequence, before.id)
	}
}

// checkInterrupt: of invariant 11 what concerns a run that was to interrupt its
// conversation. When it is queued the cancel of the run that it follows is
// stored, and is worth as much as any. One that had ended before may have been
// redriven between the two.
func (s *stories) checkInterrupt(j *jury, t, before *turn) {
	at := t.joins[0]
	if at.body.Submission.OnConflict != "interrupt" || before.ended() < at.sequence {
		return
	}
	j.exercised(11, 1)
	due := s.quiet(at.stored).Add(s.bounds.Cancel)
	if s.end.After(due) && (len(before.ends) == 0 || before.ends[0].stored.After(due)) {
		j.breach(11, before.id, "run %s interrupted it at %s, and it had not ended by %s", t.id, clock(at.stored), clock(due))
	}
}

// refusedForConflict reports whether a run was refused for the one reason that
// its conversation had one that had not ended, as it asked for.
func (r *story) refusedForConflict() bool {
	asked := slices.ContainsFunc(r.submits, func(o *operation) bool { return o.Submit != nil && o.Submit.OnConflict == "reject" })
	return asked && len(r.events) > 0 && r.events[0].Type == rejected &&
		!slices.ContainsFunc(r.events[0].body.Errors, func(e fieldFault) bool { return e.Field != "on_conflict" })
}

// checkRefusals: of invariant 16 what concerns runs that were rejected because
// their conversation had another one. There was one, at some time between the
// submission and the refusal.
func (s *stories) checkRefusals(j *jury, c *talk) {
	for _, t := range c.others {
		if !t.refusedForConflict() {
			continue
		}
		j.exercised(16, 1)
		from, to := t.submits[0].Time.Add(-s.bounds.Slack), t.events[0].stored.Add(s.bounds.Slack)
		if !slices.ContainsFunc(slices.Concat(c.turns, c.others), func(o *turn) bool {
			if o == t || len(o.events) == 0 || o.events[0].Type == rejected || o.first().After(to) {
				return false
			}
			e := o.events[len(o.events)-1]
			return !terminal(e.Type) || e.stored.After(from)
		}) {
			j.breach(16, t.id, "it was rejected at %s, and all other runs of its conversation had ended by %s", clock(t.events[0].stored), clock(from))
		}
	}
}
