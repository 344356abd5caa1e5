package check

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"longhaul/test/torture/history"
)

// lines are messages, written as u:text, a:text and t:text.
func lines(texts ...string) []map[string]any {
	roles := map[string]string{"u": "user", "a": "assistant", "t": "tool"}
	all := []map[string]any{}
	for _, s := range texts {
		role, text, _ := strings.Cut(s, ":")
		all = append(all, map[string]any{"role": roles[role], "content": text})
	}
	return all
}

// say submits a run of conversation c and queues it.
func (s *scene) say(run, follows, onConflict string) {
	s.ask(history.KindSubmit, run, "", history.OpOK, &history.Submit{Agent: "steps", Conversation: "c", OnConflict: onConflict})
	s.event(run, queued, map[string]any{"follows": follows, "submission": map[string]any{"conversation_id": "c", "on_conflict": onConflict}})
}

// begin starts a run that is given what was said; at a later start it is not
// said again.
func (s *scene) begin(run string, said ...string) {
	c := s.cast(run)
	payload := map[string]any{"resumed_from": c.at.checkpoint}
	if c.at.epoch == 0 {
		payload["history"] = lines(said...)
	}
	s.event(run, started, payload, by("w-1"))
	c.pid++
	s.exec(run, history.KindExec, history.OpBegin, history.Exec{Resumed: c.saved, Heard: s.encode(lines(said...))})
}

// answer ends a run well.
func (s *scene) answer(run string, said ...string) {
	s.end(run, history.OutcomeSucceeded, "", succeeded, map[string]any{"final_messages": lines(said...)})
}

// talk is a conversation in which all happens that may. A run is given three
// messages at most.
func (s *scene) talk() {
	s.say("first", "", "")
	s.begin("first")
	s.say("second", "first", "")
	s.answer("first", "u:1", "a:1", "u:2", "a:2")

	// second fails, and is redriven just when third is looked at.
	s.begin("second", "u:2", "a:2")
	s.say("third", "second", "")
	s.end("second", history.OutcomeFailed, "", failed, nil) // 3
	s.ask(history.KindRedrive, "second", "", history.OpOK, nil)
	s.event("second", requeued, map[string]any{"reason": reasonRedrive}) // 4
	s.begin("third", "u:2", "a:2")
	s.begin("second", "u:2", "a:2") // 5
	s.answer("second", "u:9", "a:9")

	// fourth never begins and is passed over; fifth interrupts third.
	s.say("fourth", "third", "")
	s.event("fourth", cancelled, nil)
	s.say("fifth", "third", "interrupt")
	s.event("third", cancelRequested, nil)                                           // 3
	s.end("third", history.OutcomeCancelled, history.CauseCancelled, cancelled, nil) // 4
	s.begin("fifth", "u:2", "a:2")

	// refused is refused meanwhile, and sixth is followed and never begins.
	s.ask(history.KindSubmit, "refused", "", history.OpOK, &history.Submit{Agent: "steps", Conversation: "c", OnConflict: "reject"})
	s.event("refused", rejected, map[string]any{"errors": []fieldFault{{"on_conflict"}}})
	s.say("sixth", "fifth", "")
	s.say("seventh", "sixth", "")
	s.event("sixth", cancelled, nil)
	s.answer("fifth", "u:5", "a:5")
	s.begin("seventh", "u:5", "a:5")
	s.succeed("seventh") // and says nothing

	s.say("eighth", "seventh", "reject")
	s.begin("eighth", "u:5", "a:5")
	s.succeed("eighth")

	// unqueued is cancelled before its time, and comes in by its redrive.
	s.ask(history.KindSubmit, "unqueued", "", history.OpOK, &history.Submit{Agent: "steps", Conversation: "c"})
	s.event("unqueued", scheduled, map[string]any{"submission": map[string]any{"conversation_id": "c"}}) // 1
	s.event("unqueued", cancelled, nil)                                                                  // 2
	s.say("ninth", "eighth", "")
	s.event("unqueued", requeued, map[string]any{"reason": reasonRedrive, "follows": "ninth"}) // 3
	s.say("tenth", "unqueued", "")
	s.begin("ninth", "u:5", "a:5")
	s.answer("ninth", "u:6", "a:6")
	s.begin("unqueued", "u:6", "a:6") // 4
	s.succeed("unqueued")             // 5
	s.begin("tenth", "u:6", "a:6")
	s.succeed("tenth")
}

// payload changes fields of an event's payload.
func (s *scene) payload(run string, seq uint64, field string, value any) {
	s.edit(run, seq, func(e *event) {
		var p map[string]any
		if err := json.Unmarshal(e.Payload, &p); err != nil {
			s.t.Fatal(err)
		}
		p[field] = value
		e.Payload = s.encode(p)
	})
}

// resequence puts an event before another one, in the stream.
func (s *scene) resequence(run string, seq uint64, before string, seqBefore uint64) {
	s.in.Dump.Log[s.find(run, seq)].Seq = s.in.Dump.Log[s.find(before, seqBefore)].Seq - 1
}

