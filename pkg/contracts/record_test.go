package contracts

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// history is a run with a retry, a failure, a redrive and an end.
func history(t testing.TB) []Event {
	t.Helper()
	failure := ErrorInfo{Type: "E", Message: strings.Repeat("ä", 400), Stack: "main.go:1", Details: json.RawMessage(`{"a":1}`)}
	_, events := walk(t,
		Draft{Type: TypeCheckpoint, Checkpoint: &CheckpointRef{N: 1, Epoch: 1, Revision: 9}},
		Draft{Type: TypeRetrying, NotBefore: epochStart, Payload: Retrying{Error: failure}},
		Draft{Type: TypeStarted, WorkerID: "w2"},
		Draft{Type: TypeFailed, Payload: Failed{ErrorInfo: failure, Attempts: 2}},
		Draft{Type: TypeRequeued, Payload: Requeued{Reason: RequeueRedrive}},
		Draft{Type: TypeStarted, WorkerID: "w3"},
		Draft{Type: TypeSucceeded, Payload: Succeeded{FinalOutput: json.RawMessage(`1`)}},
	)
	return events
}

func project(t testing.TB, rec StatusRecord, events ...Event) StatusRecord {
	t.Helper()
	for _, e := range events {
		var err error
		if rec, err = Project(rec, e, 100+e.Seq); err != nil {
			t.Fatal(err)
		}
	}
	return rec
}

func TestProject(t *testing.T) {
	events := history(t)
	at := func(seq int) time.Time { return events[seq-1].Time }
	var rec StatusRecord
	for i, check := range []func() bool{
		func() bool {
			return rec.Status == StatusPending && rec.ConversationID == "c1" && rec.IdempotencyKey == "k1" && rec.Metadata["user"] == "u1" && rec.CreatedAt.Equal(at(1))
		},
		func() bool { return rec.Status == StatusRunning && rec.StartedAt.Equal(at(2)) && rec.WorkerID == "w1" },
		func() bool { return rec.Checkpoint.Revision == 9 },
		func() bool { // the error is short: no stack, no details, cut between two letters
			return rec.Status == StatusPending && rec.Error.Type == "E" && rec.Error.Stack == "" && rec.Error.Details == nil &&
				len(rec.Error.Message) <= maxRecordedError+len("…") && utf8.ValidString(rec.Error.Message) && rec.FinishedAt.IsZero()
		},
		func() bool { return rec.StartedAt.Equal(at(5)) && rec.Error != nil && rec.WorkerID == "w2" },
		func() bool { return rec.Status == StatusFailed && rec.FinishedAt.Equal(at(6)) && rec.Attempt == 2 },
		func() bool { return rec.Status == StatusPending && rec.FinishedAt.IsZero() && rec.Error != nil },
		func() bool { return rec.Status == StatusRunning },
		func() bool {
			return rec.Status == StatusSucceeded && rec.Error == nil && rec.FinishedAt.Equal(at(9)) && rec.ConversationID == "c1" && rec.CreatedAt.Equal(at(1))
		},
	} {
		rec = project(t, rec, events[i])
		if !check() || rec.RunID != testRun || rec.Seq != uint64(i+1) || rec.LogSequence != uint64(i+101) || !rec.UpdatedAt.Equal(at(i+1)) ||
			!reflect.DeepEqual(rec.Position, events[i].Position) {
			t.Errorf("after event %d, %s: %+v, error %+v", i+1, events[i].Type, rec, rec.Error)
		}
	}

	rejected, err := Next(Head{}, testRun, Draft{Type: TypeRejected, Payload: Rejected{Errors: Faults{{"agent_key", "is required"}}}}, epochStart)
	if err != nil {
		t.Fatal(err)
	}
	if rec := project(t, StatusRecord{}, rejected); rec.Status != StatusRejected || len(rec.Faults) != 1 || rec.FinishedAt.IsZero() {
		t.Errorf("rejected: %+v", rec)
	}
	scheduled, err := Next(Head{}, testRun, Draft{Type: TypeScheduled, AgentKey: "echo", Priority: PriorityLow, MaxAttempts: 1, NotBefore: epochStart,
		Payload: Scheduled{Submission: Submission{ConversationID: "c2"}}}, epochStart)
	if err != nil {
		t.Fatal(err)
	}
	if rec := project(t, StatusRecord{}, scheduled); rec.Status != StatusScheduled || rec.ConversationID != "c2" {
		t.Errorf("scheduled: %+v", rec)
	}
}

