package contracts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// kind is what a JSON value is.
type kind byte

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindObject
	kindArray
)

// node is one value of a document, by offsets into it. Nodes stand in document
// order: a container's first child is the node after it, the rest follow by next.
type node struct {
	start, end       int32 // of the value; of a string what is between its quotes
	keyStart, keyEnd int32 // of its name in an object, between the quotes
	parent           int32 // none for the root
	next             int32 // next value of the same parent, 0 if there is none
	last             int32 // of a container: its last child so far
	count            int32 // of a container: its children
	index            int32 // its place among its parent's children
	kind             kind
	escaped          bool // the string holds a backslash
	keyEscaped       bool
}

const none = -1

// document is one JSON text and what is wrong with it. encoding/json is not
// used to take it apart: it lets duplicate keys, names in the wrong case and
// broken UTF-8 pass, and ends at the first fault, whereas a submitter should
// hear of all of them, by path.
//
// scan finds the structure, the methods of fields.go read values out of it,
// and both note faults as they go.
type document struct {
	data  []byte
	nodes []node
	// lenient is for what our own programs wrote: no judgement on depth, or on
	// duplicate keys and numbers below the top level. Nor are nodes kept there,
	// so that a large payload costs little.
	lenient bool
	faults  []placedFault
	more    int // faults beyond MaxFaults
}

// placedFault is a fault and the offset by which faults are sorted.
type placedFault struct {
	Fault
	at int32
}

// scan takes the document apart. It returns false, with a fault noted, if the
// document is not JSON; the nodes up to that place are then usable all the same.
func (d *document) scan() bool {
	ok := d.structure()
	if !d.lenient && !utf8.Valid(d.data) {
		d.findNonUTF8()
	}
	return ok
}

// structure is a loop, not a recursion, so that hostile nesting costs no stack.
func (d *document) structure() bool {
	parent, depth := int32(none), 0
	i := d.space(0)
	if i == d.size() {
		return d.broken(i, "is empty, expected a JSON object")
	}
	for {
		var ok bool
		n := node{parent: parent}
		if parent != none && d.nodes[parent].kind == kindObject {
			if n, i, ok = d.name(parent, i); !ok {
				return false
			}
		}
		if n, i, ok = d.value(n, i); !ok {
			return false
		}
		self := d.add(n)
		if n.kind >= kindObject {
			parent, depth = self, depth+1
			if depth == MaxDepth+1 && !d.lenient {
				d.fault(self, "is nested deeper than "+strconv.Itoa(MaxDepth)+" levels")
			}
			if i = d.space(i); i == d.size() || d.data[i] != closing(n.kind) {
				continue
			}
		}
		for { // after a value, or at the end of an empty container
			if i = d.space(i); parent == none {
				if i < d.size() {
					return d.broken(i, "has "+d.found(i)+" after its end at byte "+strconv.Itoa(int(i)))
				}
				return true
			}
			p := d.nodes[parent].kind
			if i < d.size() && d.data[i] == ',' && d.nodes[parent].count > 0 {
				i = d.space(i + 1)
				break
			}
			if i == d.size() || d.data[i] != closing(p) {
				return d.broken(i, d.expected("a comma or "+strconv.QuoteRune(rune(closing(p))), i))
			}
			i++
			d.close(parent, i, depth)
			parent, depth = d.nodes[parent].parent, depth-1
		}
	}
}

// name reads a key and its colon.
func (d *document) name(parent, i int32) (node, int32, bool) {
	n := node{parent: parent}
	if i == d.size() || d.data[i] != '"' {
		return n, i, d.broken(i, d.expected("a field name in quotes", i))
	}
	var ok bool
	n.keyStart = i + 1
	if n.keyEnd, n.keyEscaped, ok = d.text(i + 1); !ok {
		return n, i, false
	}
	if i = d.space(n.keyEnd + 1); i == d.size() || d.data[i] != ':' {
		return n, i, d.broken(i, d.expected("a colon", i))
	}
	return n, d.space(i + 1), true
}

