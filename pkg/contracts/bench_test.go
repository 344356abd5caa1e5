package contracts

import (
	"testing"
	"time"
)

const benchSubmission = `{"run_id":"0198c0de-7a11-7abc-8def-0123456789ab","idempotency_key":"order-77","agent_key":"echo",` +
	`"input":{"messages":[{"role":"system","content":"You answer in one sentence, and you never guess."},` +
	`{"role":"user","content":"What does the order with the number 77 consist of, and when will it arrive?"}],` +
	`"params":{"n":3,"temperature":0.2,"tags":["a","b"]}},"conversation_id":"conv-1.a:b","metadata":{"user":"u1","tenant":"t9"},` +
	`"priority":"normal","timeout_seconds":300,"max_attempts":3,"not_before":"2026-11-22T10:00:00Z"}`

const benchEvent = `{"run_id":"0198c0de-7a11-7abc-8def-0123456789ab","seq":3,"type":"run.started","time":"2026-11-22T10:00:00.123456Z",` +
	`"agent_key":"echo","priority":"normal","status":"running","epoch":1,"attempt":1,"max_attempts":3,"worker_id":"w-0123abcd-4567-4",` +
	`"checkpoint":{"n":2,"epoch":1,"revision":871},"visibility":"user","payload":{"agent_key":"echo","epoch":1,"attempt":1,"lease_token":"$JS.ACK.x"}}`

func BenchmarkDecodeSubmission(b *testing.B) {
	data := []byte(benchSubmission)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, faults := DecodeSubmission(data); faults != nil {
			b.Fatal(faults)
		}
	}
}

func BenchmarkDecodeEvent(b *testing.B) {
	data := []byte(benchEvent)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeEvent(data); err != nil {
			b.Fatal(err)
		}
	}
}

// benchQueued is the event that begins most runs.
func benchQueued(tb testing.TB) Event {
	tb.Helper()
	sub, faults := DecodeSubmission([]byte(benchSubmission))
	if faults != nil {
		tb.Fatal(faults)
	}
	e, err := Next(Head{}, sub.RunID, Draft{
		Type: TypeQueued, AgentKey: sub.AgentKey, Priority: sub.Priority, MaxAttempts: sub.MaxAttempts, Payload: Queued{Submission: sub},
	}, time.Now())
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

func BenchmarkNext(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		benchQueued(b)
	}
}

func BenchmarkEncodeEvent(b *testing.B) {
	e := benchQueued(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Encode(e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeQueued(b *testing.B) {
	data, err := Encode(benchQueued(b))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeEvent(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeRecord(b *testing.B) {
	rec, err := Project(StatusRecord{}, benchQueued(b), 7)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Encode(rec); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkProject(b *testing.B) {
	e := benchQueued(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Project(StatusRecord{}, e, 7); err != nil {
			b.Fatal(err)
		}
	}
}
