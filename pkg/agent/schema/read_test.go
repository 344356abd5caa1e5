package schema

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// FuzzDecode: what decode reads is what the library reads, and what it refuses
// is refused there.
func FuzzDecode(f *testing.F) {
	for _, doc := range []string{
		`{}`, `[]`, ` {"a" : [1, -2.5e+7, 0, true,false,null, "x\"\\\n\u00e9", "é", ""] , "a":{"b":[[]]}} `, `"\ud83d\ude00"`,
		``, ` `, `{`, `[`, `"`, `{"a"}`, `{"a":}`, `{"a":1,}`, `[1,]`, `[1 2]`, `{"a":1 "b":2}`, `01`, `1.`, `-`, `+1`, `1e`, `tru`, `nul`, `"\x"`, `"\`,
		"\"\x01\"", "\"\xff\"", "\"a\\\"", `{"a":1}x`, `[1] 2`, `{1:2}`, strings.Repeat("[", 200) + strings.Repeat("]", 200), "\ufeff{}",
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		want, wrong := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
		got, err := decode(doc)
		if (err == nil) != (wrong == nil) || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q is %#v, %v\nwant %#v, %v", doc, got, err, want, wrong)
		}
		// It gives up on nothing that is usual.
		r := reader{doc: doc}
		if _, ok := r.value(0); ok && wrong != nil && r.next() == 0 && r.at == len(doc) {
			t.Fatalf("%q is read, and is wrong: %v", doc, wrong)
		}
	})
}

// A large document is read in its own memory.
func TestDecodeCopiesNothing(t *testing.T) {
	doc := []byte(`{"text":"` + strings.Repeat("x", 1<<20) + `","n":1}`)
	allocated := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decode(doc); err != nil {
				b.Fatal(err)
			}
		}
	}).AllocedBytesPerOp()
	if allocated > 4096 {
		t.Errorf("reading %d bytes allocates %d", len(doc), allocated)
	}
}
