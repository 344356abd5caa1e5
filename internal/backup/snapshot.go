package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/jsutil"
)

const (
	// chunkSize is that of the pieces that a stream goes over the wire in.
	chunkSize = 128 << 10
	// silence is how long the broker may say nothing in the middle of a
	// stream; a slow disk says something every second.
	silence = 30 * time.Second
	// leaderless is how long a stream is tried whose leader, or that of one of its
	// consumers, is being chosen: such a choice takes seconds. One that breaks off
	// after longer than that is tried leastTries times.
	leaderless = 30 * time.Second
	leastTries = 3
	// leaderPause is between two tries.
	leaderPause = 500 * time.Millisecond
)

// errGaveUp says that the broker ended a snapshot in its midst.
var errGaveUp = errors.New("the broker gave up")

// meta is what the broker says of a stream beside its data, as it says it: it
// is to have it back unchanged.
type meta struct {
	Config json.RawMessage `json:"config"`
	State  json.RawMessage `json:"state"`
}

// apiError is the broker's refusal in an answer of its API.
type apiError struct {
	Error *jetstream.APIError `json:"error"`
}

// call asks the JetStream API, and decodes the answer.
func call(ctx context.Context, nc *nats.Conn, subject string, req, resp any) error {
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	m, err := nc.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+subject, body)
	if err != nil {
		return jsutil.Translate(err)
	}
	return answer(m.Data, resp)
}

func answer(data []byte, resp any) error {
	var refused apiError
	if err := json.Unmarshal(data, &refused); err != nil {
		return fmt.Errorf("decode the broker's answer: %w", err)
	}
	if refused.Error != nil {
		return jsutil.Translate(refused.Error)
	}
	return json.Unmarshal(data, resp)
}

// patiently saves one stream, anew if it is, or one of its consumers, without a
// leader for a while, as behind the restart of one of three brokers.
func patiently(ctx context.Context, nc *nats.Conn, name, dir string) (Saved, error) {
	begun := time.Now()
	for tries := 1; ; tries++ {
		s, err := snapshot(ctx, nc, name, dir)
		passing := errors.Is(err, errGaveUp) || errors.Is(err, jsutil.ErrUnavailable)
		if !passing || tries >= leastTries && time.Since(begun) > leaderless {
			return s, err
		}
		if err := os.RemoveAll(dir); err != nil {
			return s, err
		}
		select {
		case <-ctx.Done():
			return s, context.Cause(ctx)
		case <-time.After(leaderPause):
		}
	}
}

// snapshot saves one stream with its consumers (NATS ADR-61: chunks come to a
// subject of ours, each acknowledged; an empty one is the end).
func snapshot(ctx context.Context, nc *nats.Conn, name, dir string) (s Saved, err error) {
	s.Name = name
	if err := os.Mkdir(dir, 0o700); err != nil {
		return s, err
	}
	f, err := os.OpenFile(filepath.Join(dir, dataFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sub, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		return s, err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	// The broker sends no more than its window ahead of our acknowledgements.
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return s, err
	}
	var m meta
	if err := call(ctx, nc, "STREAM.SNAPSHOT."+name, map[string]any{"deliver_subject": sub.Subject, "chunk_size": chunkSize, "jsck": true}, &m); err != nil {
		return s, err
	}
	for {
		msg, err := next(ctx, sub)
		if err != nil {
			return s, err
		}
		if len(msg.Data) == 0 {
			if status := msg.Header.Get("Status"); status != "" && !strings.HasPrefix(status, "204") {
				return s, fmt.Errorf("%w: %s %s", errGaveUp, status, msg.Header.Get("Description"))
			}
			break
		}
		if msg.Reply != "" { // before it is written: the broker waits two seconds for it
			if err := msg.Respond(nil); err != nil {
				return s, err
			}
		}
		n, err := f.Write(msg.Data)
		if s.Bytes += int64(n); err != nil {
			return s, err
		}
	}
	var state struct {
		Messages uint64 `json:"messages"`
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = json.Unmarshal(m.State, &state)
	}
	s.Messages = state.Messages
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = writeFile(filepath.Join(dir, metaFile), data)
	}
	return s, err
}

func next(ctx context.Context, sub *nats.Subscription) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, silence)
	defer cancel()
	m, err := sub.NextMsgWithContext(ctx)
	if err != nil {
		return nil, fmt.Errorf("wait for the next part: %w", err)
	}
	return m, nil
}
