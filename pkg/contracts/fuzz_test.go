package contracts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// seed gives a fuzz target the golden fixtures of some kinds, whole and cut off.
func seed(f *testing.F, kinds ...string) {
	f.Helper()
	paths, err := filepath.Glob("testdata/golden/*.json")
	if err != nil || len(paths) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	old, err := filepath.Glob("testdata/golden/old/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range append(paths, old...) {
		for _, kind := range kinds {
			if strings.HasPrefix(filepath.Base(path), kind) {
				data, err := os.ReadFile(path)
				if err != nil {
					f.Fatal(err)
				}
				f.Add(data)
				f.Add(data[:len(data)*2/3])
			}
		}
	}
}

// FuzzDecodeSubmission: nothing panics; what is accepted is JSON to the standard
// library too, is accepted and equal once encoded, and satisfies Check; what is
// refused has a reason that can be written down.
func FuzzDecodeSubmission(f *testing.F) {
	seed(f, "submission", "cancel", "redrive", "signal", "holder")
	f.Add([]byte(`{"agent_key":"a","agent_key":"b","input":{"params":{"a":[1e999,{"b":1,"b":2}]}},"x":"\ud83d\ude00\u2028"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, faults := DecodeSubmission(data)
		id, key := PeekSubmission(data)
		if _, err := Encode(faults); err != nil {
			t.Fatalf("faults cannot be encoded: %v", err)
		}
		if len(faults) > MaxFaults+1 {
			t.Fatalf("%d faults", len(faults))
		}
		if faults != nil {
			if id != "" && CheckRunID(id) != nil || key != "" && checkIdempotencyKey(key) != nil {
				t.Fatalf("peeked %q, %q", id, key)
			}
			return
		}
		if id != s.RunID || key != s.IdempotencyKey {
			t.Fatalf("peeked %q, %q of %+v", id, key, s)
		}
		var plain Submission
		if err := json.Unmarshal(data, &plain); err != nil {
			t.Fatalf("accepted, but the standard library says %v", err)
		}
		if faults := s.Check(); faults != nil {
			t.Fatalf("accepted, but Check says %v", faults)
		}
		encoded, err := Encode(s)
		if err != nil {
			t.Fatal(err)
		}
		again, faults := DecodeSubmission(encoded)
		if faults != nil {
			t.Fatalf("%s is accepted; encoded, %s, it is not: %v", data, encoded, faults)
		}
		if !reflect.DeepEqual(again, s) {
			t.Fatalf("%s\nis    %+v\nagain %+v", data, s, again)
		}
		// What the standard library reads is the same, as the worker reads a work message with it.
		if plain.NotBefore = plain.NotBefore.UTC(); !reflect.DeepEqual(normal(plain), again) {
			t.Fatalf("%s\nis      %+v\nplainly %+v", data, again, plain)
		}
	})
}

// normal makes what is empty the same as what is left out.
func normal(s Submission) Submission {
	if string(s.Input.Params) == "null" {
		s.Input.Params = nil
	}
	if len(s.Input.Messages) == 0 {
		s.Input.Messages = nil
	}
	for i := range s.Input.Messages {
		if m := &s.Input.Messages[i]; len(m.ToolCalls) == 0 {
			m.ToolCalls = nil
		}
	}
	if len(s.Metadata) == 0 {
		s.Metadata = nil
	}
	return s
}

// FuzzDecodeEvent: nothing panics; an accepted event is equal once encoded, and
// the standard library reads the same out of it.
func FuzzDecodeEvent(f *testing.F) {
	seed(f, "event", "work")
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := DecodeEvent(data)
		if err != nil {
			if !reflect.DeepEqual(e, Event{}) {
				t.Fatalf("refused with %+v", e)
			}
			return
		}
		encoded, err := Encode(e)
		if err != nil {
			t.Fatalf("%s is accepted, but cannot be encoded: %v", data, err)
		}
		again, err := DecodeEvent(encoded)
		if err != nil {
			t.Fatalf("%s is accepted; encoded, %s, it is not: %v", data, encoded, err)
		}
		var b bytes.Buffer
		if err := json.Compact(&b, e.Payload); err != nil {
			t.Fatal(err)
		}
		if e.Payload = b.Bytes(); !reflect.DeepEqual(again, e) {
			t.Fatalf("%s\nis    %+v\nagain %+v", data, e, again)
		}
		if _, err := RunIDOfSubject(EventsSubject(e.RunID)); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzApply reads its input as the moves of appenders, and changes each event a
// little. What Next makes satisfies Apply; what Apply accepts is a possible head.
func FuzzApply(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x03\x00\x00\x0d\x00\x00\x09\x00\x00"))
	f.Add([]byte("\x01\x02\x05\x03\x01\x06\x06\x01\x07\x03\x01\x08\x0a\x00\x02\x07\x01\x03"))
	f.Add([]byte("\x00\x21\x09\x01\x30\x01\x03\x00\x0b\x08\x00\x02\x0c\x00\x00\x07\xff\x00"))
	f.Add([]byte("\x02\x00\x00\x01\x00\x00\x03\x00\x00"))
	f.Fuzz(func(t *testing.T, moves []byte) {
		var head Head
		now := epochStart
		for ; len(moves) >= 3; moves = moves[3:] {
			kind, choice, twist := moves[0], uint64(moves[1]), moves[2]
			now = now.Add(time.Duration(choice>>4) * time.Second)
			d := Draft{
				Type: allTypes[int(kind)%len(allTypes)], AgentKey: "echo", Priority: PriorityNormal, MaxAttempts: int(choice % 5),
				WorkerID: []string{"w1", "w2", ""}[choice%3], FromStart: choice&1 == 0, NotBefore: now.Add(time.Duration(choice%7) * time.Second),
				Checkpoint: &CheckpointRef{N: choice % 4, Epoch: head.Epoch - choice>>7, Revision: choice % 9},
			}
			if c := head.Checkpoint; c != nil {
				d.Checkpoint.N += c.N
			}
			e, err := Next(head, testRun, d, now)
			if err != nil {
				continue
			}
			next, err := Apply(head, e)
			if err != nil {
				t.Fatalf("Apply refuses what Next made: %v", err)
			}
			checkStep(t, head, next, e)
			if forged, err := Apply(head, twisted(e, twist, choice)); err == nil {
				if fault := impossible(forged); fault != "" || forged.Seq != head.Seq+1 || forged.Epoch < head.Epoch {
					t.Fatalf("a changed %s leads from %+v to an impossible head (%s): %+v", e.Type, head, fault, forged)
				}
			} else if forged.Seq != head.Seq || forged.Status != head.Status {
				t.Fatalf("a refused event moves the head to %+v", forged)
			}
			head = next
		}
	})
}

// twisted returns e with one thing changed.
func twisted(e Event, what byte, by uint64) Event {
	if e.Checkpoint != nil {
		c := *e.Checkpoint
		e.Checkpoint = &c
	}
	statuses := append([]Status{StatusNone, "done"}, Statuses()...)
	switch what % 16 {
	case 0:
		e.Seq += by
	case 1:
		e.Type = allTypes[by%uint64(len(allTypes))]
	case 2:
		e.Status = statuses[by%uint64(len(statuses))]
	case 3:
		e.Epoch += by - 2
	case 4:
		e.Attempt += int(by) - 2
	case 5:
		e.MaxAttempts += int(by) - 2
	case 6:
		e.WorkerID = []string{"", "w9", "a.b", "events"}[by%4]
	case 7:
		e.NotBefore = e.NotBefore.Add(time.Duration(by))
	case 8:
		e.NotBefore = time.Time{}
	case 9:
		e.Checkpoint = nil
	case 10:
		e.Checkpoint = &CheckpointRef{N: by, Epoch: by % 3, Revision: by % 5}
	case 11:
		e.AgentKey = []string{"", "count", "a.b"}[by%3]
	case 12:
		e.RunID = []string{"", "x", "0198c0de-7a11-7abc-8def-0123456789ac"}[by%3]
	case 13:
		e.Priority = []Priority{"", PriorityHigh, "x"}[by%3]
	case 14: // type and status together
		e.Type, e.Status = allTypes[by%uint64(len(allTypes))], statuses[by%uint64(len(statuses))]
	case 15:
		e.Time = e.Time.Add(-time.Duration(by) * time.Second)
	}
	return e
}

// FuzzScan: what is JSON to us is JSON to the standard library, and the other way round.
func FuzzScan(f *testing.F) {
	seed(f, "")
	for _, s := range []string{"", " ", "0", "-", "-0", "01", "1.", ".5", "1e", "1e+5", "1E-05", "tru", "true", "null ", "nul", "falsey", `"`, `"\`, `"\u12`,
		`"\u12aG"`, `"\ud800"`, `"\x"`, "\"\t\"", "\"\xff\"", "\x00", "[", "[]", "[,]", "[1,]", "[1 2]", "{", "{}", `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1 "b":2}`,
		`{1:2}`, "[}", "{]", "[1]]", "\v1", "\u00a01", `{"a":[{"b":[{"c":[1,{}]}]}]}`, strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000),
		strings.Repeat("[", 10_001) + strings.Repeat("]", 10_001), strings.Repeat(`{"a":`, 10_001)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, levels := range []int32{envelope, 3, MaxDepth} {
			if d := open(data, levels); (len(d.nodes) > 0) != json.Valid(data) {
				t.Fatalf("%s: %d nodes; JSON to the standard library: %t", Shorten(fmt.Sprintf("%q", data), 300), len(d.nodes), json.Valid(data))
			}
		}
	})
}
