package statekeeper

import (
	"encoding/base64"
	"encoding/binary"
	"errors"

	"github.com/google/uuid"
)

// A cursor is the position of the last run that a page looked at, so that runs
// which come or go meanwhile shift nothing. To callers it is opaque.
//
// Form: base64url of version 1, creation time (8 bytes, big endian, UnixNano), run id (16).
const (
	cursorVersion = 1
	cursorLength  = 1 + 8 + 16
)

func (p position) cursor() string {
	b := make([]byte, 0, cursorLength)
	b = append(b, cursorVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(p.created))
	b = append(b, p.id[:]...)
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseCursor is the inverse of cursor.
func parseCursor(s string) (position, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != cursorLength || b[0] != cursorVersion {
		return position{}, errors.New("must be the cursor of the page before, unchanged, or be left out for the first page")
	}
	return position{int64(binary.BigEndian.Uint64(b[1:9])), uuid.UUID(b[9:])}, nil
}
