package contracts

import (
	"bytes"
	"encoding/json"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"pgregory.net/rapid"
)

func compileSchema(t testing.TB, file string) *jsonschema.Schema {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	path, err := filepath.Abs(schemaDir + file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// validate is the schema's verdict on a document.
func validate(s *jsonschema.Schema, doc []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// unsaidBySchema lists the rules that JSON Schema has no words for. A document
// may break them and be good by the schema; the decoder refuses it.
var unsaidBySchema = []string{
	"is given twice", "is not UTF-8", "that is not UTF-8", "is a number out of range", "is nested deeper",
	" bytes, not ",       // lengths in bytes, where a schema counts characters
	"as RFC 3339 has it", // leap seconds, and the years before 0 and after 9999 in UTC
}

func excepted(message string) bool {
	return slices.ContainsFunc(unsaidBySchema, func(s string) bool { return strings.Contains(message, s) })
}

// agree fails if schema and decoder differ about a document, other than by the exceptions.
func agree(t interface{ Errorf(string, ...any) }, s *jsonschema.Schema, doc []byte) (good bool) {
	_, faults := DecodeSubmission(doc)
	err := validate(s, doc)
	if (err == nil) == (faults == nil) {
		return faults == nil
	}
	for _, f := range faults {
		if excepted(f.Message) {
			return false
		}
	}
	t.Errorf("%s\nschema: %v\ndecoder: %v", doc, err, faults.Err())
	return false
}

func TestSubmissionSchemaJudgesAsTheDecoder(t *testing.T) {
	s := compileSchema(t, "submission.schema.json")
	for _, doc := range []string{
		benchSubmission, `{"agent_key":"echo"}`, `{"agent_key":"echo","input":null,"metadata":null,"priority":null,"not_before":null,"run_id":null}`,
		`{"agent_key":"echo","max_attempts":3.0}`, `{"agent_key":"echo","input":{}}`, `{"agent_key":"echo","input":{"messages":[],"params":{}}}`,
		`{"agent_key":"echo","input":{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]}]}}`,
		`{"agent_key":"echo","input":{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}}`,
	} {
		if !agree(t, s, []byte(doc)) {
			t.Errorf("is to be good: %s", doc)
		}
	}
	for _, doc := range []string{
		``, `x`, `{`, `null`, `[]`, `"x"`, `5`, `{}`, `{"agent_key":null}`, `{"agent_key":""}`, `{"agent_key":"Echo"}`, `{"agent_key":"echo"} x`,
		`{"agent_key":"echo","Priority":"high"}`, `{"agent_key":"echo","priority":"urgent"}`, `{"agent_key":"echo","run_id":""}`,
		`{"agent_key":"echo","conversation_id":""}`, `{"agent_key":"echo","idempotency_key":""}`, `{"agent_key":"echo","idempotency_key":"\u0085"}`,
		`{"agent_key":"echo","timeout_seconds":0}`, `{"agent_key":"echo","timeout_seconds":2592001}`, `{"agent_key":"echo","max_attempts":0}`,
		`{"agent_key":"echo","max_attempts":2.5}`, `{"agent_key":"echo","metadata":{"a":1}}`, `{"agent_key":"echo","metadata":{"a":null}}`,
		`{"agent_key":"echo","metadata":{"":""}}`, `{"agent_key":"echo","not_before":"2026-11-22T10:00:00"}`,
		`{"agent_key":"echo","not_before":"2026-13-22T10:00:00Z"}`, `{"agent_key":"echo","not_before":"2026-11-22t10:00:00z"}`,
		`{"agent_key":"echo","input":{"params":[]}}`, `{"agent_key":"echo","input":{"messages":[{"role":null}]}}`,
		`{"agent_key":"echo","input":{"messages":[{"role":"user","content":[{"type":""}]}]}}`,
	} {
		if agree(t, s, []byte(doc)) {
			t.Errorf("is to be bad: %s", doc)
		}
	}
}

// change puts something else in one place of a document.
func change(t *rapid.T, doc any, with *rapid.Generator[any]) any {
	switch v := doc.(type) {
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		switch pick := rapid.IntRange(-2, len(keys)).Draw(t, "in object"); {
		case pick == -2:
			return with.Draw(t, "in place of an object")
		case pick == -1 || len(keys) == 0:
			v[rapid.SampledFrom([]string{"x", "", "role", "type", "n", "run_id", "Agent_key"}).Draw(t, "name")] = with.Draw(t, "added")
		case pick == len(keys):
			delete(v, rapid.SampledFrom(keys).Draw(t, "deleted"))
		default:
			v[keys[pick]] = change(t, v[keys[pick]], with)
		}
		return v
	case []any:
		switch pick := rapid.IntRange(-1, len(v)).Draw(t, "in array"); {
		case pick == -1:
			return with.Draw(t, "in place of an array")
		case pick == len(v):
			return append(v, with.Draw(t, "appended"))
		default:
			v[pick] = change(t, v[pick], with)
		}
		return v
	}
	return with.Draw(t, "value")
}

// oddValues are what a changed document may hold: right for some fields and wrong for others.
func oddValues() *rapid.Generator[any] {
	fixed := rapid.SampledFrom([]any{nil, true, false, 0.0, -1.0, 1.0, 3.0, 1.5, 100.0, 101.0, 2592000.0, 2592001.0, 1e20, 1e300, 5e-324,
		"", "x", "A", "a.b:c-d_e", "user", "high", "running", "text", "\u0000", "é", "\u2028", testRun, strings.ToUpper(testRun),
		"2026-11-22T10:00:00Z", "2026-11-22T10:00:00.123+01:00", "2026-02-30T10:00:00Z", "2026-11-22 10:00:00Z", "0000-01-01T00:00:00+01:00",
		"2026-11-22T24:00:00Z", "2016-12-31T23:59:60Z",
		strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a", 128), strings.Repeat("a", 129), strings.Repeat("é", 129),
		strings.Repeat("a", 256), strings.Repeat("a", 257), strings.Repeat("a", 1024), strings.Repeat("a", 1025), "events", "w-1"})
	// A fresh container each time: change writes into them.
	return rapid.OneOf(fixed, fixed, rapid.Custom(func(t *rapid.T) any {
		return rapid.SampledFrom([]func() any{
			func() any { return map[string]any{} }, func() any { return []any{} }, func() any { return []any{nil} },
			func() any { return map[string]any{"type": "text"} }, func() any { return map[string]any{"role": "user"} },
			func() any {
				return []any{map[string]any{"role": "tool", "content": []any{map[string]any{"type": "x"}}}}
			},
			func() any { return map[string]any{"n": 1.0, "epoch": 1.0, "revision": 1.0} },
		}).Draw(t, "container")()
	}))
}

// mutant is a good document with a few changes.
func mutant(t *rapid.T, good string) []byte {
	var doc any
	if err := json.Unmarshal([]byte(good), &doc); err != nil {
		t.Fatal(err)
	}
	for range rapid.IntRange(1, 3).Draw(t, "changes") {
		doc = change(t, doc, oddValues())
	}
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

const fullSubmission = `{"run_id":"` + testRun + `","idempotency_key":"k","agent_key":"echo","input":{"params":{"n":3},"messages":[` +
	`{"role":"user","content":[{"type":"text","text":"hi"}],"name":"n"},{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},` +
	`{"role":"tool","content":"x","tool_call_id":"1"}]},"conversation_id":"c","metadata":{"a":"b"},"priority":"low","timeout_seconds":1.5,"max_attempts":3,"not_before":"2026-11-22T10:00:00Z","start_timeout_seconds":60,"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":"a=1,b@c=2"}`

func TestSubmissionSchemaJudgesMutantsAsTheDecoder(t *testing.T) {
	s := compileSchema(t, "submission.schema.json")
	good, bad := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		if agree(t, s, mutant(t, fullSubmission)) {
			good++
		} else {
			bad++
		}
	})
	if good == 0 || bad == 0 {
		t.Errorf("%d good and %d bad mutants: one side is not tried", good, bad)
	}
}

func TestEventSchemaJudgesMutantsAsTheDecoder(t *testing.T) {
	s := compileSchema(t, "event.schema.json")
	full := strings.Replace(benchEvent, `"visibility"`, `"not_before":"2026-11-22T10:00:00Z","visibility"`, 1)
	good, bad := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		doc := mutant(t, full)
		_, err := DecodeEvent(doc)
		verdict := validate(s, doc)
		if (err == nil) != (verdict == nil) && (err == nil || !excepted(err.Error())) {
			t.Fatalf("%s\nschema: %v\ndecoder: %v", doc, verdict, err)
		}
		if err == nil {
			good++
		} else {
			bad++
		}
	})
	if good == 0 || bad == 0 {
		t.Errorf("%d good and %d bad mutants: one side is not tried", good, bad)
	}
}

// The exceptions hide nothing else: without what they stand for, all mutants
// are judged alike by a document's characters alone.
func TestExceptionsAreNeeded(t *testing.T) {
	s := compileSchema(t, "submission.schema.json")
	for _, doc := range []string{
		`{"agent_key":"echo","agent_key":"echo"}`, `{"agent_key":"echo","input":{"params":{"n":1e999}}}`,
		`{"agent_key":"echo","idempotency_key":"` + strings.Repeat("é", 200) + `"}`,
		`{"agent_key":"echo","not_before":"2016-12-31T23:59:60Z"}`, "{\"agent_key\":\"echo\",\"metadata\":{\"a\":\"\xff\"}}",
		`{"agent_key":"echo","input":{"params":{"a":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}}}`,
	} {
		_, faults := DecodeSubmission([]byte(doc))
		if err := validate(s, []byte(doc)); err != nil || len(faults) != 1 || !excepted(faults[0].Message) {
			t.Errorf("%.80s (UTF-8 %t)\nschema: %v\ndecoder: %v", doc, utf8.ValidString(doc), err, faults.Err())
		}
	}
}
