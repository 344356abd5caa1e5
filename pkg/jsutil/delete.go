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
	m, err := ask(ctx, nc, "STREAM.MSG.DELETE."+stream, struct {
		Seq     uint64 `json:"seq"`
		NoErase bool   `json:"no_erase"` // nothing secret: the place need not be written over
	}{sequence, true})
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err == nil {
		err = json.Unmarshal(m.Data, &answer)
	}
	if err == nil && answer.Error != nil {
		err = Translate(answer.Error)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("delete message %d of stream %s: %w", sequence, stream, err)
	}
	return nil
}
