package contracts

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const testRun = "0198c0de-7a11-7abc-8def-0123456789ab"

// lines shows faults as a submitter reads them.
func lines(faults Faults) []string {
	var out []string
	for _, f := range faults {
		out = append(out, strings.TrimPrefix(f.Field+": "+f.Message, ": "))
	}
	return out
}

func TestDecodeSubmissionFaults(t *testing.T) {
	const unknown = " is no field here; there are "
	submissionFields, inputFields, messageFields := fieldsOf[Submission](), fieldsOf[Input](), fieldsOf[Message]()
	toolCallFields, functionFields := fieldsOf[ToolCall](), fieldsOf[ToolFunction]()
	for _, c := range []struct {
		doc  string
		want []string
	}{
		// not one JSON object
		{``, []string{`is empty, expected a JSON object`}},
		{" \n", []string{`is empty, expected a JSON object`}},
		{`hello`, []string{`is not JSON: invalid character 'h' looking for beginning of value at byte 1`}},
		{"\x89PNG", []string{`is not JSON: invalid character '\u0089' looking for beginning of value at byte 1`}},
		{`{"agent_key":"echo"`, []string{`is not JSON: unexpected end of JSON input at byte 19`}},
		{`{"agent_key":"echo"}}`, []string{`is not JSON: invalid character '}' after top-level value at byte 21`}},
		{`{"agent_key":"echo",}`, []string{`is not JSON: invalid character '}' looking for beginning of object key string at byte 21`}},
		{`{"agent_key" "echo"}`, []string{`is not JSON: invalid character '"' after object key at byte 14`}},
		{`{"agent_key":"ec`, []string{`is not JSON: unexpected end of JSON input at byte 16`}},
		{`{"agent_key":"a\qb"}`, []string{`is not JSON: invalid character 'q' in string escape code at byte 17`}},
		{"{\"agent_key\":\"a\nb\"}", []string{`is not JSON: invalid character '\n' in string literal at byte 16`}},
		{`{"max_attempts":01}`, []string{`is not JSON: invalid character '1' after object key:value pair at byte 18`}},
		{`{"input":[1}`, []string{`is not JSON: invalid character '}' after array element at byte 12`}},
		{`null`, []string{`must be an object, not null`}},
		{`[]`, []string{`must be an object, not an array`}},
		{`"x"`, []string{`must be an object, not "x"`}},

		// fields that are not there, unknown, twice
		{`{}`, []string{`agent_key: is required`}},
		{`{"agent_key":null}`, []string{`agent_key: is required`}},
		{`{"Agent_Key":"echo"}`, []string{`agent_key: is required`, `Agent_Key:` + unknown + submissionFields}},
		{`{"agent_key":"echo","x y":null,"":1}`, []string{`["x y"]:` + unknown + submissionFields, `[""]:` + unknown + submissionFields}},
		{`{"agent_key":"echo","agent_key":"echo"}`, []string{`agent_key: is given twice`}},
		{`{"agent_key":"echo","agent\u005fkey":"echo"}`, []string{`agent_key: is given twice`}},
		{`{"agent_key":"echo","input":{"params":{"a":[{"b":1,"b":2}]}}}`, []string{`input.params.a[0].b: is given twice`}},
		{`{"agent_key":"echo","input":{"params":{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1,"m":1,"n":1,"o":1,"p":1,"q":1,"c":1,"\u0065":1}}}`, []string{
			`input.params.c: is given twice`, `input.params.e: is given twice`}},
		{`{"agent_key":"echo","input":{"extra":1,"messages":[{"role":"user","extra":1,"tool_calls":[{"id":"1","type":"function","extra":1,"function":{"name":"f","arguments":"","extra":1}}]}]}}`, []string{
			`input.extra:` + unknown + inputFields, `input.messages[0].extra:` + unknown + messageFields,
			`input.messages[0].tool_calls[0].extra:` + unknown + toolCallFields,
			`input.messages[0].tool_calls[0].function.extra:` + unknown + functionFields}},

		// wrong types, and bad values, all of them listed in the document's order
		{`{"run_id":1,"idempotency_key":true,"agent_key":[],"input":"x","conversation_id":{},"metadata":[1],"priority":2,"timeout_seconds":"5","max_attempts":"3","not_before":0}`, []string{
			`run_id: must be a string, not 1`, `idempotency_key: must be a string, not true`, `agent_key: must be a string, not an array`,
			`input: must be an object, not "x"`, `conversation_id: must be a string, not an object`, `metadata: must be an object, not an array`,
			`priority: must be a string, not 2`, `timeout_seconds: must be a number, not "5"`, `max_attempts: must be a number, not "3"`,
			`not_before: must be a string, not 0`}},
		{`{"run_id":"0198C0DE-7a11-7abc-8def-0123456789ab","idempotency_key":"a\u0000b","agent_key":"a.b","conversation_id":"-x","priority":"urgent","timeout_seconds":0,"max_attempts":101,"not_before":"tomorrow"}`, []string{
			`run_id: must be a UUID in lower case, such as 0198c0de-7a11-7abc-8def-0123456789ab, not "0198C0DE-7a11-7abc-8def-0123456789ab"`,
			`idempotency_key: must be without control characters, not "a\x00b"`,
			`agent_key: must be 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit, not "a.b"`,
			`conversation_id: must be 1 to 128 of A-Z, a-z, 0-9, dot, _, : and -, beginning with a letter or digit, not "-x"`,
			`priority: must be high, normal or low, not "urgent"`,
			`timeout_seconds: must be above 0 and at most 2592000, not 0`,
			`max_attempts: must be a whole number from 1 to 100, not 101`,
			`not_before: must be a time as RFC 3339 has it, such as 2026-11-22T10:00:00Z, not "tomorrow"`}},
		{`{"agent_key":"echo","input":{"messages":{},"params":[]}}`, []string{`input.messages: must be an array, not an object`, `input.params: must be an object, not an array`}},
		{`{"agent_key":"echo","input":{"messages":[null,{},{"role":"bot"},{"role":"user","content":5,"name":5,"tool_call_id":5,"tool_calls":5}]}}`, []string{
			`input.messages[0]: must be an object, not null`, `input.messages[1].role: is required`,
			`input.messages[2].role: must be system, developer, user, assistant or tool, not "bot"`,
			`input.messages[3].content: must be a string, an array of parts or null, not 5`, `input.messages[3].name: must be a string, not 5`,
			`input.messages[3].tool_call_id: must be a string, not 5`, `input.messages[3].tool_calls: must be an array, not 5`}},
		{`{"agent_key":"echo","input":{"messages":[{"role":"user","content":["x",{},{"type":1},{"type":""},{"type":"text","any":[1]}]}]}}`, []string{
			`input.messages[0].content[0]: must be an object, not "x"`, `input.messages[0].content[1].type: is required`,
			`input.messages[0].content[2].type: must be a string, not 1`, `input.messages[0].content[3].type: must not be empty`}},
		{`{"agent_key":"echo","input":{"messages":[{"role":"assistant","tool_calls":[1,{},{"id":"","type":"","function":1},{"id":"1","type":"t","function":{"name":"","arguments":{}}}]}]}}`, []string{
			`input.messages[0].tool_calls[0]: must be an object, not 1`, `input.messages[0].tool_calls[1].id: is required`,
			`input.messages[0].tool_calls[1].type: is required`, `input.messages[0].tool_calls[1].function: is required`,
			`input.messages[0].tool_calls[2].id: must not be empty`, `input.messages[0].tool_calls[2].type: must not be empty`,
			`input.messages[0].tool_calls[2].function: must be an object, not 1`,
			`input.messages[0].tool_calls[3].function.name: must not be empty`,
			`input.messages[0].tool_calls[3].function.arguments: must be a string, not an object`}},
		{`{"agent_key":"echo","metadata":{"a":1,"b":null,"":"x","c":"` + strings.Repeat("x", 1025) + `","` + strings.Repeat("k", 129) + `":""}}`, []string{
			`metadata.a: must be a string, not 1`, `metadata.b: must be a string, not null`, `metadata[""]: has a name that must be 1 to 128 bytes, not 0`,
			`metadata.c: must be 0 to 1024 bytes, not 1025`,
			`metadata["` + strings.Repeat("k", 57) + `"… (129 bytes)]: has a name that must be 1 to 128 bytes, not 129`}},

		// numbers
		{`{"agent_key":"echo","timeout_seconds":1e999}`, []string{`timeout_seconds: is a number out of range: "1e999"`}},
		{`{"agent_key":"echo","timeout_seconds":1e-999}`, []string{`timeout_seconds: is a number out of range: "1e-999"`}},
		{`{"agent_key":"echo","timeout_seconds":-1}`, []string{`timeout_seconds: must be above 0 and at most 2592000, not -1`}},
		{`{"agent_key":"echo","timeout_seconds":2592000.1}`, []string{`timeout_seconds: must be above 0 and at most 2592000, not 2592000.1`}},
		{`{"agent_key":"echo","max_attempts":1e999999999}`, []string{`max_attempts: is a number out of range: "1e999999999"`}},
		{`{"agent_key":"echo","max_attempts":1.5}`, []string{`max_attempts: must be a whole number from 1 to 100, not 1.5`}},
		{`{"agent_key":"echo","max_attempts":0}`, []string{`max_attempts: must be a whole number from 1 to 100, not 0`}},
		{`{"agent_key":"echo","max_attempts":-1}`, []string{`max_attempts: must be a whole number from 1 to 100, not -1`}},
		{`{"agent_key":"echo","max_attempts":18446744073709551617}`, []string{`max_attempts: must be a whole number from 1 to 100, not 18446744073709551617`}},
		{`{"agent_key":"echo","input":{"params":{"n":1e999999999,"m":[-1E-999999999],"zero":0e999}}}`, []string{
			`input.params.n: is a number out of range: "1e999999999"`, `input.params.m[0]: is a number out of range: "-1E-999999999"`}},

		// times
		{`{"agent_key":"echo","on_conflict":"reject"}`, []string{`on_conflict: must not be reject without a conversation_id: no other run is looked at`}},
		{`{"agent_key":"echo","on_conflict":"interrupt","conversation_id":null}`, []string{`on_conflict: must not be interrupt without a conversation_id: no other run is looked at`}},
		{`{"agent_key":"echo","not_before":"2026-11-22"}`, []string{`not_before: must be a time as RFC 3339 has it, such as 2026-11-22T10:00:00Z, not "2026-11-22"`}},
		{`{"agent_key":"echo","not_before":"9999-12-31T23:59:59-01:00"}`, []string{`not_before: must be a time as RFC 3339 has it, such as 2026-11-22T10:00:00Z, not "9999-12-31T23:59:59-01:00"`}},

		// bytes that are no text
		{"{\"agent_key\":\"echo\",\"metadata\":{\"a\":\"caf\xe9\"},\"input\":{\"params\":{\"\xff\":1}}}", []string{
			`metadata.a: is not UTF-8: "caf\xe9"`, "input.params[\"\\xff\"]: has a name that is not UTF-8"}},
		{"{\"agent_key\":\"\xff\",\"idempotency_key\":\"\xff\"}", []string{`agent_key: is not UTF-8: "\xff"`, `idempotency_key: is not UTF-8: "\xff"`}},
	} {
		_, faults := DecodeSubmission([]byte(c.doc))
		if got := lines(faults); !slices.Equal(got, c.want) {
			t.Errorf("%.300s\n got %s\nwant %s", c.doc, strings.Join(got, "\n     "), strings.Join(c.want, "\n     "))
		}
	}
}