// value reads a scalar, or the opening of a container.
func (d *document) value(n node, i int32) (node, int32, bool) {
	if i == d.size() {
		return n, i, d.broken(i, d.expected("a value", i))
	}
	n.start = i
	switch c := d.data[i]; {
	case c == '{':
		n.kind, n.end = kindObject, i+1
	case c == '[':
		n.kind, n.end = kindArray, i+1
	case c == '"':
		var ok bool
		n.kind, n.start = kindString, i+1
		if n.end, n.escaped, ok = d.text(i + 1); !ok {
			return n, i, false
		}
		return n, n.end + 1, true
	case c == '-' || c >= '0' && c <= '9':
		n.kind = kindNumber
		if n.end = d.number(i); n.end < 0 {
			return n, i, d.broken(i, d.expected("a number", i))
		}
	default:
		var word string
		switch {
		case bytes.HasPrefix(d.data[i:], []byte("null")):
			n.kind, word = kindNull, "null"
		case bytes.HasPrefix(d.data[i:], []byte("true")):
			n.kind, word = kindBool, "true"
		case bytes.HasPrefix(d.data[i:], []byte("false")):
			n.kind, word = kindBool, "false"
		default:
			return n, i, d.broken(i, d.expected("a value", i))
		}
		n.end = i + int32(len(word))
	}
	return n, n.end, true
}

// text returns the offset of the quote that ends the string which begins at i.
func (d *document) text(i int32) (end int32, escaped, ok bool) {
	for begin := i; i < d.size(); i++ {
		switch c := d.data[i]; {
		case c == '"':
			return i, escaped, true
		case c < ' ':
			return i, escaped, d.broken(i, "is not JSON: control character "+d.found(i)+" in a string at byte "+strconv.Itoa(int(i)))
		case c == '\\':
			n := d.escape(i)
			if n == 0 {
				return i, escaped, d.broken(i, "is not JSON: bad escape in the string at byte "+strconv.Itoa(int(begin)))
			}
			escaped, i = true, i+n-1
		}
	}
	return i, escaped, d.broken(i, d.expected("the end of a string", i))
}

// escape returns the length of the escape at i, 0 if it is none. Half of a
// surrogate pair is none: it stands for no character, and every reader makes
// something else of it.
func (d *document) escape(i int32) int32 {
	if i+1 >= d.size() {
		return 0
	}
	if d.data[i+1] != 'u' {
		if bytes.IndexByte([]byte(`"\/bfnrt`), d.data[i+1]) < 0 {
			return 0
		}
		return 2
	}
	switch r := d.hex(i); {
	case r < 0:
		return 0
	case r < 0xd800 || r > 0xdfff || d.lenient:
		return 6
	case r > 0xdbff:
		return 0
	}
	if low := d.hex(i + 6); low < 0xdc00 || low > 0xdfff {
		return 0
	}
	return 12
}

// hex returns the value of \uXXXX at i, -1 if there is none.
func (d *document) hex(i int32) int64 {
	if i+6 > d.size() || d.data[i] != '\\' || d.data[i+1] != 'u' {
		return -1
	}
	v, err := strconv.ParseUint(string(d.data[i+2:i+6]), 16, 16)
	if err != nil {
		return -1
	}
	return int64(v)
}

// number returns the offset after the number at i, or -1.
func (d *document) number(i int32) int32 {
	digits := func() bool {
		from := i
		for i < d.size() && d.data[i] >= '0' && d.data[i] <= '9' {
			i++
		}
		return i > from
	}
	at := func(set string) bool { return i < d.size() && strings.IndexByte(set, d.data[i]) >= 0 }
	if at("-") {
		i++
	}
	if at("0") {
		i++
	} else if !digits() {
		return -1
	}
	if at(".") {
		if i++; !digits() {
			return -1
		}
	}
	if at("eE") {
		i++
		if at("+-") {
			i++
		}
		if !digits() {
			return -1
		}
	}
	return i
}

