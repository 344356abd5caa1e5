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

// The methods here read values out of a scanned document. Each notes a fault
// if the value is not what it should be and then returns the zero value.

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

// fault notes what is wrong with the value n.
func (d *document) fault(n int32, message string) {
	if d.room() {
		d.faults = append(d.faults, placedFault{Fault{d.path(n), message}, d.nodes[n].start})
	}
}

// faultIn notes what is wrong with a field that the object n should have.
func (d *document) faultIn(n int32, field, message string) {
	if d.room() {
		d.faults = append(d.faults, placedFault{Fault{strings.TrimPrefix(d.path(n)+"."+field, "."), message}, d.nodes[n].start})
	}
}

// broken notes why the document is not JSON, and returns false.
func (d *document) broken(at int32, message string) bool {
	if d.room() {
		d.faults = append(d.faults, placedFault{Fault{Message: message}, at})
	}
	return false
}

func (d *document) room() bool {
	if len(d.faults) < MaxFaults {
		return true
	}
	d.more++
	return false
}

// path names a value as its author would: input.messages[2].role.
func (d *document) path(n int32) string {
	var steps []string
	for ; d.nodes[n].parent != none; n = d.nodes[n].parent {
		step := "[" + strconv.Itoa(int(d.nodes[n].index)) + "]"
		if d.nodes[d.nodes[n].parent].kind == kindObject {
			step = "." + string(d.key(n))
			if !plainKey(step[1:]) {
				step = "[" + quote(step[1:]) + "]"
			}
		}
		steps = append(steps, step)
	}
	slices.Reverse(steps)
	path := strings.TrimPrefix(strings.Join(steps, ""), ".")
	if len(path) > maxPath {
		path = strings.ToValidUTF8(path[:maxPath], "") + "…"
	}
	return path
}

// maxPath bounds a path, so that the list of faults is small whatever the document is.
const maxPath = 300

// plainKey reports whether a name can stand in a path without quotes.
func plainKey(key string) bool {
	return key != "" && len(key) <= 64 && strings.Trim(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}

// expected says what is missing at an offset of a document that is not JSON.
func (d *document) expected(what string, i int32) string {
	return "is not JSON: expected " + what + " at byte " + strconv.Itoa(int(i)) + ", found " + d.found(i)
}

// found shows what stands at an offset.
func (d *document) found(i int32) string {
	if i >= d.size() {
		return "the end"
	}
	return strconv.Quote(string(d.data[i:min(i+1, d.size())]))
}

// not says what a value is, after "must be …".
func (d *document) not(n int32) string {
	v := d.nodes[n]
	switch v.kind {
	case kindObject:
		return ", not an object"
	case kindArray:
		return ", not an array"
	case kindString:
		return ", not " + quote(unescape(d.data[v.start:v.end]))
	}
	raw := string(d.data[v.start:v.end])
	if len(raw) > 40 {
		raw = raw[:40] + "…"
	}
	return ", not " + raw
}

// is reports whether the value n is of a kind.
func (d *document) is(n int32, k kind) bool {
	if d.nodes[n].kind == k {
		return true
	}
	d.fault(n, "must be "+k.String()+d.not(n))
	return false
}

// given is is for a field that may be left out, which null does too.
func (d *document) given(n int32, k kind) bool { return d.nodes[n].kind != kindNull && d.is(n, k) }

// String names a kind with its article.
func (k kind) String() string {
	return [...]string{"null", "true or false", "a number", "a string", "an object", "an array"}[k]
}

// raw returns a copy of a value as it stands in the document.
func (d *document) raw(n int32) json.RawMessage {
	v := d.nodes[n]
	if v.kind == kindString {
		v.start, v.end = v.start-1, v.end+1
	}
	return slices.Clone(d.data[v.start:v.end])
}

// str returns a string that passes check; check may be nil.
func (d *document) str(n int32, check func(string) error) string {
	if !d.given(n, kindString) {
		return ""
	}
	v := d.nodes[n]
	s := string(d.data[v.start:v.end])
	if v.escaped {
		s = unescape(d.data[v.start:v.end])
	}
	if !utf8.ValidString(s) {
		if d.lenient { // else scan has said so
			d.fault(n, "is not UTF-8: "+quote(s))
		}
		return ""
	}
	if check != nil {
		if err := check(s); err != nil {
			d.fault(n, err.Error())
			return ""
		}
	}
	return s
}

// integer returns a whole number from lowest to highest. 3.0 is one, as JSON Schema has it.
func (d *document) integer(n int32, lowest, highest uint64) uint64 {
	if !d.given(n, kindNumber) {
		return 0
	}
	raw := string(d.data[d.nodes[n].start:d.nodes[n].end])
	v, err := strconv.ParseUint(raw, 10, 64)
	if err != nil {
		if !d.lenient && !finite([]byte(raw)) {
			return 0 // scan has said so
		}
		f, _ := strconv.ParseFloat(raw, 64)
		if err = nil; f != math.Trunc(f) || f < 0 || f > 1<<53 {
			err = strconv.ErrRange
		} else {
			v = uint64(f)
		}
	}
	if err == nil && v >= lowest && v <= highest {
		return v
	}
	span := "of at least " + strconv.FormatUint(lowest, 10)
	if highest < math.MaxInt32 {
		span = fmt.Sprintf("from %d to %d", lowest, highest)
	}
	d.fault(n, "must be a whole number "+span+d.not(n))
	return 0
}

// seconds returns a number of seconds above 0.
func (d *document) seconds(n int32, highest float64) float64 {
	if !d.given(n, kindNumber) {
		return 0
	}
	raw := d.data[d.nodes[n].start:d.nodes[n].end]
	if !finite(raw) {
		return 0 // scan has said so
	}
	f, _ := strconv.ParseFloat(string(raw), 64)
	if f <= 0 || f > highest {
		d.fault(n, fmt.Sprintf("must be above 0 and at most %.0f%s", highest, d.not(n)))
		return 0
	}
	return f
}

// boolean returns true or false.
func (d *document) boolean(n int32) bool {
	return d.given(n, kindBool) && d.data[d.nodes[n].start] == 't'
}

// instant returns a time, in UTC.
func (d *document) instant(n int32) time.Time {
	if !d.given(n, kindString) {
		return time.Time{}
	}
	t, ok := parseTime(string(d.data[d.nodes[n].start:d.nodes[n].end]))
	if !ok {
		d.fault(n, "must be a time as RFC 3339 has it, such as 2026-11-22T10:00:00Z"+d.not(n))
	}
	return t
}

// parseTime returns a time in UTC. It is RFC 3339 to the letter, where
// time.Parse lets a comma, an hour of one digit and an offset of 99 hours pass.
func parseTime(s string) (time.Time, bool) {
	if len(s) < len("2006-01-02T15:04:05Z") || s[13] != ':' || s[19] == ',' {
		return time.Time{}, false
	}
	if zone := s[len(s)-5:]; s[len(s)-1] != 'Z' && (zone[:2] > "23" || zone[3:] > "59") {
		return time.Time{}, false
	}
	t, err := time.Parse(time.RFC3339, s)
	if t = t.UTC(); err != nil || t.Year() < 0 || t.Year() > 9999 {
		return time.Time{}, false
	}
	return t, true
}

// unknown notes a field that the object has no place for.
func (d *document) unknown(n int32, fields string) {
	d.fault(n, "is no field here; there are "+fields)
}
