// Package schema derives JSON Schemas from Go types and holds JSON against
// them, with faults that name the field: the input of a run, at the door, and
// the arguments of a tool, before it is called.
package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"longhaul/pkg/contracts"
)

// Schema is a compiled JSON Schema. It may be used by several goroutines; a
// nil one admits everything.
type Schema struct{ compiled *jsonschema.Schema }

// Compile compiles a JSON Schema, of draft 2020-12 unless it says another. It
// may refer to itself and to the drafts' own schemas, and to nothing else:
// nothing is read from a file or from the network. An empty raw is a nil Schema.
func Compile(raw json.RawMessage) (*Schema, error) {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil, nil
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("must be JSON: %w", err)
	}
	const here = "schema:params"
	c := jsonschema.NewCompiler()
	c.UseLoader(closed{})
	c.AssertFormat()
	if err := c.AddResource(here, doc); err != nil {
		return nil, fmt.Errorf("must be a JSON Schema: %w", err)
	}
	compiled, err := c.Compile(here)
	if err != nil {
		return nil, fmt.Errorf("must be a JSON Schema: %w", err)
	}
	return &Schema{compiled}, nil
}

// closed is a loader that loads nothing.
type closed struct{}

func (closed) Load(url string) (any, error) {
	return nil, fmt.Errorf("%s is outside of the schema, and nothing is loaded", url)
}

// Check holds a JSON document against the schema. It returns every fault, at
// most MaxFaults and a note of the rest, with fields below the path at. An empty
// document counts as {}.
func (s *Schema) Check(doc json.RawMessage, at string) contracts.Faults {
	if s == nil {
		return nil
	}
	if len(doc) == 0 {
		doc = json.RawMessage("{}")
	}
	v, err := decode(doc)
	if err != nil {
		return contracts.Faults{{Field: at, Message: "must be JSON: " + err.Error()}}
	}
	var invalid *jsonschema.ValidationError
	switch err := s.compiled.Validate(v); {
	case err == nil:
		return nil
	case !errors.As(err, &invalid):
		return contracts.Faults{{Field: at, Message: err.Error()}}
	}
	l := list{doc: v, at: at}
	l.add(invalid)
	return l.faults()
}
