// Package seal hides what runs are about from the broker and from those who
// operate it: client and worker hold a key, and all between them see envelopes.
//
// An envelope is text: a header in the clear, which says what was sealed for
// which run and by which key, and what was sealed, by AES-256-GCM with a random
// nonce and a key of the run's own, derived from the named one. The header is
// authenticated. So an envelope opens in its own run and place alone: whoever
// swaps two, or makes one without the key, is found out. What is not found out
// is that something is missing, is old, or has changed its order within a run.
//
// What is sealed where is docs/security.md's to say. This package knows nothing
// of the broker: Keys seal and open, and OpenAll opens whatever stands in JSON.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// The errors of Open.
var (
	// ErrForged: the envelope is not what somebody with the key has made for
	// this place.
	ErrForged = errors.New("forged envelope")
	// ErrNoKey: the envelope names a key that is not among ours.
	ErrNoKey = errors.New("no such key")
	// ErrNotSealed: something stands in the clear that must not.
	ErrNotSealed = errors.New("not sealed")
)

// Place is what an envelope is made for.
type Place struct {
	Run  string // run id
	Kind string // what it is: one of the Kind constants
	Name string // which of them: a step's name, an event's type
}

// The kinds of what is sealed, and the name that goes with each.
const (
	KindInput    = "input"    // params, and what vouches for the messages; the agent's key
	KindMessage  = "message"  // of input, history or result; the conversation's id
	KindEvent    = "event"    // the payload of an agent's own event; its type
	KindDelta    = "delta"    // a piece of text
	KindState    = "state"    // a checkpoint
	KindStep     = "step"     // a step's result; its name
	KindSignal   = "signal"   // a signal's payload; its name
	KindOutput   = "output"   // the final output
	KindArtifact = "artifact" // of the result
	KindError    = "error"    // an error's message and details
)

const (
	prefix   = "sealed:1:"
	keyBytes = 32
)

var keyID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// Keys are keys by their ids. The first of them seals; all of them open. They
// may be used by several goroutines.
type Keys struct {
	first string
	byID  map[string][]byte
}

// NewKey returns the line of a key file with a fresh key.
func NewKey(id string) (string, error) {
	if !keyID.MatchString(id) {
		return "", fmt.Errorf("key id %q: must be 1 to 32 of A-Z, a-z, 0-9, _ and -", id)
	}
	key := make([]byte, keyBytes)
	if _, err := rand.Read(key); err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	return id + " " + base64.StdEncoding.EncodeToString(key), nil
}

// LoadKeys reads a key file: a line for each key, its id, a space, and 32 bytes
// in base64. Empty lines and those that begin with # are passed over. An error
// does not show what the file holds.
func LoadKeys(path string) (*Keys, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the keys: %w", err)
	}
	keys, err := ParseKeys(string(data))
	if err != nil {
		return nil, fmt.Errorf("read the keys in %s: %w", path, err)
	}
	return keys, nil
}

// ParseKeys reads what a key file holds.
func ParseKeys(text string) (*Keys, error) {
	k := &Keys{byID: make(map[string][]byte)}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		id, encoded, _ := strings.Cut(line, " ")
		key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
		switch {
		case !keyID.MatchString(id) || err != nil || len(key) != keyBytes:
			return nil, fmt.Errorf("line %d: must be a key's id, a space, and %d bytes in base64", n, keyBytes)
		case k.byID[id] != nil:
			return nil, fmt.Errorf("line %d: there is a key %s already", n, id)
		case k.first == "":
			k.first = id
		}
		k.byID[id] = key
	}
	if k.first == "" {
		return nil, errors.New("there is no key in it")
	}
	return k, nil
}

// aead is what seals for a run under a key. Each run has a key of its own, so
// that random nonces never come close to their bound.
func (k *Keys) aead(id, run string) (cipher.AEAD, error) {
	master, ok := k.byID[id]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNoKey, id)
	}
	key, err := hkdf.Key(sha256.New, master, nil, "longhaul sealed run "+run, keyBytes)
	if err != nil {
		return nil, fmt.Errorf("derive the key of a run: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("derive the key of a run: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Seal returns plain in an envelope that opens at a place alone.
func (k *Keys) Seal(at Place, plain []byte) (string, error) {
	aead, err := k.aead(k.first, at.Run)
	if err != nil {
		return "", fmt.Errorf("seal: %w", err)
	}
	header := prefix + k.first + ":" + at.Kind + ":" + at.Run + ":" + base64.RawURLEncoding.EncodeToString([]byte(at.Name)) + ":"
	return header + base64.RawURLEncoding.EncodeToString(aead.Seal(nil, nil, plain, []byte(header))) + ";", nil
}

// PlaceOf returns what an envelope says that it is made for; false if it is none.
func PlaceOf(envelope string) (Place, bool) {
	at, _, _, ok := split(envelope)
	return at, ok
}

// split reads one whole envelope.
func split(envelope string) (at Place, key, header string, ok bool) {
	rest, ok := strings.CutPrefix(envelope, prefix)
	part := strings.Split(rest, ":")
	if !ok || len(part) != 5 || !strings.HasSuffix(envelope, ";") || strings.Count(envelope, ";") != 1 {
		return Place{}, "", "", false
	}
	name, err := base64.RawURLEncoding.DecodeString(part[3])
	return Place{Run: part[2], Kind: part[1], Name: string(name)}, part[0], envelope[:strings.LastIndexByte(envelope, ':')+1], err == nil
}

// Open returns what is in an envelope that was made for a place.
func (k *Keys) Open(at Place, envelope string) ([]byte, error) {
	made, key, header, ok := split(envelope)
	if !ok {
		return nil, fmt.Errorf("open %s: %w", at.Kind, ErrNotSealed)
	}
	if made != at {
		return nil, fmt.Errorf("open %s: %w: it was made for %s of run %s", at.Kind, ErrForged, made.Kind, made.Run)
	}
	aead, err := k.aead(key, at.Run)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", at.Kind, err)
	}
	sealed, err := base64.RawURLEncoding.DecodeString(strings.TrimSuffix(envelope[len(header):], ";"))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", at.Kind, ErrForged)
	}
	plain, err := aead.Open(nil, nil, sealed, []byte(header))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", at.Kind, ErrForged)
	}
	return plain, nil
}
