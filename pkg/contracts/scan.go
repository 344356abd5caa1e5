package contracts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"unicode/utf8"
)

// document is one JSON text taken apart, and what is wrong with it. Whether it
// is JSON at all, encoding/json judges; its values are read out of it here,
// because encoding/json lets duplicate keys, names in the wrong case and broken
// UTF-8 pass, and ends at the first fault, whereas a submitter should hear of
// all of them, by path.
//
// open finds the structure and notes what is wrong whatever a field means; the
// methods of fields.go read values out of it, and note faults as they go.
type document struct {
	data   []byte
	levels int32
	nodes  []node // none if data is not JSON
	faults []placedFault
	more   int // faults beyond MaxFaults
}

// envelope is the number of levels of what our own programs wrote: of a payload,
// which may be large, nothing is asked and no nodes are kept.
const envelope = 1

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
	d := &document{data: data, levels: levels}
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		d.refuse("is empty, expected a JSON object")
	case !json.Valid(data):
		err := json.Unmarshal(data, new(json.RawMessage))
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			err = fmt.Errorf("%w at byte %d", err, syntax.Offset)
		}
		d.refuse("is not JSON: " + err.Error())
	default:
		d.nodes = make([]node, 0, 32) // enough for the usual one
		d.add(node{parent: none}, d.next(0), 1)
		d.judge()
	}
	return d
}

// refuse notes what is wrong with the document as a whole.
func (d *document) refuse(message string) {
	d.faults = append(d.faults, placedFault{Fault: Fault{Message: message}})
}

// add appends the value that begins at i, with all that it holds, and returns
// the offset after it.
func (d *document) add(n node, i, level int32) int32 {
	self := int32(len(d.nodes))
	n.start = i
	d.nodes = append(d.nodes, n)
	switch c := d.data[i]; c {
	case '"':
		i = d.text(i)
	case '{', '[':
		d.nodes[self].closed = level > d.levels
		for i = d.next(i + 1); d.data[i] != '}' && d.data[i] != ']'; i = d.next(i) {
			child := node{parent: self}
			if c == '{' {
				child.nameStart, child.nameEnd = i, d.text(i)
				i = d.next(child.nameEnd)
			}
			i = d.add(child, i, level+1)
			if d.nodes[self].closed {
				d.nodes = d.nodes[:self+1]
			}
		}
		i++
	default: // a number or a word
		for int(i) < len(d.data) && d.data[i] > ' ' && d.data[i] != ',' && d.data[i] != '}' && d.data[i] != ']' {
			i++
		}
	}
	d.nodes[self].end, d.nodes[self].after = i, int32(len(d.nodes))
	return i
}

// next returns the offset from i on where a name or a value begins, or a
// container ends. In valid JSON the order tells what commas and colons do.
func (d *document) next(i int32) int32 {
	for {
		switch d.data[i] {
		case ' ', '\t', '\n', '\r', ',', ':':
			i++
		default:
			return i
		}
	}
}

// text returns the offset after the string at i.
func (d *document) text(i int32) int32 {
	for i++; d.data[i] != '"'; i++ {
		if d.data[i] == '\\' {
			i++
		}
	}
	return i + 1
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
		if v.closed && d.levels != envelope {
			d.fault(n, "is nested deeper than "+strconv.Itoa(int(d.levels))+" levels")
		}
	}
}

// judgeNames finds duplicates as neighbours among the sorted names.
func (d *document) judgeNames(object int32) {
	type named struct {
		name []byte
		n    int32
	}
	var few [16]named // as many as an object usually has
	sorted := few[:0]
	for c := range d.children(object) {
		sorted = append(sorted, named{d.name(c), c})
	}
	slices.SortStableFunc(sorted, func(a, b named) int { return bytes.Compare(a.name, b.name) })
	for i := 1; i < len(sorted); i++ {
		if bytes.Equal(sorted[i-1].name, sorted[i].name) {
			d.fault(sorted[i].n, "is given twice")
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
