package check

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"longhaul/test/torture/history"
)

// scene is a history in the making, by hand: each call is 10 ms after the last.
type scene struct {
	t    *testing.T
	in   Input
	now  time.Time
	seq  uint64
	ids  int64
	runs map[string]*cast
}

// cast is a run of a scene.
type cast struct {
	at     position
	serial int
	saved  *history.Stamp // in the newest checkpoint
	pid    int
}

var dawn = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

func newScene(t *testing.T) *scene {
	s := &scene{t: t, now: dawn, runs: map[string]*cast{}}
	s.note(history.Entry{Note: history.NoteConfig, Config: &history.Config{Seed: 7, Nodes: 1, Lease: 5 * time.Second, HistoryLimit: 3, Command: "make torture SEED=7"}})
	return s
}

func (s *scene) tick() time.Time {
	s.now = s.now.Add(10 * time.Millisecond)
	return s.now
}

func (s *scene) wait(d time.Duration) { s.now = s.now.Add(d) }

func (s *scene) entry(e history.Entry) {
	e.Time = s.tick()
	s.in.History = append(s.in.History, e)
}

func (s *scene) note(e history.Entry) {
	e.Kind, e.Op, e.Actor = history.KindNote, history.OpInfo, "harness"
	s.entry(e)
}

// ask is a command and its outcome.
func (s *scene) ask(kind history.Kind, run, key string, outcome history.Op, detail *history.Submit) {
	s.ids++
	e := history.Entry{Actor: "client", ID: s.ids, Kind: kind, Op: history.OpInvoke, Run: run, Key: key, Submit: detail}
	s.entry(e)
	e.Op, e.Submit = outcome, nil
	s.entry(e)
}

func (s *scene) submit(run string) {
	s.ask(history.KindSubmit, run, "", history.OpOK, &history.Submit{Agent: "steps"})
}

func (s *scene) cast(run string) *cast {
	if s.runs[run] == nil {
		s.runs[run] = &cast{}
	}
	return s.runs[run]
}

// message takes every second sequence, so that another one can be put before it.
func (s *scene) message(subject string, data any) Message {
	s.seq += 2
	return Message{Seq: s.seq, Subject: subject, Time: s.tick(), Data: s.encode(data)}
}

func (s *scene) encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

// event appends an event with the right envelope; payload may be nil.
func (s *scene) event(run, eventType string, payload map[string]any, change ...func(*event)) event {
	c := s.cast(run)
	if payload == nil {
		payload = map[string]any{}
	}
	e := event{
		RunID: run, Seq: c.at.seq + 1, Type: eventType, AgentKey: "steps", Priority: "normal", MaxAttempts: 3,
		Time: s.now, Payload: s.encode(payload),
	}
	for _, f := range change {
		f(&e)
	}
	if err := json.Unmarshal(e.Payload, &e.body); err != nil {
		s.t.Fatal(err)
	}
	c.at = follow(c.at, e)
	e.Status, e.Epoch, e.Attempt, e.WorkerID = c.at.status, c.at.epoch, c.at.attempt, c.at.worker
	e.Checkpoint, e.NotBefore, e.WaitsFor = c.at.checkpoint, c.at.notBefore, c.at.waitsFor
	m := s.message("runs."+run+".events", e)
	s.in.Dump.Log = append(s.in.Dump.Log, m)
	e.sequence, e.stored = m.Seq, m.Time
	return e
}

func by(worker string) func(*event) { return func(e *event) { e.WorkerID = worker } }

func notBefore(at time.Time) func(*event) { return func(e *event) { e.NotBefore = at } }

// start begins an epoch and its execution.
func (s *scene) start(run, worker string) {
	c := s.cast(run)
	s.event(run, started, map[string]any{"resumed_from": c.at.checkpoint, "lease_token": "$JS.ACK.RUNS_WORK.work-steps-normal.1.6.1.1.0"}, by(worker))
	c.pid++
	s.exec(run, history.KindExec, history.OpBegin, history.Exec{Resumed: c.saved})
}

