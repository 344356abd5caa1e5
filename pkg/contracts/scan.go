package contracts

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"unicode/utf8"
)

// document is one JSON text taken apart, and what is wrong with it. It is read
// in one pass of our own, because encoding/json lets duplicate keys, names in
// the wrong case and broken UTF-8 pass, and ends at the first fault, whereas a
// submitter should hear of all of them, by path. What is JSON is the same to
// both (FuzzScan), and where it is not, encoding/json says why.
//
// open finds the structure and notes what is wrong whatever a field means; the
// methods of fields.go read values out of it, and note faults as they go.
type document struct {
	data   []byte
	levels int32
	// lenient lets fields pass which an object has no place for: our own
	// programs wrote it, perhaps newer ones.
	lenient bool
	nodes   []node // none if data is not JSON
	faults  []placedFault
	more    int // faults beyond MaxFaults
}

// envelope is the number of levels of what our own programs wrote: of a payload,
// which may be large, nothing is asked and no nodes are kept.
const envelope = 1

// maxNesting is how deep encoding/json lets objects and arrays be nested.
const maxNesting = 10_000

// node is one value of a document, by offsets into it. Nodes stand in document
// order: a container's first child is the node after it.
type node struct {
	start, end         int32
	nameStart, nameEnd int32 // of its name in an object, the quotes included
	parent             int32 // none for the root
	after              int32 // the node after this one and all that it holds
	closed             bool  // a container below the last level: what it holds has no nodes
}

const none = -1

// placedFault is a fault and the offset by which faults are sorted.
type placedFault struct {
	Fault
	at int32
}

// open takes data apart, down to a number of levels of objects and arrays.
func open(data []byte, levels int32) *document {
	d := &document{data: data, levels: levels, nodes: make([]node, 0, min(18*levels, 32))} // enough for the usual one
	if end := d.add(node{parent: none}, d.next(0), 1); end != none && int(d.next(end)) == len(data) {
		d.judge()
		return d
	}
	d.nodes = nil
	if len(bytes.TrimSpace(data)) == 0 {
		d.refuse("is empty, expected a JSON object")
		return d
	}
	err := json.Unmarshal(data, new(json.RawMessage))
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		err = fmt.Errorf("%w at byte %d", err, syntax.Offset)
	}
	d.refuse(fmt.Sprintf("is not JSON: %v", err))
	return d
}

// valid reports whether data is JSON.
func valid(data []byte) bool {
	d := document{data: data, nodes: make([]node, 0, 6)} // it keeps one for each level
	end := d.add(node{parent: none}, d.next(0), 1)
	return end != none && int(d.next(end)) == len(data)
}

// refuse notes what is wrong with the document as a whole.
func (d *document) refuse(message string) {
	d.faults = append(d.faults, placedFault{Fault: Fault{Message: message}})
}

// at returns the byte at i, 0 behind the last, which is none of JSON's.
func (d *document) at(i int32) byte {
	if int(i) < len(d.data) {
		return d.data[i]
	}
	return 0
}

// add appends the value that begins at i, with all that it holds, and returns
// the offset after it, or none if there is no value.
func (d *document) add(n node, i, level int32) int32 {
	self := int32(len(d.nodes))
	n.start = i
	d.nodes = append(d.nodes, n)
	switch c := d.at(i); c {
	case '"':
		i = d.text(i)
	case '{', '[':
		i = d.container(self, i, level)
	case 't':
		i = d.word(i, "true")
	case 'f':
		i = d.word(i, "false")
	case 'n':
		i = d.word(i, "null")
	default:
		i = d.number(i)
	}
	d.nodes[self].end, d.nodes[self].after = i, int32(len(d.nodes))
	return i
}

// container is add for what the object or array at i holds, whose node is self.
func (d *document) container(self, i, level int32) int32 {
	if level > maxNesting {
		return none
	}
	closing := d.data[i] + 2 // both pairs are two apart
	closed := level > d.levels
	d.nodes[self].closed = closed
	if i = d.next(i + 1); d.at(i) == closing {
		return i + 1
	}
	for {
		child := node{parent: self}
		if closing == '}' {
			if d.at(i) != '"' {
				return none
			}
			child.nameStart, child.nameEnd = i, d.text(i)
			if i = child.nameEnd; i == none {
				return none
			}
			if i = d.next(i); d.at(i) != ':' {
				return none
			}
			i = d.next(i + 1)
		}
		if i = d.add(child, i, level+1); i == none {
			return none
		}
		if closed {
			d.nodes = d.nodes[:self+1]
		}
		switch i = d.next(i); d.at(i) {
		case ',':
			i = d.next(i + 1)
		case closing:
			return i + 1
		default:
			return none
		}
	}
}

// next returns the offset of the first byte from i on that is no white space.
func (d *document) next(i int32) int32 {
	for ; int(i) < len(d.data); i++ {
		if c := d.data[i]; c > ' ' || c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			break
		}
	}
	return i
}

// text returns the offset after the string at i.
func (d *document) text(i int32) int32 {
	for i = d.plain(i + 1); int(i) < len(d.data); i++ {
		switch c := d.data[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return none
		case c == '\\':
			i++
			if d.at(i) == 'u' {
				for range 4 {
					if i++; !isHex(d.at(i)) {
						return none
					}
				}
			} else if bytes.IndexByte([]byte(`"\/bfnrt`), d.at(i)) < 0 {
				return none
			}
			i = d.plain(i+1) - 1
		}
	}
	return none
}

