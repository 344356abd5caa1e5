package contracts

import (
	"encoding/json"
	"math"
	"reflect"
	"strconv"
	"testing"
	"time"
)

// What writes itself is what encoding/json makes of the tags, with every field
// given, with none, and with each of them alone.
func TestAppended(t *testing.T) {
	for _, zero := range []any{Event{}, StatusRecord{}, Submission{}, Queued{}, Started{}} {
		typ := reflect.TypeOf(zero)
		values := []any{zero}
		for _, odd := range []string{"plain", "\"quoted\\\" <&> \u2028 é \x00\x1f\x7f", "not \xff UTF-8"} {
			full := reflect.New(typ).Elem()
			fill(full, odd)
			values = append(values, full.Interface())
			for i := range typ.NumField() {
				alone := reflect.New(typ).Elem()
				alone.Field(i).Set(full.Field(i))
				values = append(values, alone.Interface())
				if inner := full.Field(i); inner.Kind() == reflect.Struct && inner.Type() != reflect.TypeFor[time.Time]() {
					for j := range inner.NumField() {
						alone := reflect.New(typ).Elem()
						alone.Field(i).Field(j).Set(inner.Field(j))
						values = append(values, alone.Interface())
					}
				}
			}
		}
		for _, v := range values {
			got, ok, err := appended(v)
			if !ok || err != nil {
				t.Fatalf("%T does not write itself: %v", v, err)
			}
			want, err := encode(v)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("%T\nwrites %s\nwant   %s", v, got, want)
			}
		}
	}
}

// fill gives every field of v a value that is not zero, texts that of text.
func fill(v reflect.Value, text string) {
	if _, ok := v.Interface().(time.Time); ok {
		v.Set(reflect.ValueOf(time.Date(2026, 11, 22, 10, 0, 0, 123_456_000, time.UTC)))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Uint64:
		v.SetUint(math.MaxUint64)
	case reflect.Int:
		v.SetInt(-3)
	case reflect.Float64:
		v.SetFloat(0.125)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), text)
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{text: "b", "a": text}))
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte(`{"raw":[1,` + strconv.Quote("x") + `]}`))
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), text)
		fill(v.Index(1), text)
	default:
		panic("fill: " + v.Type().String())
	}
}

// An event whose payload is no JSON cannot be encoded.
func TestEncodeRefusesWhatIsNoJSON(t *testing.T) {
	for _, raw := range []string{"{", "nul", `{"a":1}x`, ""} {
		if data, err := Encode(Event{Type: "own.type", Payload: json.RawMessage(raw)}); err == nil {
			t.Errorf("%q became %s", raw, data)
		}
	}
}
