package check

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"longhaul/test/torture/history"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clean is a history without a fault in which each invariant is put to the test.
func clean(t *testing.T) *scene {
	s := newScene(t)

	// plain: two steps, submitted twice, read from the start and from the middle.
	s.submit("plain")
	s.submit("plain")
	s.queue("plain")           // 1
	s.start("plain", "w-1")    // 2
	s.step("plain", 1)         // 3
	s.event("plain", "x", nil) // 4
	s.step("plain", 2)         // 5
	s.succeed("plain")         // 6
	s.read("plain", 1, true, 1, 2, 3, 4, 5, 6)
	s.read("plain", 4, true, 4, 5, 6)

	// keyed: by idempotency key, twice.
	keyed := runIDOfKey("k")
	s.ask(history.KindSubmit, "", "k", history.OpOK, &history.Submit{Agent: "steps"})
	s.ask(history.KindSubmit, "", "k", history.OpUnknown, &history.Submit{Agent: "steps"})
	s.event(keyed, queued, map[string]any{"submission": map[string]any{"idempotency_key": "k"}})
	s.start(keyed, "w-1")
	s.succeed(keyed)

	// nameless: by neither.
	s.ask(history.KindSubmit, "", "", history.OpOK, &history.Submit{Agent: "steps"})
	s.queue("nameless")
	s.start("nameless", "w-1")
	s.succeed("nameless")

	// garbage is refused.
	s.ask(history.KindSubmit, "garbage", "", history.OpOK, &history.Submit{Garbage: true})
	s.event("garbage", rejected, map[string]any{"errors": []any{}})

	// killed: its worker dies behind the first step, another goes on from there.
	s.submit("killed")
	s.queue("killed")        // 1
	s.start("killed", "w-1") // 2
	s.step("killed", 1)      // 3
	s.fault(history.OpInfo, history.FaultKill, "w-1", "")
	s.start("killed", "w-2") // 4
	s.step("killed", 2)      // 5
	s.succeed("killed")      // 6

	// frozen: its worker is stopped, and wakes up as a zombie that takes a step.
	s.submit("frozen")
	s.queue("frozen")        // 1
	s.start("frozen", "w-3") // 2
	zombie := *s.cast("frozen")
	s.fault(history.OpBegin, history.FaultStop, "w-3", "")
	s.start("frozen", "w-2") // 3
	s.succeed("frozen")      // 4
	s.wait(time.Minute)
	s.fault(history.OpEnd, history.FaultStop, "w-3", "")
	awake := s.runs["frozen"]
	s.runs["frozen"] = &zombie
	s.exec("frozen", history.KindStep, history.OpInfo, history.Exec{Step: 1})
	s.exec("frozen", history.KindExec, history.OpEnd, history.Exec{Outcome: history.OutcomeAbandoned, Cause: history.CauseLeaseLost})
	s.runs["frozen"] = awake

	// drained: given back, and its attempt with it.
	s.submit("drained")
	s.queue("drained")        // 1
	s.start("drained", "w-2") // 2
	s.fault(history.OpBegin, history.FaultDrain, "w-2", "")
	s.end("drained", history.OutcomeAbandoned, history.CauseShutdown, requeued, map[string]any{"reason": reasonShutdown}) // 3
	s.fault(history.OpEnd, history.FaultDrain, "w-2", "")
	s.start("drained", "w-4") // 4
	s.fault(history.OpBegin, history.FaultBroker, "broker", "")
	s.wait(2 * time.Second)
	s.fault(history.OpEnd, history.FaultBroker, "broker", "")
	s.step("drained", 1) // 5
	s.succeed("drained") // 6

	// retried: fails once, backs off, exhausts nothing; its work is deleted meanwhile.
	s.submit("retried")
	s.queue("retried")        // 1
	s.start("retried", "w-4") // 2
	due := s.now.Add(time.Second)
	s.end("retried", history.OutcomeFailed, "", retrying, map[string]any{"retry_at": due}, notBefore(due)) // 3
	s.fault(history.OpInfo, history.FaultDeleteWork, "", "retried")
	s.event("retried", requeued, map[string]any{"reason": reasonWorkLost}) // 4
	s.wait(time.Second)
	s.start("retried", "w-4") // 5
	s.succeed("retried")      // 6

	// asleep: for a second, and uncharged.
	s.submit("asleep")
	s.queue("asleep")
	s.start("asleep", "w-4")
	dawn := s.now.Add(time.Second)
	s.end("asleep", history.OutcomeAbandoned, "", sleeping, map[string]any{"wake_at": dawn}, notBefore(dawn))
	s.wait(time.Second)
	s.start("asleep", "w-4")
	s.event("asleep", stepCompleted, nil)
	s.succeed("asleep")

	// asks: for a word that comes before its time is over, after another one.
	s.submit("asks")
	s.queue("asks")        // 1
	s.start("asks", "w-4") // 2
	dusk := s.now.Add(time.Hour)
	s.end("asks", history.OutcomeAbandoned, "", sleeping, map[string]any{"wake_at": dusk, "signal": "go"}, notBefore(dusk)) // 3
	s.event("asks", signalled, map[string]any{"name": "stop", "command_id": "c-1"})                                         // 4
	s.event("asks", signalled, map[string]any{"name": "go", "command_id": "c-2"})                                           // 5
	s.start("asks", "w-4")                                                                                                  // 6
	s.succeed("asks")                                                                                                       // 7

	// delayed: not before its time.
	at := s.now.Add(2 * time.Second)
	s.submit("delayed")
	s.event("delayed", scheduled, map[string]any{"submission": map[string]any{"not_before": at}}, notBefore(at)) // 1
	s.wait(3 * time.Second)
	s.queue("delayed")        // 2
	s.start("delayed", "w-4") // 3
	s.succeed("delayed")      // 4

	// cancelled while it runs, and then driven again from its start.
	s.submit("cancelled")
	s.queue("cancelled")        // 1
	s.start("cancelled", "w-4") // 2
	s.step("cancelled", 1)      // 3
	s.ask(history.KindCancel, "cancelled", "", history.OpOK, nil)
	s.event("cancelled", cancelRequested, nil)                                           // 4
	s.end("cancelled", history.OutcomeCancelled, history.CauseCancelled, cancelled, nil) // 5
	s.wait(time.Second)
	s.ask(history.KindRedrive, "cancelled", "", history.OpOK, nil)
	s.event("cancelled", requeued, map[string]any{"reason": reasonRedrive, "from_start": true}) // 6
	s.cast("cancelled").saved = nil
	s.start("cancelled", "w-4") // 7
	s.step("cancelled", 1)      // 8
	s.succeed("cancelled")      // 9

	// Appends race for a register: one is refused, one's answer is lost.
	first := s.race("a", 0, history.OpOK, true)
	s.race("b", 0, history.OpFail, false)
	second := s.race("c", first, history.OpUnknown, true)
	s.race("d", first, history.OpUnknown, false)
	s.race("e", second, history.OpOK, true)

	s.talk()

	s.wait(time.Minute)
	s.ask(history.KindSubmit, "probe", "", history.OpOK, &history.Submit{Agent: "steps", Probe: true})
	s.queue("probe")
	s.start("probe", "w-4") // 2
	s.succeed("probe")
	s.finish()
	return s
}