func (s *scene) exec(run string, kind history.Kind, op history.Op, x history.Exec) {
	c := s.cast(run)
	x.Agent, x.Worker, x.Epoch, x.Attempt, x.PID = "steps", c.at.worker, c.at.epoch, c.at.attempt, c.pid
	s.entry(history.Entry{Actor: x.Worker, Kind: kind, Op: op, ID: int64(c.pid), Run: run, Exec: &x})
}

// step is a step with its checkpoint.
func (s *scene) step(run string, n int) {
	c := s.cast(run)
	s.exec(run, history.KindStep, history.OpInfo, history.Exec{Step: n})
	c.serial++
	stamp := &history.Stamp{Epoch: c.at.epoch, Worker: c.at.worker, Step: n, Serial: c.serial}
	s.exec(run, history.KindCheckpoint, history.OpInvoke, history.Exec{Stamp: stamp})
	s.event(run, checkpointed, map[string]any{"state": history.Stamped{Stamp: stamp}}, func(e *event) {
		e.Checkpoint = &checkpoint{N: uint64(c.serial), Epoch: c.at.epoch, Revision: s.seq + 2}
	})
	c.saved = stamp
	s.exec(run, history.KindCheckpoint, history.OpOK, history.Exec{Stamp: stamp})
}

// end ends the execution and then the attempt.
func (s *scene) end(run string, outcome history.Outcome, cause, eventType string, payload map[string]any, change ...func(*event)) {
	s.exec(run, history.KindExec, history.OpEnd, history.Exec{Outcome: outcome, Cause: cause})
	s.event(run, eventType, payload, change...)
}

func (s *scene) succeed(run string) {
	s.end(run, history.OutcomeSucceeded, "", succeeded, nil)
}

func (s *scene) queue(run string) {
	s.event(run, queued, map[string]any{"submission": map[string]any{}})
}

func (s *scene) fault(op history.Op, name, target, run string) {
	s.entry(history.Entry{Actor: "nemesis", Kind: history.KindFault, Op: op, ID: 1, Run: run, Fault: &history.Fault{Name: name, Target: target}})
}

// read is a reader's life; nil seqs end it.
func (s *scene) read(run string, from uint64, terminal bool, seqs ...uint64) {
	s.ids++
	for _, e := range []history.Entry{
		{Op: history.OpBegin, Read: &history.Read{From: from}},
		{Op: history.OpInfo, Read: &history.Read{Seqs: seqs}},
		{Op: history.OpEnd, Read: &history.Read{Terminal: terminal}},
	} {
		e.Actor, e.ID, e.Kind, e.Run = "reader", s.ids, history.KindRead, run
		s.entry(e)
	}
}

// race is raw appends: each expects the sequence of what it says, on one subject.
func (s *scene) race(value string, expected uint64, outcome history.Op, stored bool) uint64 {
	s.ids++
	a := &history.Append{Subject: "runs.raw.log", Expected: expected, Value: value}
	e := history.Entry{Actor: "appender", ID: s.ids, Kind: history.KindAppend, Op: history.OpInvoke, Append: a}
	s.entry(e)
	seq := uint64(0)
	if stored {
		m := s.message("runs.raw.events", a)
		s.in.Dump.Log = append(s.in.Dump.Log, m)
		seq = m.Seq
	}
	answer := *a
	answer.Seq = seq
	e.Op, e.Append = outcome, &answer
	s.entry(e)
	return seq
}

// finish closes the history and projects the statuses.
func (s *scene) finish() {
	s.note(history.Entry{Note: history.NoteHealed})
	s.wait(2 * time.Minute)
	s.note(history.Entry{Note: history.NoteEnd})
	byRun := map[string][]event{}
	for _, m := range s.in.Dump.Log {
		if e, err := decode(m); err == nil && m.Subject != "runs.raw.events" {
			byRun[e.RunID] = append(byRun[e.RunID], e)
		}
	}
	for _, id := range s.ordered(byRun) {
		s.project(id, byRun[id])
	}
}