func TestDecodeSubmissionGood(t *testing.T) {
	echo := func(change func(*Submission)) Submission {
		s := Submission{AgentKey: "echo"}
		change(&s)
		return s
	}
	for doc, want := range map[string]Submission{
		`{"agent_key":"echo"}`:                  {AgentKey: "echo"},
		"\r\n\t {\n \"agent_key\" : \"echo\"} ": {AgentKey: "echo"},
		`{"agent\u005fkey":"\u0065cho"}`:        {AgentKey: "echo"},
		// null is the same as leaving a field out
		`{"run_id":null,"idempotency_key":null,"agent_key":"echo","input":null,"conversation_id":null,"metadata":null,"priority":null,"timeout_seconds":null,"max_attempts":null,"not_before":null}`: {AgentKey: "echo"},
		`{"agent_key":"echo","input":{"messages":null,"params":null},"metadata":{}}`:                                                                                                                 {AgentKey: "echo"},
		`{"agent_key":"echo","max_attempts":3.0,"timeout_seconds":0.25}`:                                                                                                                             echo(func(s *Submission) { s.MaxAttempts, s.TimeoutSeconds = 3, 0.25 }),
		`{"agent_key":"echo","max_attempts":1e2,"timeout_seconds":2.592e6}`:                                                                                                                          echo(func(s *Submission) { s.MaxAttempts, s.TimeoutSeconds = 100, 2592000 }),
		`{"agent_key":"echo","not_before":"2026-11-22T11:00:00.5+01:00"}`:                                                                                                                            echo(func(s *Submission) { s.NotBefore = time.Date(2026, 11, 22, 10, 0, 0, 5e8, time.UTC) }),
		`{"agent_key":"echo","idempotency_key":"Bestellung №7 \ud83d\ude00"}`:                                                                                                                        echo(func(s *Submission) { s.IdempotencyKey = "Bestellung №7 😀" }),
		`{"agent_key":"echo","input":{"params":{"run_id":1,"x":null,"big":0e999,"<":"&"}}}`:                                                                                                          echo(func(s *Submission) { s.Input.Params = []byte(`{"run_id":1,"x":null,"big":0e999,"<":"&"}`) }),
		`{"agent_key":"echo","input":{"messages":[{"role":"tool","content":null,"name":null,"tool_call_id":"1","tool_calls":null}]}}`: echo(func(s *Submission) {
			s.Input.Messages = []Message{{Role: "tool", Content: []byte("null"), ToolCallID: "1"}}
		}),
	} {
		got, faults := DecodeSubmission([]byte(doc))
		if faults != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s\n got %+v, %v\nwant %+v", doc, got, faults, want)
		}
	}
}

