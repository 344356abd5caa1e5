package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"longhaul/pkg/contracts"
)

const runA, runB = "0198c0de-0000-7000-8000-000000000001", "0198c0de-0000-7000-8000-000000000002"

func mustKeys(t *testing.T, lines ...string) *Keys {
	t.Helper()
	k, err := ParseKeys(strings.Join(lines, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustNew(t *testing.T, id string) string {
	t.Helper()
	line, err := NewKey(id)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func mustSeal(t *testing.T, k *Keys, at Place, plain string) string {
	t.Helper()
	envelope, err := k.Seal(at, []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

func TestOpensInItsPlaceAlone(t *testing.T) {
	k := mustKeys(t, mustNew(t, "k1"))
	at := Place{runA, KindStep, "charge: the card"}
	envelope := mustSeal(t, k, at, "secret")
	if strings.Contains(envelope, "secret") || envelope == mustSeal(t, k, at, "secret") {
		t.Errorf("envelope %s", envelope)
	}
	if plain, err := k.Open(at, envelope); err != nil || string(plain) != "secret" {
		t.Fatalf("%q, %v", plain, err)
	}
	for name, tc := range map[string]struct {
		at       Place
		envelope string
		want     error
	}{
		"another run":      {Place{runB, at.Kind, at.Name}, envelope, ErrForged},
		"another kind":     {Place{at.Run, KindOutput, at.Name}, envelope, ErrForged},
		"another name":     {Place{at.Run, at.Kind, "refund"}, envelope, ErrForged},
		"a header changed": {Place{runB, at.Kind, at.Name}, strings.Replace(envelope, runA, runB, 1), ErrForged},
		"a kind changed":   {Place{at.Run, KindOutput, at.Name}, strings.Replace(envelope, ":step:", ":output:", 1), ErrForged},
		"cut off":          {at, envelope[:len(envelope)-5] + ";", ErrForged},
		"nothing in it":    {at, envelope[:strings.LastIndex(envelope, ":")+1] + ";", ErrForged},
		"in the clear":     {at, "secret", ErrNotSealed},
		"empty":            {at, "", ErrNotSealed},
		"two":              {at, envelope + envelope, ErrNotSealed},
		"another key":      {at, mustSeal(t, mustKeys(t, mustNew(t, "k1")), at, "forged"), ErrForged},
		"a key of nobody":  {at, mustSeal(t, mustKeys(t, mustNew(t, "k2")), at, "forged"), ErrNoKey},
	} {
		if plain, err := k.Open(tc.at, tc.envelope); !errors.Is(err, tc.want) {
			t.Errorf("%s: %q, %v; want %v", name, plain, err, tc.want)
		}
	}
	for i := range envelope { // any byte
		changed := []byte(envelope)
		changed[i] ^= 1
		if plain, err := k.Open(at, string(changed)); err == nil {
			t.Errorf("with byte %d changed it opens as %q", i, plain)
		}
	}
}

// The first key seals, all open; one that is gone leaves its envelopes closed.
func TestRotation(t *testing.T) {
	old, fresh := mustNew(t, "old"), mustNew(t, "fresh")
	at := Place{runA, KindOutput, ""}
	before, both, after := mustKeys(t, old), mustKeys(t, "# the newest first", "", fresh, old), mustKeys(t, fresh)
	sealed := mustSeal(t, before, at, `"x"`)
	if plain, err := both.Open(at, sealed); err != nil || string(plain) != `"x"` {
		t.Errorf("%q, %v", plain, err)
	}
	if envelope := mustSeal(t, both, at, "y"); !strings.Contains(envelope, ":fresh:") {
		t.Errorf("sealed by %s", envelope)
	}
	if _, err := after.Open(at, sealed); !errors.Is(err, ErrNoKey) {
		t.Errorf("without the old key: %v", err)
	}
	raw := json.RawMessage(`{"final_output":"` + sealed + `"}`)
	if shown, err := after.OpenAll(raw, runA, KindOutput); err != nil || !strings.Contains(string(shown), sealed) {
		t.Errorf("without the old key: %s, %v", shown, err)
	}
}

func TestKeyFaults(t *testing.T) {
	good := mustNew(t, "k1")
	for _, text := range []string{"", "# nothing", "k1", "k1 c2VjcmV0", "k:1 " + good[3:], good + "\n" + good, good[3:]} {
		if _, err := ParseKeys(text); err == nil || strings.Contains(err.Error(), good[3:]) || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%.10q: %v", text, err)
		}
	}
	if _, err := NewKey("a b"); err == nil {
		t.Error("a key id with a space")
	}
}

func TestOpenAll(t *testing.T) {
	k := mustKeys(t, mustNew(t, "k1"))
	in, err := k.SealInput(runA, "echo", "c1", contracts.Input{Messages: []contracts.Message{contracts.Text("user", "hi")}, Params: json.RawMessage(`{"n":12345678901234567890}`)})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := contracts.Encode(map[string]any{"submission": map[string]any{"input": in}, "submitted_at": "now"})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("hi")) || bytes.Contains(raw, []byte("1234567890")) {
		t.Errorf("in the clear: %s", raw)
	}
	opened, err := k.OpenAll(raw, runA, KindInput, KindMessage)
	if want := `{"submission":{"input":{"messages":[{"content":"hi","role":"user"}],"params":{"n":12345678901234567890}}},"submitted_at":"now"}`; err != nil || string(opened) != want {
		t.Errorf("%s, %v; want %s", opened, err, want)
	}
	if _, err := k.OpenAll(raw, runB, KindInput, KindMessage); !errors.Is(err, ErrForged) {
		t.Errorf("in another run: %v", err)
	}
	if _, err := k.OpenAll(raw, runA, KindMessage); !errors.Is(err, ErrForged) {
		t.Errorf("where no input belongs: %v", err)
	}
	pieces := mustSeal(t, k, Place{runA, KindDelta, ""}, "a \"b\" ") + mustSeal(t, k, Place{runA, KindDelta, ""}, "c")
	opened, err = k.OpenAll(json.RawMessage(`{"text":"`+pieces+`"}`), runA, KindDelta)
	if err != nil || string(opened) != `{"text":"a \"b\" c"}` {
		t.Errorf("pieces: %s, %v", opened, err)
	}
	said, err := k.OpenText("panic: "+mustSeal(t, k, Place{runA, KindError, ""}, "boom"), runA, KindError)
	if err != nil || said != "panic: boom" {
		t.Errorf("an error: %q, %v", said, err)
	}
	for _, plain := range []string{`{"a":[1,"x",null]}`, `"sealed:1:"`, `{"sealed":"sealed:1:no"}`} {
		if same, err := k.OpenAll(json.RawMessage(plain), runA); err != nil || string(same) != plain {
			t.Errorf("%s became %s, %v", plain, same, err)
		}
	}
}

func FuzzOpenAll(f *testing.F) {
	line, err := NewKey("k1")
	if err != nil {
		f.Fatal(err)
	}
	k, err := ParseKeys(line)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"sealed":"sealed:1:k1:output:` + runA + `::AAAA;"}`))
	f.Add([]byte(`["sealed:1:k1:delta:x:;"]`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = k.OpenAll(data, runA, KindOutput, KindDelta) // no panic, no matter what
		_, _ = k.OpenText(string(data), runA, KindError)
	})
}
