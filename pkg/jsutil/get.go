package jsutil

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// answerWait is how long one message of an answer is waited for. It bounds,
// too, what a batch that a reconnect cut off costs.
const answerWait = 3 * time.Second

// Stored is a message as it stands in a stream.
type Stored struct {
	Subject  string      `json:"subject"`
	Sequence uint64      `json:"seq"`
	Header   nats.Header `json:"-"` // nil from GetFromLeader
	Data     []byte      `json:"data"`
	Time     time.Time   `json:"time"` // by the broker's clock; zero but from GetFromLeader
}

// GetRequest says which messages of a stream are wanted: the last one on
// LastFor, or the next ones on NextFor (a filter) at or after Seq or StartTime,
// or the last one on each of MultiLast. It is the body of $JS.API.DIRECT.GET and
// $JS.API.STREAM.MSG.GET (nats-server, JSApiMsgGetRequest).
type GetRequest struct {
	Seq       uint64    `json:"seq,omitempty"`
	StartTime time.Time `json:"start_time,omitzero"`
	LastFor   string    `json:"last_by_subj,omitempty"`
	NextFor   string    `json:"next_by_subj,omitempty"`
	MultiLast []string  `json:"multi_last,omitempty"`
	// Batch and MaxBytes bound a batch; the broker stops after the message that
	// passes MaxBytes.
	Batch    int `json:"batch,omitempty"`
	MaxBytes int `json:"max_bytes,omitempty"`
}

// The functions below get messages without a consumer. ErrNotFound: there is
// none; ErrUnavailable: no answer, or an ended ctx, for then the answer is not
// known. All but GetFromLeader are answered by any replica, also one that lags.

// GetLast gets the last message on a subject. The subject of its request names
// that of the message, so that a user's permissions can too.
func GetLast(ctx context.Context, nc *nats.Conn, stream, subject string) (Stored, error) {
	m, err := ask(ctx, nc, "DIRECT.GET."+stream+"."+subject, nil)
	if err != nil {
		return Stored{}, err
	}
	return storedOf(m)
}

// Get gets the first message that r asks for.
func Get(ctx context.Context, nc *nats.Conn, stream string, r GetRequest) (Stored, error) {
	m, err := ask(ctx, nc, "DIRECT.GET."+stream, r)
	if err != nil {
		return Stored{}, err
	}
	return storedOf(m)
}

// GetFromLeader gets the first message that r asks for from the stream's
// leader, which has every message that was acknowledged before the call. It
// costs the broker more than Get.
func GetFromLeader(ctx context.Context, nc *nats.Conn, stream string, r GetRequest) (Stored, error) {
	return askLeader(ctx, nc, "STREAM.MSG.GET."+stream, r)
}

// askLeader is ask for what the stream's leader answers: with a message if it
// was asked for one, else with none.
func askLeader(ctx context.Context, nc *nats.Conn, what string, r any) (Stored, error) {
	m, err := ask(ctx, nc, what, r)
	if err != nil {
		return Stored{}, err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message Stored              `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return Stored{}, fmt.Errorf("decode the answer of the stream's leader: %w", err)
	}
	if answer.Error != nil {
		return Stored{}, Translate(answer.Error)
	}
	return answer.Message, nil
}

// ask sends a request and waits for one answer.
func ask(ctx context.Context, nc *nats.Conn, what string, r any) (*nats.Msg, error) {
	var body []byte
	if r != nil {
		var err error
		if body, err = json.Marshal(r); err != nil {
			return nil, fmt.Errorf("encode a get: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	m, err := nc.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+what, body)
	return m, unanswered(err)
}

func unanswered(err error) error {
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return Translate(err)
}

// GetBatch gets many messages in one request. more says that the broker
// stopped at a bound and holds others. No message at all is no error.
//
// It stands in for jetstreamext's functions, which end in the same way whether
// the answer was whole or broke off: here that is ErrUnavailable.
func GetBatch(ctx context.Context, nc *nats.Conn, stream string, r GetRequest) (got []Stored, more bool, err error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, false, fmt.Errorf("encode a get: %w", err)
	}
	inbox := nc.NewRespInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, false, Translate(err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	if err := nc.PublishRequest(jetstream.DefaultAPIPrefix+"DIRECT.GET."+stream, inbox, body); err != nil {
		return nil, false, Translate(err)
	}
	for last := "0"; ; {
		m, err := nextOf(ctx, sub)
		if err != nil {
			return nil, false, unanswered(err)
		}
		// Every message names the one before it, and so does the end of the batch.
		if before := m.Header.Get(jetstream.LastSequenceHeader); before != "" && before != last {
			return nil, false, fmt.Errorf("%w: a message of a batch was lost", ErrUnavailable)
		}
		if m.Header.Get("Status") == "204" && len(m.Data) == 0 { // end of batch
			pending := m.Header.Get("Nats-Num-Pending")
			return got, pending != "" && pending != "0", nil
		}
		s, err := storedOf(m)
		switch {
		case err == nil:
			got, last = append(got, s), m.Header.Get(jetstream.SequenceHeader)
		case len(got) == 0 && errors.Is(err, ErrNotFound):
			return nil, false, nil
		default:
			return nil, false, err
		}
	}
}

// maxLasts bounds the subjects of one request; the broker refuses more than 1,024.
const maxLasts = 1000

// GetLasts gets the last message on each of some subjects, with as few requests
// as the broker allows. A subject without one is left out.
func GetLasts(ctx context.Context, nc *nats.Conn, stream string, subjects []string) (map[string]Stored, error) {
	found := make(map[string]Stored, len(subjects))
	for len(subjects) > 0 {
		some := subjects[:min(maxLasts, len(subjects))]
		got, more, err := GetBatch(ctx, nc, stream, GetRequest{MultiLast: some})
		if err != nil {
			return nil, err
		}
		for _, m := range got {
			found[m.Subject] = m
		}
		if subjects = subjects[len(some):]; more { // by its bytes
			subjects = append(slices.DeleteFunc(slices.Clone(some), func(s string) bool { return found[s].Sequence > 0 }), subjects...)
		}
	}
	return found, nil
}

func nextOf(ctx context.Context, sub *nats.Subscription) (*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	return sub.NextMsgWithContext(ctx)
}

// storedOf reads one answer to a direct get.
func storedOf(m *nats.Msg) (Stored, error) {
	if status := m.Header.Get("Status"); status != "" && len(m.Data) == 0 {
		switch status {
		case "404":
			return Stored{}, fmt.Errorf("%w: %s", ErrNotFound, m.Header.Get("Description"))
		case "503": // no responders
			return Stored{}, Translate(nats.ErrNoResponders)
		}
		return Stored{}, fmt.Errorf("direct get: status %s %s", status, m.Header.Get("Description"))
	}
	sequence, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return Stored{}, fmt.Errorf("direct get: header %s: %w", jetstream.SequenceHeader, err)
	}
	return Stored{Subject: m.Header.Get(jetstream.SubjectHeader), Sequence: sequence, Header: m.Header, Data: m.Data}, nil
}
