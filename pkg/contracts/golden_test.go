package contracts

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files of what is written today")

// The wire is pinned by files: testdata/golden holds every message as it is
// written today, which -update rewrites; testdata/golden/old what was written
// once, or by hand, or will be by a newer binary. Nothing there may ever
// change, and all of it must decode for ever. A changed golden file belongs
// into old, next to its successor.

// decoders reads a fixture by the word before the first hyphen of its name.
var decoders = map[string]func([]byte) (any, error){
	"event":      func(b []byte) (any, error) { return ptr(DecodeEvent(b)) },
	"work":       func(b []byte) (any, error) { return ptr(DecodeEvent(b)) },
	"submission": func(b []byte) (any, error) { return faulty(DecodeSubmission(b)) },
	"cancel":     func(b []byte) (any, error) { return faulty(DecodeCancel(b)) },
	"signal":     func(b []byte) (any, error) { return faulty(DecodeSignal(b)) },
	"redrive":    func(b []byte) (any, error) { return faulty(DecodeRedrive(b)) },
	"holder":     func(b []byte) (any, error) { return faulty(DecodeHolderRequest(b)) },
	"reply":      plain[HolderReply],
	"status":     plain[StatusRecord],
	"agent":      plain[AgentRecord],
	"get":        plain[GetResponse],
	"list":       plain[ListResponse],
	"stats":      plain[StatsResponse],
	"query":      plain[ListRequest],
}

func ptr[T any](v T, err error) (any, error) { return v, err }

func faulty[T any](v T, f Faults) (any, error) { return v, f.Err() }

func plain[T any](b []byte) (any, error) {
	var v T
	err := json.Unmarshal(b, &v)
	return v, err
}

func decodeFixture(t *testing.T, name string, data []byte) any {
	t.Helper()
	kind, _, _ := strings.Cut(strings.TrimSuffix(name, ".json"), "-")
	decode := decoders[kind]
	if decode == nil {
		t.Fatalf("%s: no decoder for %s", name, kind)
	}
	v, err := decode(bytes.TrimSuffix(data, []byte("\n")))
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	return v
}

