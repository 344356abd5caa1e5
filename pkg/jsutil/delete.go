package jsutil

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
)

// Delete removes one message from a stream. That it has gone already, by its
// receiver's ack for one, is no error. (The client library's DeleteMsg cannot
// tell that case from others.)
func Delete(ctx context.Context, nc *nats.Conn, stream string, sequence uint64) error {
	_, err := askLeader(ctx, nc, "STREAM.MSG.DELETE."+stream, struct {
		Seq     uint64 `json:"seq"`
		NoErase bool   `json:"no_erase"` // nothing secret: the place need not be written over
	}{sequence, true})
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("delete message %d of stream %s: %w", sequence, stream, err)
	}
	return nil
}

// Purge removes the messages on subject, which may have wildcards, from a
// stream: those before the sequence, or all if that is 0.
func Purge(ctx context.Context, nc *nats.Conn, stream, subject string, before uint64) error {
	_, err := askLeader(ctx, nc, "STREAM.PURGE."+stream, struct {
		Filter string `json:"filter"`
		Seq    uint64 `json:"seq,omitempty"`
	}{subject, before})
	if err != nil {
		return fmt.Errorf("purge %s of stream %s: %w", subject, stream, err)
	}
	return nil
}
