package schema_test

import (
	"encoding/json"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"

	"longhaul/pkg/agent/schema"
)

// either decodes a number or a list of them, as it likes.
type either struct{ n []int }

func (e *either) UnmarshalJSON(raw []byte) error {
	if json.Unmarshal(raw, &e.n) == nil {
		return nil
	}
	e.n = []int{0}
	return json.Unmarshal(raw, &e.n[0])
}

// level decodes a word.
type level int

func (l *level) UnmarshalText(text []byte) error {
	*l = level(len(text))
	return nil
}

type custom struct {
	ID     uuid.UUID             `json:"id"`
	Maybe  *uuid.UUID            `json:"maybe"`
	Addr   netip.Addr            `json:"addr"`
	Levels []level               `json:"levels"`
	Each   map[string]*either    `json:"each"`
	Any    *json.RawMessage      `json:"any"`
	Number json.Number           `json:"number"`
	Link   url.URL               `json:"link,omitzero"` // a plain struct, as encoding/json has it
	Nested struct{ Of []either } `json:"nested"`
}

// What a type decodes by itself is what the schema admits: a string for what is
// text, anything for the rest.
func TestTypesThatDecodeThemselves(t *testing.T) {
	raw, err := schema.For(reflect.TypeFor[custom]())
	if err != nil {
		t.Fatal(err)
	}
	s := mustCompile(t, raw)
	for _, doc := range []string{
		`{"id":"0198c0de-7a11-7abc-8def-0123456789ab","maybe":null,"addr":"::1","levels":["low"],"each":{"a":1,"b":[2]},"any":"x","number":1.5,"nested":{"Of":[1,[2]]}}`,
		`{"id":"0198c0de-7a11-7abc-8def-0123456789ab","maybe":"0198c0de-7a11-7abc-8def-0123456789ab","addr":"","levels":null,"each":{"a":null},"any":null,"number":2,"nested":{"Of":[]}}`,
	} {
		if err := json.Unmarshal([]byte(doc), new(custom)); err != nil {
			t.Errorf("%s: %v", doc, err)
		}
		if faults := s.Check(json.RawMessage(doc), "p"); len(faults) > 0 {
			t.Errorf("%s: %v", doc, faults)
		}
	}
	for _, doc := range []string{`{"id":[1]}`, `{"maybe":1}`, `{"levels":[1]}`, `{"number":"x"}`} {
		relaxed, err := schema.Lenient(reflect.TypeFor[custom]())
		if err != nil {
			t.Fatal(err)
		}
		if faults := mustCompile(t, relaxed).Check(json.RawMessage(doc), "p"); len(faults) != 1 {
			t.Errorf("%s: %v", doc, faults)
		}
	}
}

// What would be described wrongly is not described: the author is told, once,
// and not everybody who sends what is right.
func TestTypesThatAreNotDescribed(t *testing.T) {
	for want, of := range map[string]reflect.Type{
		`outer.Inner is embedded and has the name "inner"`: reflect.TypeFor[[]struct{ Of outer }](),
		`quoted.N is decoded from a string`:                reflect.TypeFor[map[string]*quoted](),
	} {
		if raw, err := schema.For(of); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s, %v, want %q", raw, err, want)
		}
	}
}

type Inner struct{ A int }

type outer struct {
	Inner `json:"inner"`
}

type quoted struct {
	N int `json:"n,omitempty,string"`
}