// TestDecodeSubmissionLimits tries each limit and one more.
func TestDecodeSubmissionLimits(t *testing.T) {
	repeat := strings.Repeat
	entries := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"k%d":""`, i)
		}
		return b.String()[1:]
	}
	for name, c := range map[string]struct {
		limit int
		doc   func(n int) string
		fault string
	}{
		"size": {MaxSubmission, func(n int) string { return `{"agent_key":"echo"}` + repeat(" ", n-20) }, "must be at most 524288 bytes, not 524289"},
		"depth": {MaxDepth, func(n int) string {
			return `{"agent_key":"echo","input":{"params":{"a":` + repeat("[", n-3) + repeat("]", n-3) + `}}}`
		}, "is nested deeper than 64 levels"},
		"messages": {MaxMessages, func(n int) string {
			return `{"agent_key":"echo","input":{"messages":[` + repeat(`{"role":"user"},`, n-1) + `{"role":"user"}]}}`
		}, "must be at most 10000 messages, not 10001"},
		"metadata":        {MaxMetadata, func(n int) string { return `{"agent_key":"echo","metadata":{` + entries(n) + `}}` }, "must be at most 64 entries, not 65"},
		"metadata key":    {MaxMetadataKey, func(n int) string { return `{"agent_key":"echo","metadata":{"` + repeat("k", n) + `":""}}` }, "has a name that must be 1 to 128 bytes, not 129"},
		"tracestate":      {MaxTracestate, func(n int) string { return `{"agent_key":"echo","tracestate":"` + repeat("t", n) + `"}` }, "must be 0 to 512 bytes, not 513"},
		"traceparent":     {MaxTraceparent, func(n int) string { return `{"agent_key":"echo","traceparent":"` + repeat("t", n) + `"}` }, "must be 0 to 55 bytes, not 56"},
		"metadata value":  {MaxMetadataValue, func(n int) string { return `{"agent_key":"echo","metadata":{"k":"` + repeat("v", n) + `"}}` }, "must be 0 to 1024 bytes, not 1025"},
		"idempotency key": {MaxIdempotencyKey, func(n int) string { return `{"agent_key":"echo","idempotency_key":"` + repeat("k", n) + `"}` }, "must be 1 to 256 bytes, not 257"},
		"idempotency key é": {MaxIdempotencyKey, func(n int) string {
			return `{"agent_key":"echo","idempotency_key":"` + repeat("é", n/2) + repeat("k", n%2) + `"}`
		}, "must be 1 to 256 bytes, not 257"},
		"conversation id": {MaxConversationID, func(n int) string { return `{"agent_key":"echo","conversation_id":"` + repeat("c", n) + `"}` }, "must be 1 to 128 of A-Z"},
		"agent key":       {63, func(n int) string { return `{"agent_key":"` + repeat("a", n) + `"}` }, "must be 1 to 63 of a-z"},
		"timeout":         {MaxTimeoutSeconds, func(n int) string { return fmt.Sprintf(`{"agent_key":"echo","timeout_seconds":%d}`, n) }, "must be above 0 and at most 2592000"},
		"start timeout":   {MaxTimeoutSeconds, func(n int) string { return fmt.Sprintf(`{"agent_key":"echo","start_timeout_seconds":%d}`, n) }, "must be above 0 and at most 2592000"},
		"max attempts":    {MaxMaxAttempts, func(n int) string { return fmt.Sprintf(`{"agent_key":"echo","max_attempts":%d}`, n) }, "must be a whole number from 1 to 100, not 101"},
	} {
		if _, faults := DecodeSubmission([]byte(c.doc(c.limit))); faults != nil {
			t.Errorf("%s: at the limit: %v", name, faults)
		}
		_, faults := DecodeSubmission([]byte(c.doc(c.limit + 1)))
		if len(faults) != 1 || !strings.HasPrefix(faults[0].Message, c.fault) {
			t.Errorf("%s: one more: %v, want %s", name, faults, c.fault)
		}
	}
}

func TestFaultsAreBounded(t *testing.T) {
	var doc strings.Builder
	doc.WriteString(`{"agent_key":"echo"`)
	for i := range 2000 {
		fmt.Fprintf(&doc, `,"%s%d":1`, strings.Repeat("x", 200), i)
	}
	doc.WriteString(`}`)
	_, faults := DecodeSubmission([]byte(doc.String()))
	if len(faults) != MaxFaults+1 || faults[MaxFaults].Message != "has 1950 more faults" {
		t.Errorf("%d faults, the last is %v", len(faults), faults[len(faults)-1])
	}
	hostile := []string{
		strings.Repeat(`{"`+strings.Repeat("k", 100)+`":`, 4000),
		strings.Repeat(`{"`+strings.Repeat("k", 100)+`":`, 60) + `{"a":1` + strings.Repeat(`,"a":1`, 100),
		strings.Repeat(`{"`+strings.Repeat("k", 60)+`":`, 60) + `{"a":1` + strings.Repeat(`,"a":1`, 100) + strings.Repeat(`}`, 61),
		strings.Repeat(`[`, MaxSubmission),
		strings.Repeat(`{"a":1,"a":[`, MaxSubmission/12),
		`[` + strings.Repeat(strings.Repeat(`[`, 70)+strings.Repeat(`]`, 70)+`,`, 3000) + `0]`,
		`{"` + strings.Repeat("\xff", MaxSubmission-10) + `":1}`,
	}
	for _, h := range hostile {
		_, faults := DecodeSubmission([]byte(h))
		data, err := Encode(faults)
		if err != nil || len(faults) == 0 || len(data) > 64<<10 {
			t.Errorf("%.40s…: %d faults in %d bytes, %v", h, len(faults), len(data), err)
		}
	}
}

// A bad submission gives the fields that are good by themselves: its rejection is filed under them.
func TestDecodeSubmissionKeepsTheGoodFields(t *testing.T) {
	s, faults := DecodeSubmission([]byte(`{"run_id":"x","agent_key":"echo","priority":"urgent","max_attempts":200,"idempotency_key":"k","metadata":{"a":1,"b":"c"}}`))
	want := Submission{AgentKey: "echo", IdempotencyKey: "k", Metadata: map[string]string{"b": "c"}}
	if len(faults) != 4 || !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v, %v", s, faults)
	}
}

func TestPeekSubmission(t *testing.T) {
	for doc, want := range map[string][2]string{
		`{"run_id":"` + testRun + `","idempotency_key":"k"}`:                                  {testRun, "k"},
		`{"run_id":"` + testRun + `","idempotency_key":"k","x":[1,{"run_id":1}`:               {testRun, "k"}, // cut off
		`{"run_id":"` + testRun + `","idempotency_key":5,"agent_key":{}}`:                     {testRun, ""},
		`{"run_id":"../../x","idempotency_key":"k"}`:                                          {"", "k"},
		`{"run_id":["` + testRun + `"],"idempotency_key":"` + strings.Repeat("k", 257) + `"}`: {"", ""},
		`{"input":{"run_id":"` + testRun + `"}}`:                                              {"", ""},
		`{"a":[[{"b":[1,2]}],3],"idempotency_key":"k"}`:                                       {"", "k"},
		"{\"idempotency_key\":\"\xff\"}":                                                      {"", ""},
		`[{"run_id":"` + testRun + `"}]`:                                                      {"", ""},
		``:                                                                                    {"", ""},
		`"`:                                                                                   {"", ""},
	} {
		if id, key := PeekSubmission([]byte(doc)); id != want[0] || key != want[1] {
			t.Errorf("%q: got %q, %q", doc, id, key)
		}
	}
}

// Check says of a Go value what the dispatcher would say of its encoding, and
// tells of what no encoding could hold.
func TestSubmissionCheck(t *testing.T) {
	good := Submission{AgentKey: "echo", Input: Input{Messages: []Message{Text(RoleUser, "hi")}, Params: []byte(`{"n":3}`)}, NotBefore: time.Now()}
	if faults := good.Check(); faults != nil {
		t.Errorf("good: %v", faults)
	}
	if err := good.Check().Err(); err != nil {
		t.Errorf("good: error %v", err)
	}
	for want, change := range map[string]func(*Submission){
		"agent_key: must be 1 to 63":                                         func(s *Submission) { s.AgentKey = "" },
		"run_id: must be a UUID":                                             func(s *Submission) { s.RunID = "x" },
		"max_attempts: must be a whole number from 1 to 100, not -1":         func(s *Submission) { s.MaxAttempts = -1 },
		"cannot be encoded: json: unsupported value: NaN":                    func(s *Submission) { s.TimeoutSeconds = math.NaN() },
		"cannot be encoded: json: unsupported value: +Inf":                   func(s *Submission) { s.TimeoutSeconds = math.Inf(1) },
		"cannot be encoded: Time.AppendText: year outside of range [0,9999]": func(s *Submission) { s.NotBefore = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"cannot be encoded: params is not JSON: unexpected end":              func(s *Submission) { s.Input.Params = []byte(`{`) },
		"input.params: must be an object, not an array":                      func(s *Submission) { s.Input.Params = []byte(`[]`) },
		"input.params.a: is given twice":                                     func(s *Submission) { s.Input.Params = []byte(`{"a":1,"a":1}`) },
		"input.messages[0].role: must be system":                             func(s *Submission) { s.Input.Messages = []Message{{}} },
		"cannot be encoded: content is not JSON: invalid character 'h'":      func(s *Submission) { s.Input.Messages = []Message{{Role: "user", Content: []byte("hi")}} },
		"must be at most 524288 bytes":                                       func(s *Submission) { s.Input.Params = []byte(`{"a":"` + strings.Repeat("x", MaxSubmission) + `"}`) },
	} {
		s := good
		change(&s)
		faults := s.Check()
		if len(faults) != 1 || !strings.HasPrefix(lines(faults)[0], want) {
			t.Errorf("got %q, want %q", lines(faults), want)
		}
		var as Faults
		if err := faults.Err(); !errors.As(err, &as) || len(as) != 1 {
			t.Errorf("%q is no error of type Faults: %v", lines(faults), err)
		}
	}
}

// The encoder would mend what is not UTF-8; what only looks like that is good.
func TestSubmissionCheckFindsBrokenText(t *testing.T) {
	for name, change := range map[string]func(s *Submission, text string){
		"idempotency key": func(s *Submission, text string) { s.IdempotencyKey = text },
		"metadata key":    func(s *Submission, text string) { s.Metadata = map[string]string{text: ""} },
		"metadata value":  func(s *Submission, text string) { s.Metadata = map[string]string{"k": text} },
		"message name":    func(s *Submission, text string) { s.Input.Messages = []Message{{Role: "user", Name: text}} },
		"arguments": func(s *Submission, text string) {
			call := ToolCall{ID: "1", Type: "function", Function: ToolFunction{Name: "f", Arguments: text}}
			s.Input.Messages = []Message{{Role: "assistant", ToolCalls: []ToolCall{call}}}
		},
	} {
		for text, good := range map[string]bool{"\xff": false, "caf\xe9": false, "\ufffd": true, `\ufffd`: true, `\\ufffd`: true} {
			s := Submission{AgentKey: "echo", Input: Input{Params: []byte(`{"a":"\ufffd"}`)}, NotBefore: time.Now()}
			change(&s, text)
			if faults := s.Check(); (faults == nil) != good {
				t.Errorf("%s %q: %v", name, text, faults)
			}
		}
	}
	if faults := (Submission{AgentKey: "echo", Input: Input{Params: []byte("{\"a\":\"\xff\"}")}}).Check(); faults == nil || faults[0].Field != "input.params.a" {
		t.Errorf("params: %v", faults)
	}
}
