package jsutil

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Claim stores value on a subject of a stream if nothing stands there, and
// returns what stands there then, by the leader: value, or what was first.
func Claim(ctx context.Context, js jetstream.JetStream, stream, subject, value string) (holder string, err error) {
	_, err = js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: []byte(value)}, jetstream.WithExpectLastSequencePerSubject(0))
	if err = Translate(err); errors.Is(err, ErrConflict) {
		var there Stored
		there, err = GetFromLeader(ctx, js.Conn(), stream, GetRequest{LastFor: subject})
		value = string(there.Data)
	}
	if err != nil {
		return "", fmt.Errorf("claim %s: %w", subject, err)
	}
	return value, nil
}
