package contracts

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The methods here read values out of a document. Each notes a fault if the
// value is not what it should be and then returns the zero value.

// field is how one field of an object is read.
type field struct {
	name string
	need need
	read func(n int32)
}

// need says whether a field may be left out. Null is the same as leaving it
// out, but for a field that knows of it.
type need byte

const (
	optional need = iota
	required
	nullable // optional, and null is for read to judge
)

// anyOther is the name of a field, the last of an object, that lets those pass
// which the object has no place for.
const anyOther = "*"

// object reads the fields of an object.
func (d *document) object(n int32, fields []field) {
	if len(d.nodes) == 0 || !d.is(n, kindObject) {
		return
	}
	var given uint32 // a bit for each of fields
children:
	for c := range d.children(n) {
		name, null := d.name(c), d.kind(c) == kindNull
		for i := range fields {
			if f := &fields[i]; f.name == string(name) || f.name == anyOther {
				if !null || f.need == nullable {
					given |= 1 << i
					f.read(c)
				}
				continue children
			}
		}
		if !d.lenient {
			d.fault(c, "is no field here; there are "+names(fields))
		}
	}
	for i := range fields {
		if f := &fields[i]; f.need == required && given&(1<<i) == 0 {
			d.faultIn(n, f.name, "is required")
		}
	}
}

// names lists fields as a submitter who misspelt one is told them.
func names(fields []field) string {
	var b strings.Builder
	for i := range fields {
		b.WriteString(", " + fields[i].name)
	}
	return b.String()[2:]
}

// elements reads each element of an array.
func elements[T any](d *document, n int32, read func(n int32) T) []T {
	count := d.count(n)
	if !d.is(n, kindArray) || count == 0 {
		return nil
	}
	list := make([]T, 0, count)
	for c := range d.children(n) {
		list = append(list, read(c))
	}
	return list
}

// is reports whether the value n is of a kind.
func (d *document) is(n int32, k kind) bool {
	if d.kind(n) == k {
		return true
	}
	d.fault(n, "must be "+string(k)+d.not(n))
	return false
}

// not says what a value is, after "must be …".
func (d *document) not(n int32) string {
	switch k := d.kind(n); k {
	case kindObject, kindArray:
		return ", not " + string(k)
	case kindString:
		return ", not " + quote(string(unquote(d.raw(n))))
	}
	return ", not " + Shorten(string(d.raw(n)), 40)
}

// part returns a value as it stands, in the document's memory: what is large is
// not to be copied, and hardly anything of a document is larger than such a part.
func (d *document) part(n int32) json.RawMessage { return slices.Clip(d.raw(n)) }

// str returns a string that passes check; check may be nil.
func (d *document) str(n int32, check func(string) error) string {
	if !d.is(n, kindString) {
		return ""
	}
	s := string(unquote(d.raw(n)))
	if !utf8.ValidString(s) {
		return "" // judge has said so
	}
	if check != nil {
		if err := check(s); err != nil {
			d.fault(n, err.Error())
			return ""
		}
	}
	return s
}

// isNumber reports whether the value n is a number to compute with.
func (d *document) isNumber(n int32) bool {
	return d.is(n, kindNumber) && finite(d.raw(n)) // of one that is not finite judge has said so
}

// integer returns a whole number from lowest to highest. 3.0 is one, as JSON Schema has it.
func (d *document) integer(n int32, lowest, highest uint64) uint64 {
	if !d.isNumber(n) {
		return 0
	}
	text := string(d.raw(n))
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		if f, _ := strconv.ParseFloat(text, 64); f == math.Trunc(f) && f >= 0 && f <= 1<<53 {
			v, err = uint64(f), nil
		}
	}
	if err != nil || v < lowest || v > highest {
		d.fault(n, fmt.Sprintf("must be a whole number from %d to %d%s", lowest, highest, d.not(n)))
		return 0
	}
	return v
}

// seconds returns a number of seconds above 0.
func (d *document) seconds(n int32, highest float64) float64 {
	if !d.isNumber(n) {
		return 0
	}
	f, _ := strconv.ParseFloat(string(d.raw(n)), 64)
	if f <= 0 || f > highest {
		d.fault(n, fmt.Sprintf("must be above 0 and at most %.0f%s", highest, d.not(n)))
		return 0
	}
	return f
}

// boolean returns true or false.
func (d *document) boolean(n int32) bool { return d.is(n, kindBool) && d.data[d.nodes[n].start] == 't' }

// instant returns a time, in UTC, in which it must have a year that can be written.
func (d *document) instant(n int32) time.Time {
	if !d.is(n, kindString) {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, string(unquote(d.raw(n))))
	if t = t.UTC(); err != nil || t.Year() < 0 || t.Year() > 9999 {
		d.fault(n, "must be a time as RFC 3339 has it, such as 2026-11-22T10:00:00Z"+d.not(n))
		return time.Time{}
	}
	return t
}

// fault notes what is wrong with the value n.
func (d *document) fault(n int32, message string) { d.faultIn(n, "", message) }

// faultIn notes what is wrong with a field that the object n should have.
func (d *document) faultIn(n int32, field, message string) {
	if len(d.faults) == MaxFaults {
		d.more++
		return
	}
	path := d.path(n)
	if field != "" {
		path = strings.TrimPrefix(path+"."+field, ".")
	}
	d.faults = append(d.faults, placedFault{Fault{path, message}, d.nodes[n].start})
}

// list returns everything that is wrong with the document, in its order.
func (d *document) list() Faults {
	if len(d.faults) == 0 {
		return nil
	}
	slices.SortStableFunc(d.faults, func(a, b placedFault) int { return int(a.at) - int(b.at) })
	list := make(Faults, 0, len(d.faults)+1)
	for _, f := range d.faults {
		list = append(list, f.Fault)
	}
	if d.more > 0 {
		list = append(list, Fault{Message: fmt.Sprintf("has %d more faults", d.more)})
	}
	return list
}

// path names a value as its author would: input.messages[2].role.
func (d *document) path(n int32) string {
	var path string
	for ; d.nodes[n].parent != none; n = d.nodes[n].parent {
		path = d.step(n) + path
	}
	return Shorten(strings.TrimPrefix(path, "."), maxPath)
}

// step leads from the parent of n to n: .role or [2].
func (d *document) step(n int32) string {
	parent := d.nodes[n].parent
	if d.kind(parent) == kindArray {
		index := 0
		for c := parent + 1; c != n; c = d.nodes[c].after {
			index++
		}
		return "[" + strconv.Itoa(index) + "]"
	}
	name := string(d.name(n))
	if isBare(name) {
		return "." + name
	}
	return "[" + quote(name) + "]"
}

// maxPath bounds a path, so that the list of faults is small whatever the document is.
const maxPath = 300

// isBare reports whether a name can stand in a path without quotes.
func isBare(name string) bool {
	return name != "" && len(name) <= 64 && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}
