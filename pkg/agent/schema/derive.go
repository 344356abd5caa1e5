package schema

import (
	"encoding"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"time"

	derive "github.com/google/jsonschema-go/jsonschema"
)

// For derives the JSON Schema of what encoding/json decodes into t. Fields
// without omitempty or omitzero are required, fields that t does not have are
// refused, and the tag jsonschema:"…" of a field describes it. A type with an
// UnmarshalText of its own is a string, one with an UnmarshalJSON may be anything.
func For(t reflect.Type) (json.RawMessage, error) {
	s, err := of(t)
	if err != nil {
		return nil, err
	}
	return json.Marshal(s)
}

// Lenient is For without required fields: what encoding/json itself insists on.
func Lenient(t reflect.Type) (json.RawMessage, error) {
	s, err := of(t)
	if err != nil {
		return nil, err
	}
	each(s, func(s *derive.Schema) { s.Required = nil })
	return json.Marshal(s)
}

// each calls do for s and for what s says of parts.
func each(s *derive.Schema, do func(s *derive.Schema)) {
	if s == nil {
		return
	}
	do(s)
	for _, p := range s.Properties {
		each(p, do)
	}
	each(s.Items, do)
	each(s.AdditionalProperties, do)
}

func of(t reflect.Type) (*derive.Schema, error) {
	text := &derive.Schema{Type: "string"}
	own := self{
		reflect.TypeFor[[]byte]():      {Types: []string{"null", "string"}, ContentEncoding: "base64"},
		reflect.TypeFor[json.Number](): {Type: "number"},
		reflect.TypeFor[big.Int]():     {Type: "integer"},
		reflect.TypeFor[time.Time]():   text, // by UnmarshalJSON, from a string
		reflect.TypeFor[slog.Level]():  text,
	}
	if err := own.find(t, map[reflect.Type]bool{}); err != nil {
		return nil, err
	}
	s, err := derive.ForType(t, &derive.ForOptions{TypeSchemas: own})
	each(s, func(s *derive.Schema) {
		if slices.Equal(s.Types, []string{"null"}) {
			s.Types = nil // of a pointer to what may be anything
		}
	})
	return s, err
}

// self is how types that decode themselves are described.
type self map[reflect.Type]*derive.Schema

// find adds those in t. Of what would be described wrongly it says so: it would
// have every good input refused.
func (s self) find(t reflect.Type, seen map[reflect.Type]bool) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if _, known := s[t]; known || seen[t] {
		return nil
	}
	seen[t] = true
	switch at := reflect.PointerTo(t); {
	case t.Kind() == reflect.Interface:
		return nil
	case at.Implements(reflect.TypeFor[json.Unmarshaler]()):
		s[t] = &derive.Schema{}
		return nil
	case at.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		s[t] = &derive.Schema{Type: "string"}
		return nil
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Array, reflect.Map:
		return s.find(t.Elem(), seen)
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			tag := f.Tag.Get("json")
			name, options, _ := strings.Cut(tag, ",")
			switch {
			case tag == "-" || !f.IsExported() && !f.Anonymous:
				continue
			case f.Anonymous && name != "":
				return fmt.Errorf("%s.%s is embedded and has the name %q: make it a field of that name, or write the schema by hand", t, f.Name, name)
			case slices.Contains(strings.Split(options, ","), "string"):
				return fmt.Errorf("%s.%s is decoded from a string: write the schema by hand", t, f.Name)
			}
			if err := s.find(f.Type, seen); err != nil {
				return err
			}
		}
	}
	return nil
}
