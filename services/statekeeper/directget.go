package statekeeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/jsutil"
)

// answerWait is how long one answer of the broker is waited for.
const answerWait = 5 * time.Second

// getRequest is the body of a batched direct get (nats-server, JSApiMsgGetRequest).
type getRequest struct {
	Seq       uint64   `json:"seq,omitempty"`
	NextFor   string   `json:"next_by_subj,omitempty"`
	Batch     int      `json:"batch,omitempty"`
	MaxBytes  int      `json:"max_bytes,omitempty"`
	MultiLast []string `json:"multi_last,omitempty"`
}

// rawMsg is one stored message.
type rawMsg struct {
	subject  string
	sequence uint64
	header   nats.Header
	data     []byte
}

// getLast gets the last message on a subject from any replica.
// jsutil.ErrNotFound: there is none.
func getLast(ctx context.Context, nc *nats.Conn, stream, subject string) (rawMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	m, err := nc.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+"DIRECT.GET."+stream+"."+subject, nil)
	if err != nil {
		return rawMsg{}, jsutil.Translate(err)
	}
	return fromDirect(m)
}

// getBatch gets many messages in one request, from any replica. more says that
// the broker stopped at a bound and holds others. No message at all is no error.
//
// It stands in for jetstreamext's functions, which end in the same way whether
// the answer was whole or broke off: here an answer that breaks off is
// jsutil.ErrUnavailable.
func getBatch(ctx context.Context, nc *nats.Conn, stream string, r getRequest) (got []rawMsg, more bool, err error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, false, fmt.Errorf("encode a batched get: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	inbox := nc.NewRespInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, false, jsutil.Translate(err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	if err := nc.PublishRequest(jetstream.DefaultAPIPrefix+"DIRECT.GET."+stream, inbox, body); err != nil {
		return nil, false, jsutil.Translate(err)
	}
	for last := ""; ; {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, false, jsutil.Translate(err)
		}
		if m.Header.Get("Status") == "204" && len(m.Data) == 0 { // end of batch
			if last != "" && m.Header.Get("Nats-Last-Sequence") != last {
				return nil, false, errLost
			}
			pending := m.Header.Get("Nats-Num-Pending")
			return got, pending != "" && pending != "0", nil
		}
		raw, err := fromDirect(m)
		if len(got) == 0 && errors.Is(err, jsutil.ErrNotFound) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		if last != "" && m.Header.Get("Nats-Last-Sequence") != last {
			return nil, false, errLost
		}
		got, last = append(got, raw), m.Header.Get(jetstream.SequenceHeader)
	}
}

var errLost = fmt.Errorf("%w: a message of a batch was lost", jsutil.ErrUnavailable)

// fromDirect reads one answer to a direct get.
func fromDirect(m *nats.Msg) (rawMsg, error) {
	if status := m.Header.Get("Status"); status != "" && len(m.Data) == 0 {
		switch status {
		case "404":
			return rawMsg{}, fmt.Errorf("%w: %s", jsutil.ErrNotFound, m.Header.Get("Description"))
		case "503":
			return rawMsg{}, jsutil.Translate(nats.ErrNoResponders)
		}
		return rawMsg{}, fmt.Errorf("direct get: status %s %s", status, m.Header.Get("Description"))
	}
	sequence, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return rawMsg{}, fmt.Errorf("direct get: header %s: %w", jetstream.SequenceHeader, err)
	}
	return rawMsg{subject: m.Header.Get(jetstream.SubjectHeader), sequence: sequence, header: m.Header, data: m.Data}, nil
}
