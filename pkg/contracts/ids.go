package contracts

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// keyNamespace is the UUID namespace of run ids that are derived from an
// idempotency key. It is part of the wire contract: clients derive the same id.
var keyNamespace = uuid.MustParse("6c6f6e67-6861-756c-8000-72756e6b6579")

// maxName bounds agent keys and worker ids, in bytes.
const maxName = 63

// CheckRunID reports whether id can name a run: a UUID in its canonical form,
// 36 characters in lower case. Other spellings of a UUID are refused, for the
// id is a subject token and two spellings would be two logs.
func CheckRunID(id string) error {
	return mustBe(isCanonicalUUID(id), "a UUID in lower case, such as 0198c0de-7a11-7abc-8def-0123456789ab", id)
}

// isCanonicalUUID is uuid.Parse and a comparison with its String, without their cost.
func isCanonicalUUID(id string) bool {
	for i := range len(id) {
		c := id[i]
		dash := i == 8 || i == 13 || i == 18 || i == 23
		hex := c >= '0' && c <= '9' || c >= 'a' && c <= 'f'
		if dash && c != '-' || !dash && !hex {
			return false
		}
	}
	return len(id) == 36
}

// CheckAgentKey reports whether key can name an agent.
func CheckAgentKey(key string) error {
	return mustBe(isWord(key, maxName, "_-") && key == strings.ToLower(key),
		"1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit", key)
}

// CheckWorkerID reports whether id can name a worker. The last tokens of a
// run's own subjects are refused, so that runs.worker.<id> never looks like one.
func CheckWorkerID(id string) error {
	switch id {
	case "events", "log", "cancel", "redrive", "signal":
		return fmt.Errorf("%q is reserved", id)
	}
	return mustBe(isWord(id, maxName, "_-"), "1 to 63 of A-Z, a-z, 0-9, _ and -, beginning with a letter or digit", id)
}

// isWord reports whether s is 1 to highest letters, digits and others,
// beginning with a letter or digit. A loop, because a regular expression is
// felt where every event is decoded.
func isWord(s string, highest int, others string) bool {
	for i := range len(s) {
		c := s[i]
		alphanumeric := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alphanumeric && (i == 0 || strings.IndexByte(others, c) < 0) {
			return false
		}
	}
	return s != "" && len(s) <= highest
}

// mustBe says what is wrong with a value unless it is ok.
func mustBe(ok bool, what, value string) error {
	if ok {
		return nil
	}
	return fmt.Errorf("must be %s, not %s", what, quote(value))
}

// NewRunID returns a fresh run id, a UUIDv7: ids sort by the time of their making.
func NewRunID() string { return uuid.Must(uuid.NewV7()).String() }

// NewWorkerID returns a fresh worker id.
func NewWorkerID() string { return "w-" + uuid.NewString()[:18] }

// RunIDFromKey returns the run id that an idempotency key stands for when the
// submission names none: UUIDv5 of the key. The same key is the same run.
func RunIDFromKey(key string) string { return uuid.NewSHA1(keyNamespace, []byte(key)).String() }

// RunIDAfter returns the run id that an idempotency key stands for once the
// run that it stood for was rejected: UUIDv5 of the key in the namespace of that
// run's id. Who corrects a submission need not think of another key.
func RunIDAfter(rejected, key string) string {
	return uuid.NewSHA1(uuid.MustParse(rejected), []byte(key)).String()
}

// RunIDFromInbox returns the run id of a submission with neither run_id nor
// idempotency key, from the place it was stored at, so that a redelivered
// submission makes the same run. The time is hashed in beside the sequence
// because a stream that is made anew counts from 1 again.
func RunIDFromInbox(sequence uint64, stored time.Time) string {
	var in [16]byte
	binary.BigEndian.PutUint64(in[:8], sequence)
	binary.BigEndian.PutUint64(in[8:], uint64(stored.UnixNano()))
	sum := sha256.Sum256(in[:])
	id := uuid.UUID(sum[:16])
	ms := uint64(stored.UnixMilli())
	for i := range 6 { // the time part of a UUIDv7 (RFC 9562, 5.7)
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// quote shows a value in a message to a person without letting it fill the screen.
func quote(s string) string {
	if len(s) > 60 {
		return fmt.Sprintf("%q… (%d bytes)", s[:57], len(s))
	}
	return fmt.Sprintf("%q", s)
}