func TestACleanHistoryIsClean(t *testing.T) {
	report := Check(clean(t).in)
	for _, v := range report.Verdicts {
		if v.State != Holds {
			t.Errorf("%d %s: %s %v", v.Invariant, v.Invariant, v.State, v.Violations)
		}
	}
	if !report.OK() || report.Runs != 25 {
		t.Errorf("ok %v, %d runs", report.OK(), report.Runs)
	}
}

func TestAnEmptyHistoryExercisesNothing(t *testing.T) {
	for _, v := range Check(Input{}).Verdicts {
		if v.State != NotExercised {
			t.Errorf("%d %s: %s %v", v.Invariant, v.Invariant, v.State, v.Violations)
		}
	}
}

// TestBreaches breaks the clean history in one place each. What is named must
// be found, and nothing else.
func TestBreaches(t *testing.T) {
	for _, c := range []struct {
		name  string
		want  string // the invariants, by number
		words string // in what is said of one of them
		spoil func(*scene)
	}{
		{"no terminal event", "1 10", "no terminal event", func(s *scene) { s.tear("delayed", 4); s.reproject() }},
		{"an acknowledged submit without a log", "1 14", "no log", func(s *scene) { s.tear("garbage", 1); s.reproject() }},
		{"a good submit is refused", "1", "good submission", func(s *scene) {
			s.rewrite(is(history.KindSubmit, history.OpInvoke, "garbage"), func(e *history.Entry) { e.Submit.Garbage = false })
		}},
		{"garbage is accepted", "1", "garbage", func(s *scene) {
			s.rewrite(is(history.KindSubmit, history.OpInvoke, "retried"), func(e *history.Entry) { e.Submit.Garbage = true })
		}},
		{"a nameless submit is lost", "14", "without run id", func(s *scene) { s.tear("nameless", 1); s.reproject(); s.forgetRun("nameless") }},
		{"an event behind the end", "2 20", "follows run.succeeded", func(s *scene) { s.event("plain", "late", nil); s.reproject() }},
		{"two ends", "1 2 20", "2 terminal events", func(s *scene) { s.event("retried", succeeded, nil); s.reproject() }},
		{"one key, two runs", "3", "has 2 runs", func(s *scene) {
			s.edit("delayed", 1, func(e *event) {
				e.Payload = []byte(`{"submission":{"idempotency_key":"k"}}`)
			})
		}},
		{"one run is accepted twice", "3 6 20", "accepted or refused 2 times", func(s *scene) {
			s.edit("plain", 4, func(e *event) { e.Type, e.Seq = queued, 1 })
			s.forget(is(history.KindRead, history.OpBegin, "plain"))
		}},
		{"an epoch is left out", "4 15", "epoch should be 1", func(s *scene) {
			s.edit("delayed", 3, func(e *event) { e.Epoch = 2 })
			s.edit("delayed", 4, func(e *event) { e.Epoch = 2 })
			s.reproject()
		}},
		{"a crash is not counted", "4 15", "attempt is 1 and should be 2", func(s *scene) {
			for seq := range uint64(3) {
				s.edit("killed", 4+seq, func(e *event) { e.Attempt = 1 })
			}
			s.reproject()
		}},
		{"more attempts than allowed", "4", "attempt 2 of 1", func(s *scene) {
			for seq := range uint64(6) {
				s.edit("killed", 1+seq, func(e *event) { e.MaxAttempts = 1 })
			}
			s.reproject()
		}},
		{"exhausted too early", "4", "exhausted after 1 of 3", func(s *scene) {
			s.edit("delayed", 4, func(e *event) { e.Type, e.Status, e.Payload = failed, "failed", []byte(`{"type":"AttemptsExhausted"}`) })
			s.reproject()
		}},
		{"an old epoch's event behind a new start", "5 6", "comes after the start of epoch 2", func(s *scene) {
			s.insert("killed", 4, func(e *event) { e.Type, e.Epoch, e.Attempt, e.WorkerID, e.Payload = "x", 1, 1, "w-1", nil })
		}},
		{"an event by another worker", "5", `by "w-9"`, func(s *scene) { s.edit("plain", 4, func(e *event) { e.WorkerID = "w-9" }) }},
		{"a zombie's step under the new holder's name", "5", "was written by an execution of epoch 1", func(s *scene) {
			s.edit("drained", 4, func(e *event) {})
			s.edit("killed", 6, func(e *event) {
				e.Payload = []byte(`{"final_output":{"stamp":{"epoch":1,"worker":"w-1","step":9,"serial":9}}}`)
			})
		}},
		{"a seq is left out", "6 15", "is event 3 of the log", func(s *scene) {
			s.drop("frozen", 3)
			s.edit("frozen", 2, func(e *event) {})
			s.edit("frozen", 4, func(e *event) { e.Epoch, e.Attempt, e.WorkerID = 1, 1, "w-3" })
			s.reproject()
		}},
		{"a reader goes back", "6", "saw event 2 after 3", func(s *scene) { s.seen("plain", 1, 2, 3, 2, 3, 4, 5, 6) }},
		{"a reader misses one", "13", "saw event 4 after 2", func(s *scene) { s.seen("plain", 1, 2, 4, 5, 6) }},
		{"a reader is told of a gap that is none", "13", "told of a gap from 3 to 5", func(s *scene) {
			s.rewrite(is(history.KindRead, history.OpInfo, "plain"), func(e *history.Entry) {
				if e.Read.Seqs[0] == 1 {
					e.Read.Seqs, e.Read.Gap, e.Read.Next = []uint64{1, 2}, true, 5
				}
			})
			s.rewrite(is(history.KindRead, history.OpEnd, "plain"), func(e *history.Entry) { e.Read.Terminal = false })
			s.rewrite(is(history.KindRead, history.OpEnd, "plain"), func(e *history.Entry) { e.Op = history.OpInfo })
		}},
		{"a reader stands still", "13", "had not seen run.succeeded", func(s *scene) {
			s.seen("plain", 1, 2, 3, 4, 5)
			s.rewrite(is(history.KindRead, history.OpEnd, "plain"), func(e *history.Entry) { e.Time, e.Read.Terminal = e.Time.Add(3*time.Minute), false })
		}},
		{"a reader ends too early", "13", "ended as behind a terminal event", func(s *scene) { s.seen("plain", 1, 2, 3) }},
		{"a reader saw what the log has not", "14", "the log ends with 6", func(s *scene) { s.seen("plain", 1, 2, 3, 4, 5, 6, 7) }},
		{"an old checkpoint is resumed from", "7", "resumes from checkpoint none", func(s *scene) {
			s.edit("killed", 4, func(e *event) { e.Payload = []byte(`{}`) })
		}},
		{"the agent is given nothing", "7", "was given the state none", func(s *scene) {
			s.rewrite(is(history.KindExec, history.OpBegin, "killed"), func(e *history.Entry) { e.Exec.Resumed = nil })
		}},
		{"a step is taken again", "7", "takes step 1 again", func(s *scene) {
			s.rewrite(is(history.KindStep, history.OpInfo, "killed"), func(e *history.Entry) { e.Exec.Step = 1 })
		}},
		{"an event forgets the checkpoint", "7", "says that checkpoint none is the newest", func(s *scene) {
			s.edit("plain", 4, func(e *event) { e.Checkpoint = nil })
			s.edit("plain", 5, func(e *event) {})
		}},
		{"a state is not in the bucket", "7", "is not in the bucket", func(s *scene) {
			s.in.Dump.Runs = append(s.in.Dump.Runs, s.message("$KV.runs.checkpoint.plain.1.1", map[string]any{}))
		}},
		{"a takeover without a reason", "8", "nothing had befallen it", func(s *scene) {
			s.forget(func(e history.Entry) bool { return e.Fault != nil && e.Fault.Name == history.FaultStop })
			s.rewrite(is(history.KindStep, history.OpInfo, "frozen"), func(e *history.Entry) { e.Time = dawn })
		}},
		{"a takeover behind a broker's restart", "8", "nothing had befallen it", func(s *scene) {
			s.rewrite(func(e history.Entry) bool { return e.Fault != nil && e.Fault.Name == history.FaultKill },
				func(e *history.Entry) { e.Fault.Name, e.Fault.Target = history.FaultBroker, "broker" })
		}},
		{"a worker gives up without a reason", "8", "nothing was out of order", func(s *scene) {
			s.forget(func(e history.Entry) bool { return e.Fault != nil && e.Fault.Name == history.FaultStop })
			s.rewrite(is(history.KindStep, history.OpInfo, "frozen"), func(e *history.Entry) { e.Time = dawn })
			s.rewrite(func(e history.Entry) bool {
				return e.Run == "frozen" && e.Exec != nil && e.Exec.Cause == history.CauseLeaseLost
			},
				func(e *history.Entry) { e.Time = s.in.Dump.Log[s.find("frozen", 2)].Time.Add(15 * time.Millisecond) })
		}},
		{"a drain is charged", "8", "and charged for it", func(s *scene) {
			*s = *newScene(s.t)
			s.submit("drained")
			s.queue("drained")
			s.start("drained", "w-1")
			s.fault(history.OpBegin, history.FaultDrain, "w-1", "")
			s.exec("drained", history.KindExec, history.OpEnd, history.Exec{Outcome: history.OutcomeAbandoned, Cause: history.CauseShutdown})
			s.fault(history.OpEnd, history.FaultDrain, "w-1", "")
			s.start("drained", "w-2")
			s.succeed("drained")
			s.finish()
		}},
		{"a takeover that is noticed at once, behind a broker's restart", "8", "was executing it", func(s *scene) { s.restarted(0, time.Second) }},
		{"a takeover behind a broker's long absence", "", "", func(s *scene) { s.restarted(0, 4*time.Second) }},
		{"a takeover of a run that was begun behind a broker's long absence", "8", "was executing it", func(s *scene) { s.restarted(4*time.Second, 0) }},
		{"a takeover just before a broker's long absence", "8", "was executing it", func(s *scene) {
			s.restarted(4*time.Second, 0)
			at := s.in.Dump.Log[s.find("asked", 3)].Time.Add(10 * time.Millisecond)
			s.rewrite(func(e history.Entry) bool { return e.Fault != nil }, func(e *history.Entry) {
				e.Time = at
				at = at.Add(4 * time.Second)
			})
		}},
		{"a retry too early", "9", "before its time", func(s *scene) {
			s.edit("retried", 5, func(e *event) { e.stored = s.in.Dump.Log[s.find("retried", 4)].Time })
		}},
		{"a signal that is not waited for ends a wait", "9", "before its time", func(s *scene) {
			s.edit("asks", 5, func(e *event) { e.Payload = []byte(`{"name":"halt"}`) })
		}},
		{"a signal ends no wait", "9", "it waits for \"\"", func(s *scene) {
			s.edit("asks", 5, func(e *event) { e.NotBefore, e.WaitsFor = time.Time{}, "go" })
		}},
		{"a signal comes twice", "20", "carried out before", func(s *scene) {
			s.edit("asks", 5, func(e *event) { e.Payload = []byte(`{"name":"go","command_id":"c-1"}`) })
		}},
		{"a delayed run too early", "9", "before its time", func(s *scene) {
			s.edit("delayed", 2, func(e *event) { e.stored = s.in.Dump.Log[s.find("delayed", 1)].Time })
		}},
		{"an event forgets its time", "9", "says not_before never", func(s *scene) { s.edit("retried", 4, func(e *event) { e.NotBefore = time.Time{} }) }},
		{"a cancel without an end", "1 11", "had not ended by", func(s *scene) {
			s.tear("cancelled", 5)
			s.forget(is(history.KindRedrive, history.OpInvoke, "cancelled"))
			s.in.Dump.Work = append(s.in.Dump.Work, s.message("runs.work.steps.normal.cancelled", nil))
			s.forget(func(e history.Entry) bool { return e.Run == "cancelled" && e.Exec != nil })
			s.reproject()
		}},
		{"a probe that waits", "12", "a probe waited", func(s *scene) {
			s.rewrite(is(history.KindSubmit, history.OpInvoke, "probe"), func(e *history.Entry) { e.Time = e.Time.Add(-30 * time.Second) })
			s.rewrite(is(history.KindSubmit, history.OpOK, "probe"), func(e *history.Entry) { e.Time = e.Time.Add(-30 * time.Second) })
		}},
		{"a checkpoint is lost", "14", "the log does not have it", func(s *scene) {
			s.rewrite(is(history.KindCheckpoint, history.OpInvoke, "plain"), func(e *history.Entry) { e.Exec.Stamp.Serial += 50 })
		}},
		{"a redrive is lost", "14", "no round began", func(s *scene) {
			s.tear("cancelled", 6)
			s.forget(func(e history.Entry) bool { return e.Run == "cancelled" && e.Exec != nil && e.Exec.Epoch == 2 })
			s.reproject()
		}},
		{"an execution that the log does not know", "15", "which the log does not have", func(s *scene) {
			s.rewrite(func(e history.Entry) bool { return e.Run == "delayed" && e.Exec != nil && e.Op == history.OpBegin }, func(e *history.Entry) {})
			s.entry(history.Entry{Actor: "w-8", Kind: history.KindExec, Op: history.OpBegin, Run: "delayed", Exec: &history.Exec{Agent: "steps", Worker: "w-8", Epoch: 9}})
		}},
		{"an epoch is executed twice", "15", "is executed twice", func(s *scene) {
			s.entry(history.Entry{Actor: "w-4", Kind: history.KindExec, Op: history.OpBegin, Run: "delayed", Exec: &history.Exec{Agent: "steps", Worker: "w-4", Epoch: 1, Attempt: 1}})
		}},
		{"an execution before its start", "15", "before its start was stored", func(s *scene) {
			s.rewrite(is(history.KindExec, history.OpBegin, "delayed"), func(e *history.Entry) { e.Time = e.Time.Add(-time.Second) })
		}},
		{"a success that nobody executed", "15", "came to a good end", func(s *scene) {
			s.forget(is(history.KindExec, history.OpEnd, "delayed"))
		}},
		{"a zombie that does not learn", "15", "after epoch 2 had begun", func(s *scene) {
			s.rewrite(func(e history.Entry) bool {
				return e.Fault != nil && e.Fault.Name == history.FaultStop && e.Op == history.OpEnd
			},
				func(e *history.Entry) { e.Time = e.Time.Add(-50 * time.Second) })
		}},
		{"a status that lags for ever", "18", "its status record is", func(s *scene) {
			for i, m := range s.in.Dump.Runs {
				if strings.HasSuffix(m.Subject, "status.plain") {
					s.in.Dump.Runs[i].Data = []byte(strings.Replace(string(m.Data), `"succeeded"`, `"running"`, 1))
				}
			}
		}},
		{"no status", "18", "no status record", func(s *scene) { s.in.Dump.Runs = s.in.Dump.Runs[1:] }},
		{"an append that came over another", "19", "expected", func(s *scene) { s.race("f", 0, history.OpOK, true) }},
		{"a refused append is stored", "19", "was refused", func(s *scene) {
			s.rewrite(func(e history.Entry) bool { return e.Append != nil && e.Append.Value == "e" && e.Op == history.OpOK }, func(e *history.Entry) { e.Op = history.OpFail })
		}},
		{"a refusal without a reason", "19", "not linearizable", func(s *scene) {
			s.race("g", s.rawEnd(), history.OpFail, false)
		}},
		{"an append that was acknowledged before it was asked for", "19", "not linearizable", func(s *scene) {
			s.rewrite(func(e history.Entry) bool { return e.Append != nil && e.Append.Value == "a" }, func(e *history.Entry) { e.Time = e.Time.Add(time.Minute) })
		}},
		{"a stored append that nobody sent", "19", "sent by nobody", func(s *scene) {
			s.in.Dump.Log = append(s.in.Dump.Log, s.message("runs.raw.events", history.Append{Value: "?"}))
		}},
		{"what is no event", "20", "is no event", func(s *scene) {
			s.in.Dump.Log = append(s.in.Dump.Log, Message{Seq: s.seq + 1, Subject: "runs.plain.events", Data: []byte("x")})
		}},
		{"a wrong status", "20", `says "pending"`, func(s *scene) { s.edit("plain", 2, func(e *event) { e.Status = "pending" }) }},
		{"another priority", "20", "changes the agent", func(s *scene) { s.edit("plain", 3, func(e *event) { e.Priority = "low" }) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := clean(t)
			c.spoil(s)
			s.judge(t, c.want, c.words)
		})
	}
}