// add appends a node and links it to its parent.
func (d *document) add(n node) int32 {
	self := int32(len(d.nodes))
	if n.parent != none {
		p := &d.nodes[n.parent]
		if n.index = p.count; p.count > 0 {
			d.nodes[p.last].next = self
		}
		p.count, p.last = p.count+1, self
	}
	d.nodes = append(d.nodes, n)
	if n.kind == kindNumber && !d.lenient && !finite(d.data[n.start:n.end]) {
		d.fault(self, "is a number out of range: "+quote(string(d.data[n.start:n.end])))
	}
	return self
}

// finite reports whether a number can be held, roughly, in 64 bits: its like is
// read by agents in any language, and a huge exponent is a bomb for those who
// compute with it exactly, as JSON Schema validators do.
func finite(number []byte) bool {
	if len(number) < 300 && !bytes.ContainsAny(number, "eE") {
		return true
	}
	f, err := strconv.ParseFloat(string(number), 64)
	mantissa, _, _ := bytes.Cut(bytes.ToLower(number), []byte("e"))
	return err == nil && (f != 0 || !bytes.ContainsAny(mantissa, "123456789"))
}

// close ends a container whose last byte is before end.
func (d *document) close(self, end int32, depth int) {
	n := &d.nodes[self]
	n.end = end
	if n.kind == kindObject && (d.lenient && depth == 1 || !d.lenient && depth <= MaxDepth) {
		d.findDuplicates(self)
	}
	if d.lenient && depth > 2 {
		d.nodes = d.nodes[:self+1]
		n.count, n.last = 0, 0
	}
}

func (d *document) findDuplicates(object int32) {
	if d.nodes[object].count <= 16 { // few enough to compare each with each
		for c := d.first(object); c > 0; c = d.nodes[c].next {
			for b := d.first(object); b != c; b = d.nodes[b].next {
				if bytes.Equal(d.key(b), d.key(c)) {
					d.fault(c, "is given twice")
					break
				}
			}
		}
		return
	}
	seen := make(map[string]bool, d.nodes[object].count)
	for c := d.first(object); c > 0; c = d.nodes[c].next {
		if seen[string(d.key(c))] {
			d.fault(c, "is given twice")
		}
		seen[string(d.key(c))] = true
	}
}

// findNonUTF8 names the strings that are to blame. Outside of strings such
// bytes are no JSON either, which structure has said.
func (d *document) findNonUTF8() {
	before := len(d.faults)
	for i, n := range d.nodes {
		if n.kind == kindString && !utf8.Valid(d.data[n.start:n.end]) {
			d.fault(int32(i), "is not UTF-8: "+quote(string(d.data[n.start:n.end])))
		} else if !utf8.Valid(d.data[n.keyStart:n.keyEnd]) {
			d.fault(int32(i), "has a name that is not UTF-8")
		}
	}
	if len(d.faults) == before {
		d.broken(0, "is not UTF-8")
	}
}

// first returns the first child of a container, 0 if it has none.
func (d *document) first(n int32) int32 {
	if d.nodes[n].count == 0 {
		return 0
	}
	return n + 1
}

// key returns the name under which n stands in its object.
func (d *document) key(n int32) []byte {
	k := d.data[d.nodes[n].keyStart:d.nodes[n].keyEnd]
	if d.nodes[n].keyEscaped {
		k = []byte(unescape(k))
	}
	return k
}

// unescape returns the text of a string that scan has passed.
func unescape(inner []byte) string {
	var s string
	quoted := slices.Concat([]byte{'"'}, inner, []byte{'"'})
	if err := json.Unmarshal(quoted, &s); err != nil {
		panic(fmt.Sprintf("contracts: unescape %q: %v", quoted, err))
	}
	return s
}

func (d *document) size() int32 { return int32(len(d.data)) }

// space returns the offset of the first byte from i on that is not white space.
func (d *document) space(i int32) int32 {
	for i < d.size() {
		switch d.data[i] {
		case ' ', '\t', '\n', '\r':
			i++
		default:
			return i
		}
	}
	return i
}

func closing(k kind) byte {
	if k == kindObject {
		return '}'
	}
	return ']'
}
