package statekeeper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"longhaul/pkg/contracts"
)

// maxRequest bounds a request, in bytes.
const maxRequest = 256 << 10

// decodeRequest reads a request, an object or nothing at all, into the fields
// given by name. Every unknown field and every wrong type is a fault.
func decodeRequest(data []byte, fields map[string]any) contracts.Faults {
	if len(data) > maxRequest {
		return contracts.Faults{{Message: fmt.Sprintf("the request must be at most %d bytes, not %d", maxRequest, len(data))}}
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	var f contracts.Faults
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return contracts.Faults{{Message: "the request must be a JSON object, or empty"}}
	}
	seen := make(map[string]bool)
	for dec.More() {
		key, err := dec.Token()
		name, ok := key.(string)
		var value json.RawMessage
		if err == nil {
			err = dec.Decode(&value)
		}
		if err != nil || !ok {
			return append(f, contracts.Fault{Message: fmt.Sprintf("the request is not valid JSON: %v", err)})
		}
		into, known := fields[name]
		switch {
		case !known:
			f = append(f, contracts.Fault{Field: short(name), Message: "is no field of this request; known: " + names(fields)})
		case seen[name]:
			f = append(f, contracts.Fault{Field: name, Message: "is given twice"})
		default:
			if err := json.Unmarshal(value, into); err != nil {
				f = append(f, contracts.Fault{Field: name, Message: "has the wrong form: " + err.Error()})
			}
		}
		seen[name] = true
		if len(f) >= contracts.MaxFaults {
			return append(f, contracts.Fault{Message: "and perhaps others"})
		}
	}
	if _, err := dec.Token(); err != nil {
		return append(f, contracts.Fault{Message: fmt.Sprintf("the request is not valid JSON: %v", err)})
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		f = append(f, contracts.Fault{Message: "something follows the request's closing brace"})
	}
	return f
}

// names lists the fields of a request.
func names(fields map[string]any) string {
	if len(fields) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(fields)), ", ")
}

// short shows a name from outside without letting it fill the screen.
func short(name string) string {
	if len(name) > 60 {
		return strings.ToValidUTF8(name[:57], "") + "…"
	}
	return name
}