// judge has the scene judged: want is what must be found violated, by their
// names, and words is what must be said of it.
func (s *scene) judge(t *testing.T, want, words string) {
	t.Helper()
	report := Check(s.in)
	var said strings.Builder
	report.Print(&said)
	if got := names(report.Violated()); got != want {
		t.Errorf("violated: %q, want %q\n%s", got, want, said.String())
	}
	if !strings.Contains(said.String(), words) {
		t.Errorf("does not say %q:\n%s", words, said.String())
	}
}

// restarted is a broker's restart, some while before a run is begun or while it
// is held, behind which a worker takes over from one that learns of it at once.
func (s *scene) restarted(before, held time.Duration) {
	*s = *newScene(s.t)
	absent := func(down time.Duration) {
		if down > 0 {
			s.fault(history.OpBegin, history.FaultBroker, "broker", "")
			s.wait(down)
			s.fault(history.OpEnd, history.FaultBroker, "broker", "")
		}
	}
	absent(before)
	s.wait(3 * time.Second)
	s.submit("asked")
	s.queue("asked")
	s.start("asked", "w-1")
	absent(held)
	old := *s.cast("asked")
	s.start("asked", "w-2")
	young := s.runs["asked"]
	s.runs["asked"] = &old
	s.exec("asked", history.KindExec, history.OpEnd, history.Exec{Outcome: history.OutcomeAbandoned, Cause: history.CauseLeaseLost})
	s.runs["asked"] = young
	s.succeed("asked")
	s.finish()
}

