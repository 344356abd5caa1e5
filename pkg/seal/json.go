package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"longhaul/pkg/contracts"
)

// Object is an envelope where JSON must be an object.
type Object struct {
	Sealed string `json:"sealed"`
}

// State is a checkpoint's state in its envelope.
type State struct {
	Binary bool   `json:"binary,omitempty"` // Data means something to the agent alone
	Data   []byte `json:"data"`
}

// Input is what is in the envelope of a run's params: the params, and the digest
// of the envelopes of its messages, so that none can be left out.
type Input struct {
	Params   json.RawMessage `json:"params,omitempty"`
	Messages []byte          `json:"messages"`
}

// SealMessages seals messages of a run, each in the content of one that shows
// its role alone.
func (k *Keys) SealMessages(run, conversation string, messages []contracts.Message) ([]contracts.Message, error) {
	var sealed []contracts.Message
	for i, m := range messages {
		raw, err := contracts.Encode(m)
		var envelope string
		if err == nil {
			envelope, err = k.Seal(Place{Run: run, Kind: KindMessage, Name: conversation}, raw)
		}
		if err != nil {
			return nil, fmt.Errorf("seal message %d: %w", i, err)
		}
		sealed = append(sealed, contracts.Text(m.Role, envelope))
	}
	return sealed, nil
}

// SealInput seals the input of a run that an agent is to execute.
func (k *Keys) SealInput(run, agentKey, conversation string, in contracts.Input) (contracts.Input, error) {
	messages, err := k.SealMessages(run, conversation, in.Messages)
	if err != nil {
		return contracts.Input{}, err
	}
	own := sha256.New()
	for _, m := range messages {
		own.Write([]byte(m.Text()))
	}
	raw, err := contracts.Encode(Input{Params: in.Params, Messages: own.Sum(nil)})
	if err != nil {
		return contracts.Input{}, fmt.Errorf("seal the params: %w", err)
	}
	envelope, err := k.Seal(Place{Run: run, Kind: KindInput, Name: agentKey}, raw)
	if err != nil {
		return contracts.Input{}, err
	}
	params, err := contracts.Encode(Object{envelope})
	return contracts.Input{Messages: messages, Params: params}, err
}

// OpenAll opens every envelope in a piece of JSON that were made for a run and
// for one of the kinds. A message's may be another run's: of the same
// conversation. One whose key we do not have is left as it is; one that is
// forged is an error. JSON without envelopes is returned as it is.
func (k *Keys) OpenAll(raw json.RawMessage, run string, kinds ...string) (json.RawMessage, error) {
	if k == nil || !bytes.Contains(raw, []byte(prefix)) {
		return raw, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("open what is sealed: %w", err)
	}
	o := opener{k, run, kinds}
	v, err := o.walk(v)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode what was sealed: %w", err)
	}
	return bytes.TrimSpace(out.Bytes()), nil
}

// OpenText opens the envelopes in a text, such as an error's message.
func (k *Keys) OpenText(text, run string, kinds ...string) (_ string, err error) {
	if k == nil {
		return text, nil
	}
	return envelopes.ReplaceAllStringFunc(text, func(envelope string) string {
		at, _ := PlaceOf(envelope)
		if !slices.Contains(kinds, at.Kind) || at.Run != run {
			err = fmt.Errorf("%w: it was made for %s of run %s", ErrForged, at.Kind, at.Run)
			return envelope
		}
		plain, openErr := k.Open(at, envelope)
		if openErr != nil {
			if !errors.Is(openErr, ErrNoKey) {
				err = openErr
			}
			return envelope
		}
		return string(plain)
	}), err
}

// envelopes finds them in a text.
var envelopes = regexp.MustCompile(`sealed:1:[A-Za-z0-9_-]{1,32}:[a-z]+:[0-9a-f-]+:[A-Za-z0-9_-]*:[A-Za-z0-9_-]+;`)

type opener struct {
	keys  *Keys
	run   string
	kinds []string
}

func (o opener) walk(v any) (any, error) {
	switch v := v.(type) {
	case string:
		return o.text(v)
	case []any:
		for i := range v {
			var err error
			if v[i], err = o.walk(v[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		// Of a message the whole is in its content.
		for _, whole := range []string{"sealed", "content"} {
			if s, ok := v[whole].(string); ok && strings.HasPrefix(s, prefix) && (whole == "sealed" || v["role"] != nil) {
				opened, err := o.text(s)
				if opened == any(s) { // its key is not ours
					return v, err
				}
				return opened, err
			}
		}
		for name := range v {
			var err error
			if v[name], err = o.walk(v[name]); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// text opens a text: an envelope by itself becomes what is in it, and one among
// other words, or several of pieces of text, their words.
func (o opener) text(s string) (any, error) {
	at, whole := PlaceOf(s)
	if !whole || at.Kind == KindDelta || at.Kind == KindError {
		return o.keys.OpenText(s, o.run, o.kinds...)
	}
	if !slices.Contains(o.kinds, at.Kind) || at.Run != o.run && at.Kind != KindMessage {
		return nil, fmt.Errorf("%w: it was made for %s of run %s", ErrForged, at.Kind, at.Run)
	}
	plain, err := o.keys.Open(at, s)
	if errors.Is(err, ErrNoKey) {
		return s, nil
	}
	if err != nil {
		return nil, err
	}
	return value(at.Kind, plain)
}

// value is what was sealed as JSON, as people are to see it.
func value(kind string, plain []byte) (v any, err error) {
	switch kind {
	case KindInput:
		var in Input
		if err = json.Unmarshal(plain, &in); err == nil {
			plain = in.Params
		}
		if len(in.Params) == 0 {
			return map[string]any{}, err
		}
	case KindState:
		var s State
		if err = json.Unmarshal(plain, &s); err == nil && s.Binary {
			return s.Data, nil
		}
		plain = s.Data
	}
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(plain))
		d.UseNumber()
		err = d.Decode(&v)
	}
	if err != nil {
		return nil, fmt.Errorf("read the %s that was sealed: %w", kind, err)
	}
	return v, nil
}
