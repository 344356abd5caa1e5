package runlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// answerWait is how long a single answer is waited for.
const answerWait = 5 * time.Second

// stored is a message as it stands in RUNS_LOG.
type stored struct {
	subject  string
	sequence uint64
	data     []byte
}

// getRequest is the body of $JS.API.DIRECT.GET and $JS.API.STREAM.MSG.GET
// (nats-server, JSApiMsgGetRequest).
type getRequest struct {
	Seq      uint64 `json:"seq,omitempty"`
	LastFor  string `json:"last_by_subj,omitempty"`
	NextFor  string `json:"next_by_subj,omitempty"`
	Batch    int    `json:"batch,omitempty"`
	MaxBytes int    `json:"max_bytes,omitempty"`
}

// directLast gets the last message on a subject from any replica. Its request
// subject names the run, so that a viewer's permissions can too.
func (l *Log) directLast(ctx context.Context, subject string) (stored, error) {
	m, err := l.request(ctx, l.api+"DIRECT.GET."+contracts.StreamLog+"."+subject, nil)
	if err != nil {
		return stored{}, err
	}
	return fromDirect(m)
}

// directNext gets the first message on a subject (a filter) at or after a
// stream sequence from any replica.
func (l *Log) directNext(ctx context.Context, subject string, sequence uint64) (stored, error) {
	m, err := l.request(ctx, l.api+"DIRECT.GET."+contracts.StreamLog, getRequest{Seq: sequence, NextFor: subject})
	if err != nil {
		return stored{}, err
	}
	return fromDirect(m)
}

// lastFromLeader gets the last message on a run's subject from the leader.
func (l *Log) lastFromLeader(ctx context.Context, runID string) (stored, error) {
	return l.fromLeader(ctx, getRequest{LastFor: contracts.EventsSubject(runID)})
}

// nextFromLeader gets a run's first message at or after a stream sequence from
// the leader.
func (l *Log) nextFromLeader(ctx context.Context, runID string, sequence uint64) (stored, error) {
	return l.fromLeader(ctx, getRequest{Seq: sequence, NextFor: contracts.EventsSubject(runID)})
}

func (l *Log) fromLeader(ctx context.Context, r getRequest) (stored, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupWait)
	defer cancel()
	m, err := l.request(ctx, l.api+"STREAM.MSG.GET."+contracts.StreamLog, r)
	if err != nil {
		return stored{}, err
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message *struct {
			Subject  string `json:"subject"`
			Sequence uint64 `json:"seq"`
			Data     []byte `json:"data"`
		} `json:"message"`
	}
	switch err := json.Unmarshal(m.Data, &answer); {
	case err != nil:
		return stored{}, fmt.Errorf("decode the answer of the stream's leader: %w", err)
	case answer.Error != nil:
		return stored{}, jsutil.Translate(answer.Error)
	case answer.Message == nil:
		return stored{}, errors.New("the stream's leader answered without a message")
	}
	return stored{answer.Message.Subject, answer.Message.Sequence, answer.Message.Data}, nil
}

// request asks and waits for one answer. An ended ctx is ErrUnavailable as
// well: the answer is not known.
func (l *Log) request(ctx context.Context, subject string, body any) (*nats.Msg, error) {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("encode a get: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, answerWait)
	defer cancel()
	m, err := l.nc.RequestWithContext(ctx, subject, data)
	if errors.Is(err, context.Canceled) {
		err = fmt.Errorf("%w: %w", jsutil.ErrUnavailable, err)
	}
	return m, jsutil.Translate(err)
}

// fromDirect reads one answer to a direct get.
func fromDirect(m *nats.Msg) (stored, error) {
	if status := m.Header.Get("Status"); status != "" && len(m.Data) == 0 {
		switch status {
		case "404":
			return stored{}, fmt.Errorf("%w: %s", jsutil.ErrNotFound, m.Header.Get("Description"))
		case "503": // no responders
			return stored{}, jsutil.Translate(nats.ErrNoResponders)
		}
		return stored{}, fmt.Errorf("direct get: status %s %s", status, m.Header.Get("Description"))
	}
	sequence, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return stored{}, fmt.Errorf("direct get: header %s: %w", jetstream.SequenceHeader, err)
	}
	return stored{m.Header.Get(jetstream.SubjectHeader), sequence, m.Data}, nil
}

// Pauses between tries, doubled each time.
const (
	minPause = 10 * time.Millisecond
	maxPause = 2 * time.Second
)

// pause waits before the next try after try earlier ones: a little longer each
// time, and until the connection is up. An error says that the wait is over
// for good: ctx has ended or the connection is closed.
func (l *Log) pause(ctx context.Context, try int) error {
	d := maxPause
	if try < 8 {
		d = min(minPause<<try, maxPause)
	}
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", jsutil.ErrUnavailable, context.Cause(ctx))
	}
	if l.nc.IsConnected() {
		return nil
	}
	if err := jsutil.WaitConnected(ctx, l.nc); err != nil {
		return fmt.Errorf("%w: %w", jsutil.ErrUnavailable, err)
	}
	return nil
}
