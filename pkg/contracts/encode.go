package contracts

import (
	"bytes"
	"encoding/json"
	"strings"
)

// Encode returns v, a message of this package, as it goes on the wire. It is
// json.Marshal without the escaping of <, > and &, which would make a large
// text grow on its way.
func Encode(v any) ([]byte, error) {
	if data, ok, err := appended(v); ok {
		return data, err
	}
	return encode(v)
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Shorten cuts s to at most limit bytes, between two characters, and marks the cut.
func Shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "…"
}