// TestTalkBreaches breaks a good conversation in one place each.
func TestTalkBreaches(t *testing.T) {
	for _, c := range []struct {
		name  string
		want  string // the invariants, by number
		words string
		spoil func(*scene)
	}{
		{"nothing", "", "", func(*scene) {}},
		{"two follow one", "16", `it follows "first", and not run second`, func(s *scene) { s.payload("third", 1, "follows", "first") }},
		{"one follows nobody", "16", `it follows "", and not run first`, func(s *scene) {
			s.payload("second", 1, "follows", "")
			s.payload("second", 2, "history", nil)
			for _, run := range []string{"second", "third", "fifth"} {
				s.rewrite(is(history.KindExec, history.OpBegin, run), func(e *history.Entry) { e.Exec.Heard = s.encode(lines()) })
			}
			s.payload("third", 2, "history", lines())
			s.payload("fifth", 2, "history", lines())
		}},
		{"one follows a stranger", "16", `"plain", which was not queued before it`, func(s *scene) { s.payload("first", 1, "follows", "plain") }},
		{"one follows who comes later", "16", `"second", which was not queued before it`, func(s *scene) { s.payload("first", 1, "follows", "second") }},
		{"one that lives is passed over", "16", "and not run fourth", func(s *scene) { s.resequence("fourth", 2, "third", 4) }},
		{"begins beside the one before it", "16", "run second, queued before it, had not ended", func(s *scene) { s.resequence("third", 2, "second", 3) }},
		{"begins beside one far before it", "16", "run fifth, queued before it, had not ended", func(s *scene) { s.resequence("seventh", 2, "fifth", 3) }},
		{"begins beside one that was redriven", "16", "had been redriven", func(s *scene) {
			s.edit("second", 4, func(e *event) { e.stored = e.stored.Add(-time.Minute) })
		}},
		{"is accepted beside another one", "16", "though it was to be rejected", func(s *scene) {
			s.edit("fifth", 1, func(e *event) { e.Payload = []byte(strings.Replace(string(e.Payload), "interrupt", "reject", 1)) })
		}},
		{"is rejected for nobody", "16", "it was rejected at", func(s *scene) {
			s.rewrite(is(history.KindSubmit, history.OpInvoke, "refused"), func(e *history.Entry) { e.Submit.Conversation = "d" })
		}},
		{"is rejected for another fault", "1", "a good submission was refused", func(s *scene) { s.payload("refused", 1, "errors", []fieldFault{{"agent_key"}}) }},
		{"interrupts nobody", "11", "run fifth interrupted it", func(s *scene) {
			s.edit("third", 4, func(e *event) { e.stored = e.stored.Add(time.Minute) })
		}},
		{"begins with nothing", "17", "begins with []", func(s *scene) { s.payload("seventh", 2, "history", lines()) }},
		{"begins with what the one before it said too late", "17", "begins with", func(s *scene) { s.payload("third", 2, "history", lines("u:9", "a:9")) }},
		{"begins with an answer", "17", "begins with", func(s *scene) { s.payload("second", 2, "history", lines("a:1", "u:2", "a:2")) }},
		{"begins with too much", "17", "begins with", func(s *scene) { s.payload("second", 2, "history", lines("u:1", "a:1", "u:2", "a:2")) }},
		{"another attempt is given something else", "17", "the execution of epoch 2 was given", func(s *scene) {
			s.rewrite(func(e history.Entry) bool {
				return is(history.KindExec, history.OpBegin, "second")(e) && e.Exec.Epoch == 2
			},
				func(e *history.Entry) { e.Exec.Heard = s.encode(lines("u:9")) })
		}},
		{"begins beside one that was never queued", "16", "run unqueued, which it follows, had been redriven", func(s *scene) { s.resequence("tenth", 2, "unqueued", 5) }},
		{"one that was never queued does not wait", "16", "run ninth, which it follows, had not ended", func(s *scene) { s.resequence("unqueued", 4, "ninth", 3) }},
		{"one follows who was never redriven", "16", "which had no place before it", func(s *scene) { s.resequence("unqueued", 3, "ninth", 2) }},
		{"who was queued behind a redrive is passed over", "16", `it follows "unqueued", and not run ninth`, func(s *scene) { s.resequence("unqueued", 3, "ninth", 1) }},
		{"one that was never queued begins with something else", "17", "begins with", func(s *scene) {
			s.payload("unqueued", 4, "history", lines("u:5", "a:5"))
			s.rewrite(is(history.KindExec, history.OpBegin, "unqueued"), func(e *history.Entry) { e.Exec.Heard = s.encode(lines("u:5", "a:5")) })
			s.payload("tenth", 2, "history", lines("u:5", "a:5"))
			s.rewrite(is(history.KindExec, history.OpBegin, "tenth"), func(e *history.Entry) { e.Exec.Heard = s.encode(lines("u:5", "a:5")) })
		}},
		{"one that was never queued is given something else", "17", "the execution of epoch 1 was given", func(s *scene) {
			s.rewrite(is(history.KindExec, history.OpBegin, "unqueued"), func(e *history.Entry) { e.Exec.Heard = s.encode(lines()) })
		}},
		{"it is said again", "17", "has a history once more", func(s *scene) { s.payload("second", 5, "history", lines("u:2", "a:2")) }},
		{"a run of no conversation has a history", "17", "of no conversation", func(s *scene) { s.payload("plain", 2, "history", lines("u:2")) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := clean(t)
			c.spoil(s)
			s.reproject()
			s.judge(t, c.want, c.words)
		})
	}
}