// plain steps over what is plain text, by eight bytes at once: most of a large
// document is that. It stops before anything else, or a few bytes earlier.
func (d *document) plain(i int32) int32 {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; int(i)+8 <= len(d.data); i += 8 {
		w := binary.LittleEndian.Uint64(d.data[i:])
		quote, escape := w^('"'*ones), w^('\\'*ones)
		if ((w-' '*ones)&^w|(quote-ones)&^quote|(escape-ones)&^escape)&highs != 0 { // some byte is below ' ', or '"', or '\\'
			break
		}
	}
	return i
}

func isHex(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// word returns the offset after w if it stands at i.
func (d *document) word(i int32, w string) int32 {
	if end := int(i) + len(w); end <= len(d.data) && string(d.data[i:end]) == w {
		return int32(end)
	}
	return none
}

// number returns the offset after the number at i.
func (d *document) number(i int32) int32 {
	if d.at(i) == '-' {
		i++
	}
	switch c := d.at(i); {
	case c == '0':
		i++
	case isDigit(c):
		i = d.digits(i)
	default:
		return none
	}
	if d.at(i) == '.' {
		if i = d.digits(i + 1); i == none {
			return none
		}
	}
	if d.at(i)|0x20 == 'e' {
		if i++; d.at(i) == '+' || d.at(i) == '-' {
			i++
		}
		i = d.digits(i)
	}
	return i
}

// digits returns the offset after the digits at i, none if there is not one.
func (d *document) digits(i int32) int32 {
	from := i
	for isDigit(d.at(i)) {
		i++
	}
	if i == from {
		return none
	}
	return i
}

// judge notes what is wrong with any value, whatever its field means.
func (d *document) judge() {
	broken := !utf8.Valid(d.data) // seldom: else no string is looked at
	for i := range d.nodes {
		n := int32(i)
		v := d.nodes[n]
		if broken && !utf8.Valid(d.data[v.nameStart:v.nameEnd]) {
			d.fault(n, "has a name that is not UTF-8")
		}
		switch kind := d.kind(n); {
		case kind == kindString && broken && !utf8.Valid(d.raw(n)):
			d.fault(n, "is not UTF-8: "+quote(string(d.data[v.start+1:v.end-1])))
		case kind == kindNumber && !finite(d.raw(n)):
			d.fault(n, "is a number out of range: "+quote(string(d.raw(n))))
		case kind == kindObject:
			d.judgeNames(n)
		}
		if v.closed && d.levels == MaxDepth {
			d.fault(n, "is nested deeper than "+strconv.Itoa(int(d.levels))+" levels")
		}
	}
}

// judgeNames finds duplicates: each name against those before it where they are
// few, which needs no order, else as neighbours among the sorted names.
func (d *document) judgeNames(object int32) {
	type named struct {
		name []byte
		n    int32
	}
	var few [20]named // as many as an object usually has
	names := few[:0]
	for c := range d.children(object) {
		names = append(names, named{d.name(c), c})
	}
	if len(names) > len(few) {
		slices.SortStableFunc(names, func(a, b named) int { return bytes.Compare(a.name, b.name) })
		for i := 1; i < len(names); i++ {
			if bytes.Equal(names[i-1].name, names[i].name) {
				d.fault(names[i].n, "is given twice")
			}
		}
		return
	}
	for i := range names {
		if slices.ContainsFunc(names[:i], func(b named) bool { return bytes.Equal(names[i].name, b.name) }) {
			d.fault(names[i].n, "is given twice")
		}
	}
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

// children goes through what a container holds.
func (d *document) children(n int32) iter.Seq[int32] {
	return func(yield func(int32) bool) {
		for c := n + 1; c < d.nodes[n].after; c = d.nodes[c].after {
			if !yield(c) {
				return
			}
		}
	}
}

func (d *document) count(n int32) int {
	count := 0
	for range d.children(n) {
		count++
	}
	return count
}

// name returns the name under which n stands in its object.
func (d *document) name(n int32) []byte {
	return unquote(d.data[d.nodes[n].nameStart:d.nodes[n].nameEnd])
}

// raw returns a value as it stands in the document.
func (d *document) raw(n int32) []byte { return d.data[d.nodes[n].start:d.nodes[n].end] }

// unquote returns the text of a string that is valid JSON.
func unquote(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		panic(fmt.Sprintf("contracts: unquote %q: %v", quoted, err))
	}
	return []byte(s)
}

// kind is what a JSON value is, with its article.
type kind string

const (
	kindNull   kind = "null"
	kindBool   kind = "true or false"
	kindNumber kind = "a number"
	kindString kind = "a string"
	kindObject kind = "an object"
	kindArray  kind = "an array"
)

// kinds tells a value's kind by its first byte; any other begins a number.
var kinds = [256]kind{'{': kindObject, '[': kindArray, '"': kindString, 't': kindBool, 'f': kindBool, 'n': kindNull}

func (d *document) kind(n int32) kind {
	if k := kinds[d.data[d.nodes[n].start]]; k != "" {
		return k
	}
	return kindNumber
}
