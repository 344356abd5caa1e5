package jsutil

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Claim stores value on a subject of a stream where nothing stands yet. It
// returns what stands there else, from the leader; of whom claims and is first
// the result is the zero Stored.
func Claim(ctx context.Context, js jetstream.JetStream, stream, subject, value string) (Stored, error) {
	err := Put(ctx, js, subject, value, 0)
	if !errors.Is(err, ErrConflict) {
		return Stored{}, err
	}
	there, err := GetFromLeader(ctx, js.Conn(), stream, GetRequest{LastFor: subject})
	if err != nil {
		return Stored{}, fmt.Errorf("see who has claimed %s: %w", subject, err)
	}
	return there, nil
}

// Put stores value on a subject whose last message has the sequence over, 0 if
// there is none; ErrConflict if it has not.
func Put(ctx context.Context, js jetstream.JetStream, subject, value string, over uint64) error {
	_, err := js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: []byte(value)}, jetstream.WithExpectLastSequencePerSubject(over))
	if err != nil {
		return fmt.Errorf("publish on %s: %w", subject, Translate(err))
	}
	return nil
}
