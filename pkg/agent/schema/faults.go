package schema

import (
	"encoding/json"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"

	"longhaul/pkg/contracts"
)

// list collects what is wrong with a document.
type list struct {
	doc   any
	at    string
	found contracts.Faults
	more  int
}

func (l *list) faults() contracts.Faults {
	if l.more > 0 {
		return append(l.found, contracts.Fault{Field: l.at, Message: fmt.Sprintf("has %d more faults", l.more)})
	}
	return l.found
}

func (l *list) fault(path []string, format string, args ...any) {
	if len(l.found) == contracts.MaxFaults {
		l.more++
		return
	}
	l.found = append(l.found, contracts.Fault{Field: l.name(path), Message: contracts.Shorten(fmt.Sprintf(format, args...), maxMessage)})
}

// maxMessage bounds what is said of one fault, in bytes.
const maxMessage = 512

// name is a path as contracts writes it: input.params.rows[2].id.
func (l *list) name(path []string) string {
	name, v := l.at, l.doc
	for _, step := range path {
		if array, ok := v.([]any); ok {
			name += "[" + step + "]"
			if i, err := strconv.Atoi(step); err == nil && i < len(array) {
				v = array[i]
			}
			continue
		}
		object, _ := v.(map[string]any)
		v = object[step]
		if strings.ContainsAny(step, ".[]\" ") || step == "" {
			name += "[" + strconv.Quote(step) + "]"
		} else {
			name += "." + step
		}
	}
	return strings.TrimPrefix(name, ".")
}

// add adds what is said by an error and those below it.
func (l *list) add(e *jsonschema.ValidationError) {
	path := e.InstanceLocation
	below := func(name string) []string { return append(append([]string(nil), path...), name) }
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		for _, name := range k.Missing {
			l.fault(below(name), "is required")
		}
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			l.fault(below(name), "is no field here")
		}
	case *kind.FalseSchema:
		l.fault(path, "is no field here")
	case *kind.AnyOf, *kind.OneOf:
		if len(e.Causes) == 0 {
			l.fault(path, "fits more than one of the forms that are allowed here")
			return
		}
		forms := make([]string, 0, len(e.Causes))
		for _, cause := range e.Causes {
			form := list{doc: l.doc, at: l.at}
			form.add(cause)
			forms = append(forms, "("+form.found.Error()+")")
		}
		l.fault(path, "fits none of the forms that are allowed here: %s", strings.Join(forms, ", "))
	default:
		if len(e.Causes) == 0 {
			l.fault(path, "%s", says(k))
		}
		for _, cause := range e.Causes {
			l.add(cause)
		}
	}
}

// says is what was expected and found, in the words of contracts.
func says(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Type:
		return "must be " + strings.Join(k.Want, " or ") + ", not " + k.Got
	case *kind.Enum:
		return "must be one of " + values(k.Want...) + ", not " + values(k.Got)
	case *kind.Const:
		return "must be " + values(k.Want) + ", not " + values(k.Got)
	case *kind.Minimum:
		return "must be at least " + number(k.Want) + ", not " + number(k.Got)
	case *kind.Maximum:
		return "must be at most " + number(k.Want) + ", not " + number(k.Got)
	case *kind.ExclusiveMinimum:
		return "must be above " + number(k.Want) + ", not " + number(k.Got)
	case *kind.ExclusiveMaximum:
		return "must be below " + number(k.Want) + ", not " + number(k.Got)
	case *kind.MinLength:
		return fmt.Sprintf("must have at least %d characters, not %d", k.Want, k.Got)
	case *kind.MaxLength:
		return fmt.Sprintf("must have at most %d characters, not %d", k.Want, k.Got)
	case *kind.MinItems:
		return fmt.Sprintf("must have at least %d elements, not %d", k.Want, k.Got)
	case *kind.MaxItems:
		return fmt.Sprintf("must have at most %d elements, not %d", k.Want, k.Got)
	case *kind.Pattern:
		return "must match " + k.Want + ", not " + strconv.Quote(contracts.Shorten(k.Got, 60))
	case *kind.Format:
		return "must be of the format " + k.Want + ", not " + values(k.Got)
	}
	return k.LocalizedString(message.NewPrinter(language.English))
}

func values(vs ...any) string {
	texts := make([]string, len(vs))
	for i, v := range vs {
		raw, err := json.Marshal(v)
		if err != nil {
			raw = fmt.Append(nil, v)
		}
		texts[i] = contracts.Shorten(string(raw), 60)
	}
	return strings.Join(texts, ", ")
}

func number(r *big.Rat) string {
	f, _ := r.Float64()
	return strconv.FormatFloat(f, 'g', -1, 64)
}