func (s *scene) ordered(byRun map[string][]event) []string {
	var ids []string
	for id := range byRun {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (s *scene) project(id string, events []event) {
	e := events[len(events)-1]
	rec := record{
		RunID: id, AgentKey: e.AgentKey, Priority: e.Priority, Status: e.Status, Epoch: e.Epoch, Attempt: e.Attempt, MaxAttempts: e.MaxAttempts,
		WorkerID: e.WorkerID, Checkpoint: e.Checkpoint, NotBefore: e.NotBefore, Seq: e.Seq, LogSequence: e.sequence,
	}
	for _, e := range events {
		switch {
		case e.Type == started:
			rec.StartedAt = e.Time
		case terminal(e.Type):
			rec.FinishedAt = e.Time
		case e.Type == requeued:
			rec.FinishedAt = time.Time{}
		}
	}
	s.in.Dump.Runs = append(s.in.Dump.Runs, s.message("$KV.runs.status."+id, rec))
}

// The changes that break a scene. Each fails the test if it finds nothing to break.

// edit changes the event with the given seq.
func (s *scene) edit(run string, seq uint64, change func(*event)) {
	i := s.find(run, seq)
	var e event
	if err := json.Unmarshal(s.in.Dump.Log[i].Data, &e); err != nil {
		s.t.Fatal(err)
	}
	e.stored = s.in.Dump.Log[i].Time
	change(&e)
	s.in.Dump.Log[i].Data, s.in.Dump.Log[i].Time = s.encode(e), e.stored
}

func (s *scene) find(run string, seq uint64) int {
	for i, m := range s.in.Dump.Log {
		if e, err := decode(m); err == nil && e.RunID == run && e.Seq == seq {
			return i
		}
	}
	s.t.Fatalf("no event %d of %s", seq, run)
	return 0
}

// drop removes the event.
func (s *scene) drop(run string, seq uint64) {
	i := s.find(run, seq)
	s.in.Dump.Log = slices.Delete(s.in.Dump.Log, i, i+1)
}

// tear ends the log before the event.
func (s *scene) tear(run string, seq uint64) {
	s.in.Dump.Log = slices.DeleteFunc(s.in.Dump.Log, func(m Message) bool {
		e, err := decode(m)
		return err == nil && e.RunID == run && e.Seq >= seq
	})
}

// insert puts a changed copy of the event behind it.
func (s *scene) insert(run string, seq uint64, change func(*event)) {
	i := s.find(run, seq)
	e, err := decode(s.in.Dump.Log[i])
	if err != nil {
		s.t.Fatal(err)
	}
	change(&e)
	s.in.Dump.Log = slices.Insert(s.in.Dump.Log, i+1, s.message(s.in.Dump.Log[i].Subject, e))
}

// rewrite changes the entries that suit.
func (s *scene) rewrite(ok func(history.Entry) bool, change func(*history.Entry)) {
	n := 0
	for i := range s.in.History {
		if ok(s.in.History[i]) {
			change(&s.in.History[i])
			n++
		}
	}
	if n == 0 {
		s.t.Fatal("no such entry")
	}
}

// forget removes the entries that suit.
func (s *scene) forget(ok func(history.Entry) bool) {
	before := len(s.in.History)
	s.in.History = slices.DeleteFunc(s.in.History, ok)
	if len(s.in.History) == before {
		s.t.Fatal("no such entry")
	}
}

// reproject makes the statuses anew, for a break that is not theirs.
func (s *scene) reproject() {
	s.in.Dump.Runs = nil
	byRun := map[string][]event{}
	for _, m := range s.in.Dump.Log {
		if e, err := decode(m); err == nil {
			byRun[e.RunID] = append(byRun[e.RunID], e)
		}
	}
	for _, id := range s.ordered(byRun) {
		s.project(id, byRun[id])
	}
}

func is(kind history.Kind, op history.Op, run string) func(history.Entry) bool {
	return func(e history.Entry) bool { return e.Kind == kind && e.Op == op && e.Run == run }
}

func names(all []Invariant) string {
	var texts []string
	for _, i := range all {
		texts = append(texts, fmt.Sprint(int(i)))
	}
	return strings.Join(texts, " ")
}