func TestGoldenFixtures(t *testing.T) {
	const dir = "testdata/golden"
	samples := goldenSamples(t)
	for name, v := range samples {
		path := filepath.Join(dir, name+".json")
		data, err := Encode(v)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		data = append(data, '\n')
		if *update {
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		golden, err := os.ReadFile(path)
		if err != nil {
			t.Errorf("%v (go test -update writes it)", err)
			continue
		}
		if !bytes.Equal(golden, data) {
			t.Errorf("%s is now encoded as\n%sgolden:\n%s", name, data, golden)
		}
		decoded := decodeFixture(t, name, golden)
		if !reflect.DeepEqual(decoded, v) {
			t.Errorf("%s decodes to\n%+v\nwant\n%+v", name, decoded, v)
		}
		if again, err := Encode(decoded); err != nil || !bytes.Equal(append(again, '\n'), golden) {
			t.Errorf("%s decoded and encoded is\n%s, %v\ngolden:\n%s", name, again, err, golden)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if _, ok := samples[strings.TrimSuffix(entry.Name(), ".json")]; !ok && !entry.IsDir() {
			t.Errorf("%s is written no more: move it to old", entry.Name())
		}
	}
}

func TestOldFixturesDecode(t *testing.T) {
	paths, err := filepath.Glob("testdata/golden/old/*.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no old fixtures: %v", err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		v := decodeFixture(t, filepath.Base(path), data)
		if reflect.ValueOf(v).IsZero() {
			t.Errorf("%s decodes to nothing", path)
		}
	}
}

// TestGoldenFixturesCoverTheWire fails when a type of event has no fixture.
func TestGoldenFixturesCoverTheWire(t *testing.T) {
	samples := goldenSamples(t)
	for _, from := range transitions {
		for eventType := range from {
			if _, ok := samples["event-"+string(eventType)]; !ok && eventType != typeAny {
				t.Errorf("no fixture of %s", eventType)
			}
		}
	}
}

// The fixtures' payloads are what event.schema.json says of their type.
func TestGoldenEventsSatisfyTheSchema(t *testing.T) {
	envelope := compileSchema(t, "event.schema.json")
	defs := readSchema(t, "event.schema.json").at("$defs")
	for name, v := range goldenSamples(t) {
		e, ok := v.(Event)
		if !ok {
			continue
		}
		data, err := Encode(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(envelope, data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, ok := defs[string(e.Type)]; ok {
			if err := validate(compileSchema(t, "event.schema.json#/$defs/"+string(e.Type)), e.Payload); err != nil {
				t.Errorf("%s: payload: %v", name, err)
			}
		} else if e.Type.Reserved() {
			t.Errorf("%s: the schema says nothing of its payload", name)
		}
	}
}

// The payload types of the code hold all that the payloads hold.
func TestGoldenPayloads(t *testing.T) {
	seen := 0
	for name, v := range goldenSamples(t) {
		e, ok := v.(Event)
		goType := payloadTypes[e.Type]
		if !ok || goType == nil {
			continue
		}
		seen++
		p := reflect.New(goType)
		if err := json.Unmarshal(e.Payload, p.Interface()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if again, err := Encode(p.Elem().Interface()); err != nil || !bytes.Equal(again, e.Payload) {
			t.Errorf("%s: payload\n%s\nbecame\n%s, %v", name, e.Payload, again, err)
		}
	}
	if seen < len(payloadTypes) {
		t.Errorf("%d payloads for %d types", seen, len(payloadTypes))
	}
}

// goldenSamples is one of every message. The events are made by Next, so that
// they are also a history of runs as it can happen.
func goldenSamples(t *testing.T) map[string]any {
	t.Helper()
	now := time.Date(2026, 11, 22, 10, 0, 0, 123456000, time.UTC)
	later := now.Add(time.Hour)
	messages := []Message{
		Text(RoleSystem, "Answer in one sentence."),
		{Role: RoleUser, Content: json.RawMessage(`[{"type":"text","text":"Größer als <5 & \"kleiner\" als 7?"},{"type":"image_url","image_url":{"url":"https://example.org/a.png"}}]`), Name: "u1"},
		{Role: RoleAssistant, Content: json.RawMessage(`null`), ToolCalls: []ToolCall{{ID: "call_1", Type: "function", Function: ToolFunction{Name: "compare", Arguments: `{"a":5,"b":7}`}}}},
		{Role: RoleTool, Content: json.RawMessage(`"6"`), ToolCallID: "call_1"},
	}
	full := Submission{
		RunID: testRun, IdempotencyKey: "order 77/ä", AgentKey: "echo", Input: Input{Messages: messages, Params: json.RawMessage(`{"n":3,"ratio":0.25,"nested":{"a":[1,null,true]}}`)},
		ConversationID: "conv-1.a:b_c", OnConflict: OnConflictInterrupt, Metadata: map[string]string{"tenant": "t9", "user": "u1"}, Priority: PriorityHigh,
		TimeoutSeconds: 1.5, MaxAttempts: 2, NotBefore: later, StartTimeoutSeconds: 60,
	}
	usual := Submission{RunID: testRun, AgentKey: "echo", Priority: PriorityNormal, TimeoutSeconds: 300, MaxAttempts: 3}
	failure := ErrorInfo{Type: "RateLimited", Message: "try later", Stack: "main.go:1", Retriable: true, RetryAfterSeconds: 1.5, Details: json.RawMessage(`{"status":429}`)}
	ref := &CheckpointRef{N: 1, Epoch: 1, Revision: 871}

	samples := map[string]any{}
	var head Head
	add := func(name string, d Draft) Event {
		t.Helper()
		e, err := Next(head, testRun, d, now)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if head, err = Apply(head, e); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		now = now.Add(time.Second)
		samples["event-"+name] = e
		return e
	}
	first := func(d Draft) Draft {
		d.AgentKey, d.Priority, d.MaxAttempts = "echo", PriorityNormal, 3
		return d
	}
	fork := func(name string, d Draft) { // an event that ends the run otherwise
		t.Helper()
		before, at := head, now
		add(name, d)
		head, now = before, at
	}
	fork("run.rejected", Draft{Type: TypeRejected, AgentKey: "nobody", Payload: Rejected{SubmittedAt: now, Errors: Faults{
		{Field: "agent_key", Message: "nobody hosts it; known are echo, count"}, {Message: "has 7 more faults"}}}})
	fork("run.scheduled", first(Draft{Type: TypeScheduled, NotBefore: later, Payload: Scheduled{NotBefore: later, Submission: full, SubmittedAt: now}}))
	samples["work-full"] = Event{RunID: testRun, Seq: 1, Type: TypeQueued, Time: now, Visibility: VisibilityUser, Position: Position{
		AgentKey: "echo", Priority: PriorityHigh, Status: StatusPending, MaxAttempts: 2}, Payload: must(Encode(Queued{Submission: full, SubmittedAt: now}))}
	fork("run.queued-follows", first(Draft{Type: TypeQueued, Payload: Queued{Submission: usual, SubmittedAt: now, Follows: testRun}}))
	add("run.queued", first(Draft{Type: TypeQueued, Payload: Queued{Submission: usual, SubmittedAt: now}}))
	fork("run.timed_out-start", Draft{Type: TypeTimedOut, Payload: TimedOut{TimeoutSeconds: 300, StartTimeoutSeconds: 60}})
	fork("run.started-history", Draft{Type: TypeStarted, WorkerID: "w2", Payload: Started{AgentKey: "echo", Epoch: 1, Attempt: 1, History: messages[1:]}})
	add("run.started", Draft{Type: TypeStarted, WorkerID: "w-0123abcd-4567-4", Payload: Started{AgentKey: "echo", Epoch: 1, Attempt: 1, LeaseToken: "$JS.ACK.RUNS_WORK.work-echo-normal.1.7.7.1795341600000000000.0"}})
	add("run.heartbeat", Draft{Type: TypeHeartbeat, Payload: Heartbeat{Timestamp: now}})
	add("assistant.delta", Draft{Type: TypeDelta, Payload: Delta{Text: "Sechs, d. h. <7 & >5 \u2028"}})
	add("assistant.message", Draft{Type: TypeMessage, Payload: Text(RoleAssistant, "6")})
	add("tool.call", Draft{Type: TypeToolCall, Visibility: VisibilityDebug, Payload: messages[2].ToolCalls[0]})
	add("tool.result", Draft{Type: TypeToolResult, Visibility: VisibilityDebug, Payload: messages[3]})
	add("error", Draft{Type: TypeError, Payload: failure})
	add("own", Draft{Type: "acme.progress.v2", Visibility: VisibilityInternal})
	fork("step.completed", Draft{Type: TypeStepCompleted, Visibility: VisibilityDebug, Usage: Usage{InputTokens: 812, OutputTokens: 64, Cost: 0.0125},
		Payload: StepCompleted{Name: "fetch <1>", Type: "main.Page", Result: json.RawMessage(`{"title":"A & B"}`)}})
	fork("run.sleeping", Draft{Type: TypeSleeping, NotBefore: later, Payload: Sleeping{Name: "until tomorrow", WakeAt: later}})
	waited := func() {
		before, at := head, now
		add("run.sleeping-signal", Draft{Type: TypeSleeping, NotBefore: later, WaitsFor: "confirm:call_1", Payload: Sleeping{Name: "confirm:call_1", WakeAt: later, Signal: "confirm:call_1"}})
		add("run.signalled", Signalled{Name: "confirm:call_1", Payload: json.RawMessage(`{"confirmed":false,"reason":"<too> late"}`), By: "u1", CommandID: testRun}.Draft(head))
		head, now = before, at
	}
	waited()
	fork("tool.confirm", Draft{Type: TypeToolConfirm, Payload: ToolConfirm{Call: messages[2].ToolCalls[0], Signal: "confirm:call_1", Deadline: later, Otherwise: "refuse"}})
	add("state.checkpoint", Draft{Type: TypeCheckpoint, Checkpoint: ref, Payload: Checkpointed{N: 1, Size: 7, State: json.RawMessage(`{"i":3}`)}})
	fork("state.checkpoint-binary", Draft{Type: TypeCheckpoint, Checkpoint: &CheckpointRef{N: 2, Epoch: 1, Revision: 877}, Payload: Checkpointed{N: 2, Size: 3, Binary: []byte{0, 0xff, 0x7b}}})
	fork("run.succeeded", Draft{Type: TypeSucceeded, Payload: Succeeded{FinalOutput: json.RawMessage(`{"count":3}`), FinalMessages: messages[:1],
		Usage: json.RawMessage(`{"tokens":12}`), Artifacts: []json.RawMessage{json.RawMessage(`"a.txt"`)}}})
	fork("run.failed", Draft{Type: TypeFailed, Payload: Failed{ErrorInfo: failure, Attempts: 1}})
	fork("run.timed_out", Draft{Type: TypeTimedOut, Payload: TimedOut{TimeoutSeconds: 300}})
	fork("run.requeued", Draft{Type: TypeRequeued, Payload: Requeued{Reason: RequeueShutdown, By: "w-0123abcd-4567-4"}})
	add("run.retrying", Draft{Type: TypeRetrying, NotBefore: now.Add(2 * time.Second), Payload: Retrying{Error: failure, DelaySeconds: 2, RetryAt: now.Add(2 * time.Second)}})
	now = now.Add(2 * time.Second)
	add("run.started-resumed", Draft{Type: TypeStarted, WorkerID: "w2", Payload: Started{AgentKey: "echo", Epoch: 2, Attempt: 2, ResumedFrom: ref}})
	add("run.cancel_requested", Draft{Type: TypeCancelRequested, Payload: CancelRequested{Reason: "no need", By: "u1"}})
	add("run.cancelled", Draft{Type: TypeCancelled, Payload: Cancelled{Reason: "no need", By: "u1"}})
	add("run.requeued-redrive", Draft{Type: TypeRequeued, FromStart: true, Payload: Requeued{Reason: RequeueRedrive, By: "u1", FromStart: true}})

	samples["submission-least"] = Submission{AgentKey: "echo"}
	samples["submission-full"] = full
	samples["cancel-full"] = CancelCommand{Reason: "no need", By: "u1"}
	samples["cancel-empty"] = CancelCommand{}
	samples["redrive-full"] = RedriveCommand{By: "u1", FromStart: true}
	samples["signal-full"] = SignalCommand{Name: "confirm:call_1", Payload: json.RawMessage(`{"confirmed":true}`), By: "u1"}
	samples["signal-least"] = SignalCommand{Name: "go on"}
	samples["holder-ping"] = HolderRequest{Op: HolderPing}
	samples["holder-holds"] = HolderRequest{Op: HolderHolds, RunID: testRun, Epoch: 2}
	samples["holder-cancel"] = HolderRequest{Op: HolderCancel, RunID: testRun, Epoch: 2, Reason: "no need", By: "u1"}
	samples["reply-holds"] = HolderReply{WorkerID: "w2", Holds: true}
	samples["reply-cancel"] = HolderReply{WorkerID: "w2", Holds: true, Requested: true}
	samples["reply-error"] = HolderReply{WorkerID: "w2", Error: "op: is required"}
	record := StatusRecord{
		RunID: testRun, Position: Position{AgentKey: "echo", Priority: PriorityNormal, Status: StatusFailed, Epoch: 2, Attempt: 2, MaxAttempts: 3, WorkerID: "w2", Checkpoint: ref},
		ConversationID: "conv-1", IdempotencyKey: "order-77", Metadata: map[string]string{"user": "u1"}, CreatedAt: now, StartedAt: now, FinishedAt: later, UpdatedAt: later,
		Error: &ErrorInfo{Type: "RateLimited", Message: "try later", Retriable: true}, Seq: 9, LogSequence: 12345,
	}
	rejected := StatusRecord{RunID: testRun, Position: Position{Status: StatusRejected}, CreatedAt: now, FinishedAt: now, UpdatedAt: now,
		Faults: Faults{{Field: "agent_key", Message: "is required"}}, Seq: 1, LogSequence: 12346}
	samples["status-failed"], samples["status-rejected"] = record, rejected
	samples["agent-count"] = AgentRecord{AgentKey: "count", Description: "counts", InputSchema: json.RawMessage(`{"type":"object"}`),
		TimeoutSeconds: 60, MaxAttempts: 5, RegisteredAt: now, RegisteredBy: "w2"}
	samples["get-failed"] = GetResponse{Run: record, Result: json.RawMessage(`{"type":"RateLimited"}`)}
	samples["list-page"] = ListResponse{Runs: []StatusRecord{record, rejected}, Cursor: "abc"}
	samples["query-full"] = ListRequest{Status: []Status{StatusFailed, StatusRejected}, AgentKey: "echo", ConversationID: "conv-1", Metadata: map[string]string{"user": "u1"},
		CreatedAfter: now, CreatedBefore: later, Limit: 10, Cursor: "abc"}
	samples["stats-two"] = StatsResponse{Total: 2, ByStatus: map[Status]int{StatusFailed: 1, StatusRejected: 1},
		ByAgent: map[string]map[Status]int{"echo": {StatusFailed: 1}, "": {StatusRejected: 1}}}
	return samples
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
