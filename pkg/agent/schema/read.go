package schema

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
	"unsafe"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// decode makes of a document what a schema is held against. Large documents are
// mostly text, of which jsonschema.UnmarshalJSON, with encoding/json below it,
// makes several copies and looks at every byte several times: 256 KB took more
// than all else that is done at the door. What is read here is the same
// (FuzzDecode); where reader gives up, UnmarshalJSON says why, or knows better.
//
// The strings are the document's own memory.
func decode(doc []byte) (any, error) {
	r := reader{doc: doc}
	if v, ok := r.value(0); ok && r.next() == 0 && r.at == len(doc) {
		return v, nil
	}
	return jsonschema.UnmarshalJSON(bytes.NewReader(doc))
}

// maxReader is how deep objects and arrays are followed.
const maxReader = 128

// reader reads JSON, and gives up at whatever is seldom or wrong.
type reader struct {
	doc []byte
	at  int
}

// next is the next byte that is no white space, 0 at the end.
func (r *reader) next() byte {
	for ; r.at < len(r.doc); r.at++ {
		switch c := r.doc[r.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// takes reports whether the next byte is c, and goes behind it then.
func (r *reader) takes(c byte) bool {
	if r.next() != c {
		return false
	}
	r.at++
	return true
}

func (r *reader) value(depth int) (any, bool) {
	if depth > maxReader {
		return nil, false
	}
	switch r.next() {
	case '{':
		return r.object(depth)
	case '[':
		return r.array(depth)
	case '"':
		return r.text()
	case 't':
		return true, r.word("true")
	case 'f':
		return false, r.word("false")
	case 'n':
		return nil, r.word("null")
	}
	return r.number()
}

func (r *reader) object(depth int) (any, bool) {
	r.at++
	members := make(map[string]any)
	if r.takes('}') {
		return members, true
	}
	for r.next() == '"' {
		name, ok := r.text()
		if !ok || !r.takes(':') {
			return nil, false
		}
		if members[name], ok = r.value(depth + 1); !ok {
			return nil, false
		}
		if r.takes('}') {
			return members, true
		}
		if !r.takes(',') {
			return nil, false
		}
	}
	return nil, false
}

func (r *reader) array(depth int) (any, bool) {
	r.at++
	elements := []any{}
	if r.takes(']') {
		return elements, true
	}
	for {
		v, ok := r.value(depth + 1)
		if !ok {
			return nil, false
		}
		elements = append(elements, v)
		if r.takes(']') {
			return elements, true
		}
		if !r.takes(',') {
			return nil, false
		}
	}
}

// text reads a string. One without escapes, which most large ones are not, is
// left where it stands.
func (r *reader) text() (string, bool) {
	rest := r.doc[r.at+1:]
	end := bytes.IndexByte(rest, '"')
	if end < 0 {
		return "", false
	}
	if bytes.IndexByte(rest[:end], '\\') < 0 {
		r.at += 1 + end + 1
		return own(rest[:end])
	}
	for end = 0; end < len(rest) && rest[end] != '"'; end++ {
		if rest[end] == '\\' {
			end++
		}
	}
	if end >= len(rest) {
		return "", false
	}
	var s string
	err := json.Unmarshal(r.doc[r.at:r.at+1+end+1], &s)
	r.at += 1 + end + 1
	return s, err == nil
}

// own is text as a string, without a copy.
func own(text []byte) (string, bool) {
	for _, c := range text {
		if c < ' ' {
			return "", false
		}
	}
	if len(text) == 0 {
		return "", true
	}
	return unsafe.String(&text[0], len(text)), utf8.Valid(text) //nolint:gosec // nobody writes to a document that is checked
}

func (r *reader) word(w string) bool {
	ok := bytes.HasPrefix(r.doc[r.at:], []byte(w))
	r.at += len(w)
	return ok
}

// number reads a number; encoding/json says whether it is one.
func (r *reader) number() (any, bool) {
	from := r.at
	for r.at < len(r.doc) && bytes.IndexByte([]byte("+-.0123456789Ee"), r.doc[r.at]) >= 0 {
		r.at++
	}
	var n json.Number
	if from == r.at || json.Unmarshal(r.doc[from:r.at], &n) != nil {
		return nil, false
	}
	return n, true
}
