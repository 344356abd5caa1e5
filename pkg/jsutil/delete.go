package jsutil

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Delete removes one message from a stream. That it has gone already, by its
// receiver's ack for one, is no error. (The client library's DeleteMsg cannot
// tell that case from others.)
func Delete(ctx context.Context, nc *nats.Conn, stream string, sequence uint64) error {
	err := command(ctx, nc, "STREAM.MSG.DELETE."+stream, struct {
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
	err := command(ctx, nc, "STREAM.PURGE."+stream, struct {
		Filter string `json:"filter"`
		Seq    uint64 `json:"seq,omitempty"`
	}{subject, before})
	if err != nil {
		return fmt.Errorf("purge %s of stream %s: %w", subject, stream, err)
	}
	return nil
}

// command sends a request whose answer says only whether it was carried out.
func command(ctx context.Context, nc *nats.Conn, what string, r any) error {
	m, err := ask(ctx, nc, what, r)
	if err != nil {
		return err
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return fmt.Errorf("decode the broker's answer: %w", err)
	}
	if answer.Error != nil {
		return Translate(answer.Error)
	}
	return nil
}
