package schema_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"longhaul/pkg/agent/schema"
	"longhaul/pkg/contracts"
)

type row struct {
	ID   string `json:"id" jsonschema:"what to call it"`
	Size *int   `json:"size,omitempty"`
}

type params struct {
	Rows  []row             `json:"rows"`
	Ratio float64           `json:"ratio,omitempty"`
	Until time.Time         `json:"until,omitzero"`
	Blob  []byte            `json:"blob,omitempty"`
	Free  json.RawMessage   `json:"free,omitempty"`
	Tags  map[string]string `json:"tags,omitempty"`
}

func mustCompile(t *testing.T, raw json.RawMessage) *schema.Schema {
	t.Helper()
	s, err := schema.Compile(raw)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func lines(f contracts.Faults) []string {
	var all []string
	for _, fault := range f {
		all = append(all, fault.Field+": "+fault.Message)
	}
	slices.Sort(all)
	return all
}

func TestDerivedSchema(t *testing.T) {
	raw, err := schema.For(reflect.TypeFor[params]())
	if err != nil {
		t.Fatal(err)
	}
	s := mustCompile(t, raw)
	good, err := json.Marshal(params{Rows: []row{{ID: "a", Size: new(int)}, {ID: "b"}}, Ratio: 1.5, Until: time.Now(), Blob: []byte{0xff}, Free: json.RawMessage(`[1,{}]`), Tags: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range []string{string(good), `{"rows":[]}`, `{"rows":null}`, `{"rows":[{"id":"x","size":null}]}`} {
		if f := s.Check(json.RawMessage(doc), "p"); f != nil {
			t.Errorf("%s: %v", doc, f)
		}
		if err := json.Unmarshal([]byte(doc), new(params)); err != nil {
			t.Errorf("%s: %v", doc, err)
		}
	}
	got := lines(s.Check(json.RawMessage(`{"rows":[{"id":"x"},{"size":"big","more":1},7],"ratio":"1","tags":{"a.b":1}}`), "input.params"))
	want := []string{
		"input.params.ratio: must be number, not string",
		"input.params.rows[1].id: is required",
		"input.params.rows[1].more: is no field here",
		"input.params.rows[1].size: must be null or integer, not string",
		"input.params.rows[2]: must be object, not number",
		`input.params.tags["a.b"]: must be string, not number`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := lines(s.Check(nil, "input.params")); !slices.Equal(got, []string{"input.params.rows: is required"}) {
		t.Errorf("of nothing at all: %q", got)
	}
	relaxed, err := schema.Lenient(reflect.TypeFor[params]())
	if err != nil {
		t.Fatal(err)
	}
	if got := lines(mustCompile(t, relaxed).Check(json.RawMessage(`{"rows":[{}],"x":1}`), "p")); !slices.Equal(got, []string{"p.x: is no field here"}) {
		t.Errorf("lenient: %q", got)
	}
	if !strings.Contains(string(raw), "what to call it") {
		t.Errorf("no description in %s", raw)
	}
	if _, err := schema.For(reflect.TypeFor[chan int]()); err == nil {
		t.Error("a channel has a schema")
	}
}

func TestWords(t *testing.T) {
	for _, c := range []struct{ schema, doc, want string }{
		{`{"minimum":1}`, `0.5`, "p: must be at least 1, not 0.5"},
		{`{"maximum":1}`, `2`, "p: must be at most 1, not 2"},
		{`{"exclusiveMinimum":1}`, `1`, "p: must be above 1, not 1"},
		{`{"exclusiveMaximum":1}`, `1`, "p: must be below 1, not 1"},
		{`{"minLength":2}`, `"x"`, "p: must have at least 2 characters, not 1"},
		{`{"maxLength":2}`, `"xyz"`, "p: must have at most 2 characters, not 3"},
		{`{"minItems":2}`, `[]`, "p: must have at least 2 elements, not 0"},
		{`{"maxItems":0}`, `[1]`, "p: must have at most 0 elements, not 1"},
		{`{"enum":["a","b"]}`, `"c"`, `p: must be one of "a", "b", not "c"`},
		{`{"const":1}`, `2`, `p: must be 1, not 2`},
		{`{"pattern":"^a"}`, `"b"`, `p: must match ^a, not "b"`},
		{`{"format":"email"}`, `"b"`, `p: must be of the format email, not "b"`},
		{`{"properties":{"a":false}}`, `{"a":1}`, "p.a: is no field here"},
		{`{"anyOf":[{"type":"string"},{"required":["a"]}]}`, `{}`, "p: fits none of the forms that are allowed here: (p: must be string, not object), (p.a: is required)"},
		{`{"oneOf":[{},{"type":"object"}]}`, `{}`, "p: fits more than one of the forms that are allowed here"},
		{`{"$defs":{"n":{"type":"null"}},"$ref":"#/$defs/n"}`, `1`, "p: must be null, not number"},
		{`{}`, `{`, "p: must be JSON: unexpected EOF"},
		{`false`, `1`, "p: is no field here"},
		{`{"multipleOf":2}`, `3`, "p: multipleOf: got 3, want 2"},
	} {
		got := lines(mustCompile(t, json.RawMessage(c.schema)).Check(json.RawMessage(c.doc), "p"))
		if !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s of %s:\n got %q\nwant %q", c.schema, c.doc, got, c.want)
		}
	}
}

func TestFaultsAreBounded(t *testing.T) {
	doc := map[string]int{}
	for i := range 200 {
		doc[fmt.Sprint("x", i)] = i
	}
	raw, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	f := mustCompile(t, json.RawMessage(`{"additionalProperties":false}`)).Check(raw, "p")
	if len(f) != contracts.MaxFaults+1 || f[contracts.MaxFaults].Message != "has 150 more faults" {
		t.Errorf("%d faults, the last %v", len(f), f[len(f)-1])
	}
}

// A schema comes from whoever registers an agent: it reads no files and asks nobody.
func TestSchemasAreClosed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "other.json")
	if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		`{"$ref":"file://` + file + `"}`, `{"$ref":"http://127.0.0.1:1/x"}`, `{"type":"strnig"}`, `{`, `[]`, `{"$ref":"#/$defs/none"}`, `{"pattern":"("}`,
	} {
		if _, err := schema.Compile(json.RawMessage(bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
	if s := mustCompile(t, nil); s.Check(json.RawMessage(`{"a":1}`), "p") != nil {
		t.Error("without a schema something is wrong")
	}
}
