package dispatcher

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/jsutil"
)

// broker is the connection, and the few requests about a single message that
// must be answered by a stream's leader. The client library's own look-ups are
// answered by any replica, which may be behind; nothing is refused, and no
// work removed, on the word of one of those.
type broker struct {
	nc *nats.Conn
	js jetstream.JetStream
}

// stored is one message as a stream holds it.
type stored struct {
	Sequence uint64
	Time     time.Time // by the broker's clock
	Header   nats.Header
	Data     []byte
}

// last returns the last message on subject; jsutil.ErrNotFound if there is none.
func (b *broker) last(ctx context.Context, stream, subject string) (stored, error) {
	return b.get(ctx, stream, map[string]any{"last_by_subj": subject})
}

// first returns the oldest message on subject; jsutil.ErrNotFound if there is none.
func (b *broker) first(ctx context.Context, stream, subject string) (stored, error) {
	return b.get(ctx, stream, map[string]any{"seq": 1, "next_by_subj": subject})
}

// at returns the message at a sequence; jsutil.ErrNotFound if there is none.
func (b *broker) at(ctx context.Context, stream string, sequence uint64) (stored, error) {
	return b.get(ctx, stream, map[string]any{"seq": sequence})
}

func (b *broker) get(ctx context.Context, stream string, question map[string]any) (stored, error) {
	var answer struct {
		Message struct {
			Sequence uint64    `json:"seq"`
			Header   []byte    `json:"hdrs"`
			Data     []byte    `json:"data"`
			Time     time.Time `json:"time"`
		} `json:"message"`
	}
	if err := b.ask(ctx, "STREAM.MSG.GET."+stream, question, &answer); err != nil {
		return stored{}, err
	}
	m := stored{Sequence: answer.Message.Sequence, Time: answer.Message.Time, Data: answer.Message.Data}
	if len(answer.Message.Header) > 0 {
		h, err := nats.DecodeHeadersMsg(answer.Message.Header)
		if err != nil {
			return stored{}, fmt.Errorf("read the header of message %d of %s: %w", m.Sequence, stream, err)
		}
		m.Header = h
	}
	return m, nil
}

// remove deletes one message; one that is gone already is no error.
func (b *broker) remove(ctx context.Context, stream string, sequence uint64) error {
	err := b.ask(ctx, "STREAM.MSG.DELETE."+stream, map[string]any{"seq": sequence, "no_erase": true}, nil)
	if err == nil {
		return nil
	}
	if _, look := b.at(ctx, stream, sequence); errors.Is(look, jsutil.ErrNotFound) {
		return nil
	}
	return err
}

// purge removes every message on subject.
func (b *broker) purge(ctx context.Context, stream, subject string) error {
	return b.ask(ctx, "STREAM.PURGE."+stream, map[string]any{"filter": subject}, nil)
}

// ask makes one request of the JetStream API. Its errors are jsutil's.
func (b *broker) ask(ctx context.Context, what string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return fmt.Errorf("encode %s: %w", what, err)
	}
	reply, err := b.nc.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+what, body)
	if err != nil {
		return translate(what, err)
	}
	var refused struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(reply.Data, &refused); err != nil {
		return fmt.Errorf("%s: decode the answer: %w", what, err)
	}
	if refused.Error != nil {
		return translate(what, refused.Error)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(reply.Data, answer); err != nil {
		return fmt.Errorf("%s: decode the answer: %w", what, err)
	}
	return nil
}

// publish stores m and waits until it is stored.
func (b *broker) publish(ctx context.Context, m *nats.Msg, opts ...jetstream.PublishOpt) error {
	_, err := b.js.PublishMsg(ctx, m, opts...)
	return translate("publish on "+m.Subject, err)
}