// forgetRun removes all that the history says of a run.
func (s *scene) forgetRun(run string) {
	s.forget(func(e history.Entry) bool { return e.Run == run })
}

// seen replaces what the first reader saw.
func (s *scene) seen(run string, seqs ...uint64) {
	done := false
	s.rewrite(is(history.KindRead, history.OpInfo, run), func(e *history.Entry) {
		if !done {
			e.Read.Seqs, done = seqs, true
		}
	})
}

// rawEnd is the sequence of the register's last message.
func (s *scene) rawEnd() (seq uint64) {
	for _, m := range s.in.Dump.Log {
		if m.Subject == "runs.raw.events" {
			seq = m.Seq
		}
	}
	return seq
}

// A violation comes with the run's whole story and how to run it again.
func TestTheStoryOfAViolation(t *testing.T) {
	s := clean(t)
	s.edit("killed", 4, func(e *event) { e.Payload = []byte(`{"lease_token":"$JS.ACK.RUNS_WORK.work-steps-normal.3.6.1.1.0"}`) })
	var b strings.Builder
	Check(s.in).Print(&b)
	for _, want := range []string{
		"the story of run killed", "submit      client invoke", "log         4 @", "delivery    3 of work message 6, of work-steps-normal",
		"exec        w-1 begin", "FAULT       kill of w-1", "status      {", "to run it again: make torture SEED=7",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestWhatIsSavedIsLoaded(t *testing.T) {
	s := clean(t)
	dir := t.TempDir()
	w, err := history.Open(filepath.Join(dir, "all.jsonl"), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range s.in.History {
		if err := w.Write(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.in.Dump.Save(dir); err != nil {
		t.Fatal(err)
	}
	in, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := Check(in).Verdicts, Check(s.in).Verdicts; !reflect.DeepEqual(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
}

// The ids that follow from keys are those that docs/protocol.md promises.
func TestRunIDOfKey(t *testing.T) {
	if got := runIDOfKey("order-77"); len(got) != 36 || got[14] != '5' {
		t.Errorf("%s is no UUIDv5", got)
	}
}