// However events are delivered, in order, twice or with gaps: what is folded
// is a beginning of the log, and the record the same as of an undisturbed run.
func TestProjectInAnyDelivery(t *testing.T) {
	events := history(t)
	want := []StatusRecord{{}}
	for _, e := range events {
		want = append(want, project(t, want[len(want)-1], e))
	}
	rapid.Check(t, func(t *rapid.T) {
		var rec StatusRecord
		for range 20 {
			e := rapid.SampledFrom(events).Draw(t, "event")
			before := rec
			var err error
			rec, err = Project(rec, e, 100+e.Seq)
			if gap := e.Seq > before.Seq+1; gap != (err != nil) {
				t.Fatalf("event %d on %d: %v", e.Seq, before.Seq, err)
			}
			if e.Seq != before.Seq+1 && !reflect.DeepEqual(rec, before) {
				t.Fatalf("event %d on %d changes the record", e.Seq, before.Seq)
			}
			if !reflect.DeepEqual(rec, want[rec.Seq]) {
				t.Fatalf("after event %d: %+v, want %+v", rec.Seq, rec, want[rec.Seq])
			}
		}
	})
}

func TestProjectRefusesAnotherRun(t *testing.T) {
	events := history(t)
	rec := project(t, StatusRecord{}, events[0])
	other := events[1]
	other.RunID = NewRunID()
	if got, err := Project(rec, other, 9); err == nil || !reflect.DeepEqual(got, rec) {
		t.Errorf("got %+v, %v", got, err)
	}
	other.Seq = 1
	if got, err := Project(rec, other, 9); err == nil || !reflect.DeepEqual(got, rec) {
		t.Errorf("as a duplicate: got %+v, %v", got, err)
	}
}

// A payload that cannot be read is an error, and does not halt the record.
func TestProjectFoldsTheEnvelopeOfABadPayload(t *testing.T) {
	for _, e := range history(t) {
		switch e.Type {
		case TypeQueued, TypeRetrying, TypeFailed:
		default:
			continue
		}
		e.Payload = json.RawMessage(`[]`)
		rec := StatusRecord{RunID: testRun, Seq: e.Seq - 1, Error: &ErrorInfo{Type: "before"}}
		got, err := Project(rec, e, 7)
		if err == nil || !strings.Contains(err.Error(), string(e.Type)) || got.Seq != e.Seq || got.Status != e.Status || got.LogSequence != 7 || got.Error.Type != "before" {
			t.Errorf("%s: got %+v, %v", e.Type, got, err)
		}
		if e.Type.Terminal() && got.FinishedAt.IsZero() {
			t.Errorf("%s: is not finished", e.Type)
		}
	}
}

// What lists read of a record is what stands in it.
func TestDecodeSummary(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 123_456_000, time.UTC)
	rec := StatusRecord{
		RunID: "0198c0de-7a11-7abc-8def-0123456789ab", Position: Position{
			AgentKey: "echo", Priority: PriorityHigh, Status: StatusRunning, Epoch: 2, Attempt: 1, MaxAttempts: 3, WorkerID: "w-1",
			Checkpoint: &CheckpointRef{N: 1, Epoch: 1, Revision: 9}, NotBefore: at, Usage: Usage{InputTokens: 5},
		},
		ConversationID: "c", IdempotencyKey: "k", Metadata: map[string]string{"a": "b", "\"": "\n"}, CreatedAt: at, StartedAt: at,
		FinishedAt: at.Add(time.Second), StartedSequence: 7, UpdatedAt: at, Seq: 3, LogSequence: 8,
	}
	data, err := Encode(rec)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSummary(data)
	if err != nil {
		t.Fatal(err)
	}
	want := StatusRecord{
		RunID: rec.RunID, Position: Position{AgentKey: "echo", Priority: PriorityHigh, Status: StatusRunning, WorkerID: "w-1", NotBefore: at}, Seq: 3,
		ConversationID: "c", IdempotencyKey: "k", Metadata: rec.Metadata, CreatedAt: at, FinishedAt: rec.FinishedAt, StartedSequence: 7, LogSequence: 8,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	for _, bad := range []string{"", "{", "{}", `{"status":"odd","created_at":"2026-11-22T10:00:00Z","log_sequence":1}`} {
		if got, err := DecodeSummary([]byte(bad)); err == nil {
			t.Errorf("%q was read as %+v", bad, got)
		}
	}
}
