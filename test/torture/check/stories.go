package check

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"longhaul/test/torture/history"
)

// stories is everything, by run. It is made once and not changed after.
type stories struct {
	config  history.Config
	bounds  Bounds
	runs    map[string]*story
	order   []*story // by the first event, or else the first command
	submits []*operation
	appends []*operation
	reads   []*reading
	faults  []*fault
	healed  time.Time // the last fault was over; zero if the history does not say
	end     time.Time // the dump was taken after it
	notes   []string
	agents  map[string]bool // those that write down their executions
}

// story is one run.
type story struct {
	id       string
	events   []event
	unread   []error // messages of its log that are no event
	submits  []*operation
	cancels  []*operation
	redrives []*operation
	execs    []*execution
	reads    []*reading
	entries  []history.Entry // all that name the run, in the order of time
	work     []Message
	schedule []Message
	status   *Message
	states   map[uint64]Message // of its checkpoints, by revision
}

// operation is what somebody asked for, and what came of it.
type operation struct {
	history.Entry            // the invoke
	outcome       history.Op // ok, fail or unknown: no outcome is unknown
	answer        history.Entry
}

func (o *operation) acked() bool { return o.outcome == history.OpOK }

// execution is one run of an agent.
type execution struct {
	history.Entry                // the begin
	end           *history.Entry // nil: its process was killed, or the test ended first
	steps         []history.Entry
	saves         []*operation // its checkpoints
}

// over is when it ended, zero if nobody knows.
func (x *execution) over() time.Time {
	if x.end == nil {
		return time.Time{}
	}
	return x.end.Time
}

// cause is why its context ended, if it did.
func (x *execution) cause() string {
	if x.end == nil || x.end.Exec == nil {
		return ""
	}
	return x.end.Exec.Cause
}

// reading is one reader's life.
type reading struct {
	history.Entry // the begin
	parts         []history.Entry
	end           *history.Entry
}

// fault is what the nemesis did, for as long as it did.
type fault struct {
	history.Fault
	run        string
	begin, end time.Time // equal for one without duration
}

// during reports whether the fault was in force at any time between the two.
func (f *fault) during(from, to time.Time) bool { return !f.begin.After(to) && !f.end.Before(from) }

// opKey ties the entries of one operation.
type opKey struct {
	actor string
	kind  history.Kind
	id    int64
}

func gather(in Input) *stories {
	s := &stories{runs: map[string]*story{}, agents: map[string]bool{}}
	slices.SortStableFunc(in.History, func(a, b history.Entry) int { return a.Time.Compare(b.Time) })
	g := gathering{stories: s, ops: map[opKey]*operation{}, readings: map[opKey]*reading{}, faulting: map[opKey]*fault{}, execs: map[execKey]*execution{}}
	for _, e := range in.History {
		g.entry(e)
	}
	g.dump(in.Dump)
	for _, o := range s.submits {
		if id := o.runID(); id != "" {
			s.run(id).submits = append(s.run(id).submits, o)
		}
	}
	if s.end.IsZero() && len(in.History) > 0 {
		s.end = in.History[len(in.History)-1].Time
	}
	for _, f := range g.faulting { // begun, and never ended
		f.end = s.end
	}
	s.bounds = in.Bounds.withDefaults(s.config)
	for _, r := range s.runs {
		s.order = append(s.order, r)
	}
	slices.SortFunc(s.order, func(a, b *story) int {
		return cmp.Or(a.first().Compare(b.first()), strings.Compare(a.id, b.id))
	})
	return s
}

func (r *story) first() time.Time {
	switch {
	case len(r.entries) > 0:
		return r.entries[0].Time
	case len(r.events) > 0:
		return r.events[0].stored
	}
	return time.Time{}
}

// gathering is the making of stories.
type gathering struct {
	*stories
	ops      map[opKey]*operation
	readings map[opKey]*reading
	faulting map[opKey]*fault // those that are in force
	execs    map[execKey]*execution
}

// execKey finds the execution that an agent's entry belongs to.
type execKey struct {
	run, worker string
	epoch       uint64
	pid         int
}

func (s *stories) run(id string) *story {
	if s.runs[id] == nil {
		s.runs[id] = &story{id: id, states: map[uint64]Message{}}
	}
	return s.runs[id]
}

func (g *gathering) entry(e history.Entry) {
	if e.Run != "" {
		r := g.run(e.Run)
		r.entries = append(r.entries, e)
	}
	key := opKey{e.Actor, e.Kind, e.ID}
	switch e.Kind {
	case history.KindSubmit, history.KindCancel, history.KindRedrive, history.KindAppend:
		g.operation(key, e)
	case history.KindRead:
		g.reading(key, e)
	case history.KindExec, history.KindStep, history.KindCheckpoint:
		if e.Exec != nil {
			g.execution(e)
		}
	case history.KindFault:
		if e.Fault != nil {
			g.fault(key, e)
		}
	case history.KindNote:
		switch {
		case e.Config != nil:
			g.config = *e.Config
		case e.Note == history.NoteHealed:
			g.healed = e.Time
		case e.Note == history.NoteEnd:
			g.end = e.Time
		}
	}
}

