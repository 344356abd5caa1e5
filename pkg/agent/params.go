package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"longhaul/pkg/agent/schema"
)

// Params returns input.params as a T; see Run.Params.
func Params[T any](run *Run) (T, error) {
	var v T
	err := run.Params(&v)
	return v, err
}

// State returns the checkpoint that the attempt resumes from as a T, and
// whether there is one; see Run.State.
func State[T any](run *Run) (T, bool, error) {
	var v T
	resumed, err := run.State(&v)
	return v, resumed, err
}

// SchemaFor derives the JSON Schema of T for Agent.InputSchema or Tool.Schema:
// fields without omitempty or omitzero are required, fields that T does not
// have are refused, and the tag jsonschema:"…" of a field describes it. A type
// with an UnmarshalText is a string, one with an UnmarshalJSON may be anything.
// It panics if T holds what JSON cannot (a channel, a function, itself), an
// embedded struct under a name, or a field decoded from a string (",string"):
// call it where agents are put together, and a mistake shows at the start.
func SchemaFor[T any]() json.RawMessage {
	raw, err := schema.For(reflect.TypeFor[T]())
	if err != nil {
		panic(fmt.Sprintf("agent: derive a JSON Schema: %v", err))
	}
	return raw
}

// Params decodes input.params into v, a pointer. An unknown field or a value
// of the wrong type is a permanent error: another attempt would meet the same
// input. It names every such field, by its whole path. Without params v is left
// as it is. What must not be left out is for the agent's InputSchema to say.
func (r *Run) Params(v any) error {
	return decodeStrictly("params", r.Submission.Input.Params, v)
}

// decodeStrictly decodes what somebody gave as what into v, a pointer. Its error is permanent.
func decodeStrictly(what string, raw json.RawMessage, v any) error {
	if len(raw) == 0 {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		return nil
	}
	// The decoder stops at the first fault. A schema finds them all.
	if of := reflect.TypeOf(v); of != nil && of.Kind() == reflect.Pointer {
		if derived, deriveErr := schema.Lenient(of.Elem()); deriveErr == nil {
			if s, compileErr := schema.Compile(derived); compileErr == nil {
				if faults := s.Check(raw, what); len(faults) > 0 {
					return Permanent(faults)
				}
			}
		}
	}
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) && wrongType.Field != "" {
		return Permanent(fmt.Errorf("%s.%s: must be %s, not %s", what, wrongType.Field, wrongType.Type, wrongType.Value))
	}
	return Permanent(fmt.Errorf("%s: %s", what, strings.TrimPrefix(err.Error(), "json: ")))
}