func (g *gathering) operation(key opKey, e history.Entry) {
	if e.Op == history.OpInvoke {
		o := &operation{Entry: e, outcome: history.OpUnknown}
		g.ops[key] = o
		switch e.Kind {
		case history.KindSubmit:
			g.submits = append(g.submits, o)
		case history.KindCancel:
			g.run(e.Run).cancels = append(g.run(e.Run).cancels, o)
		case history.KindRedrive:
			g.run(e.Run).redrives = append(g.run(e.Run).redrives, o)
		case history.KindAppend:
			g.appends = append(g.appends, o)
		}
		return
	}
	if o := g.ops[key]; o != nil {
		o.outcome, o.answer = e.Op, e
		if o.Run == "" {
			o.Run = e.Run
		}
	}
}

func (g *gathering) reading(key opKey, e history.Entry) {
	if e.Op == history.OpBegin {
		r := &reading{Entry: e}
		g.readings[key] = r
		g.reads = append(g.reads, r)
		g.run(e.Run).reads = append(g.run(e.Run).reads, r)
		return
	}
	if r := g.readings[key]; r != nil {
		r.parts = append(r.parts, e)
		if e.Op == history.OpEnd {
			r.end = &e
		}
	}
}

func (g *gathering) execution(e history.Entry) {
	key := execKey{e.Run, e.Exec.Worker, e.Exec.Epoch, e.Exec.PID}
	x := g.execs[key]
	switch {
	case e.Kind == history.KindExec && e.Op == history.OpBegin:
		x = &execution{Entry: e}
		g.execs[key] = x
		g.run(e.Run).execs = append(g.run(e.Run).execs, x)
		g.agents[e.Exec.Agent] = true
	case x == nil: // its begin is missing, which nobody can explain
		g.notes = append(g.notes, "an execution of run "+e.Run+" has no begin")
	case e.Kind == history.KindExec:
		x.end = &e
	case e.Kind == history.KindStep:
		x.steps = append(x.steps, e)
	case e.Op == history.OpInvoke:
		x.saves = append(x.saves, &operation{Entry: e, outcome: history.OpUnknown})
	default:
		for _, o := range x.saves {
			if o.ID == e.ID && o.outcome == history.OpUnknown {
				o.outcome, o.answer = e.Op, e
			}
		}
	}
}

func (g *gathering) fault(key opKey, e history.Entry) {
	switch e.Op {
	case history.OpEnd:
		if f := g.faulting[key]; f != nil {
			f.end = e.Time
			delete(g.faulting, key)
		}
	default:
		f := &fault{Fault: *e.Fault, run: e.Run, begin: e.Time, end: e.Time}
		g.faults = append(g.faults, f)
		if e.Op == history.OpBegin {
			g.faulting[key] = f
		}
	}
}

// dump adds what stood in the broker.
func (g *gathering) dump(d Dump) {
	raw := map[string]bool{} // the subjects of raw appenders hold no runs
	for _, o := range g.appends {
		raw[runOf(o.Append.Subject)] = true
	}
	for _, m := range d.Log {
		id := runOf(m.Subject)
		if raw[id] {
			continue
		}
		r := g.run(id)
		e, err := decode(m)
		if err != nil {
			r.unread = append(r.unread, err)
			continue
		}
		r.events = append(r.events, e)
	}
	for _, m := range d.Work {
		r := g.run(runOf(m.Subject))
		r.work = append(r.work, m)
	}
	for _, m := range d.Schedule {
		r := g.run(runOf(m.Subject))
		r.schedule = append(r.schedule, m)
	}
	for _, m := range d.Runs {
		switch t := strings.Split(m.Subject, "."); { // $KV.runs.status.<id>
		case len(t) == 4 && t[2] == "status" && !raw[t[3]]:
			g.run(t[3]).status = &m
		case len(t) == 6 && t[2] == "checkpoint":
			g.run(t[3]).states[m.Seq] = m
		}
	}
}

// touched returns a fault that hit the worker between the two times, nil if none.
func (s *stories) touched(worker string, from, to time.Time) *fault {
	return s.find(from, to, func(f *fault) bool {
		switch f.Name {
		case history.FaultKill, history.FaultExit, history.FaultStop, history.FaultPartition:
			return f.Target == worker
		case history.FaultStall:
			return true
		}
		return false
	})
}

// shaken returns a fault of the brokers, or of the way to them, between the two times.
func (s *stories) shaken(from, to time.Time) *fault {
	return s.find(from, to, func(f *fault) bool {
		return f.Name == history.FaultBroker || f.Name == history.FaultPartition || f.Name == history.FaultStall
	})
}

func (s *stories) find(from, to time.Time, ok func(*fault) bool) *fault {
	for _, f := range s.faults {
		if f.during(from, to) && ok(f) {
			return f
		}
	}
	return nil
}

// skew is how far the worker's clock was ahead around the given time, at most.
func (s *stories) skew(worker string, at time.Time) (most time.Duration) {
	for _, f := range s.faults {
		if f.Name == history.FaultSkew && f.Target == worker && f.during(at.Add(-s.bounds.Settle), at) {
			most = max(most, f.Skew)
		}
	}
	return most
}

// quiet is the first time from which on no fault was in force and its
// consequences were over, but not before the given one.
func (s *stories) quiet(at time.Time) time.Time {
	for moved := true; moved; {
		moved = false
		for _, f := range s.faults {
			if over := f.end.Add(s.bounds.Settle); f.Name != history.FaultSkew && !f.begin.After(at) && over.After(at) {
				at, moved = over, true
			}
		}
	}
	return at
}
