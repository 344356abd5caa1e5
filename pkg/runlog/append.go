package runlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/internal/sabotage"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// headerRoom is kept free below max_payload for what travels with an event:
// the compare-and-set header.
const headerRoom = 128

// Append appends e on top of at and waits until it is stored. It is AppendAsync
// and Wait in one; see there for the errors.
func (l *Log) Append(ctx context.Context, at Head, e contracts.Event) (Head, error) {
	p, err := l.AppendAsync(at, e)
	if err != nil {
		return Head{}, err
	}
	return p.Wait(ctx)
}

// AppendAsync sends e to be stored on top of at and returns at once; the
// outcome is Wait's. The broker stores it only if no other event was appended
// after at. The caller must not change e.Payload until Wait has returned.
//
// An error means that nothing was sent: e does not belong on at or cannot be
// encoded (a bug of the caller's), ErrTooLarge, or jsutil.ErrUnavailable if the
// connection is closed or so many appends wait for their acks (4,000 by
// default) that none came free in 200 ms, for which it may block.
func (l *Log) AppendAsync(at Head, e contracts.Event) (*Pending, error) {
	if err := checkOn(at, e); err != nil {
		return nil, err
	}
	data, err := l.encode(&e)
	if err != nil {
		return nil, err
	}
	p := &Pending{log: l, at: at.Sequence, head: Head{Head: e.Head()}, kind: e.Type}
	p.msg = nats.Msg{
		Subject: contracts.LogSubject(e.RunID),
		Header:  nats.Header{jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(at.Sequence, 10)}},
		Data:    data,
	}
	if sabotage.Broken(sabotage.Fencing) && at.Sequence > 0 {
		p.msg.Header = nil
	}
	if p.ack, err = l.js.PublishMsgAsync(&p.msg); err != nil {
		if errors.Is(err, jetstream.ErrTooManyStalledMsgs) {
			err = fmt.Errorf("%w: %w", jsutil.ErrUnavailable, err)
		}
		return nil, p.failed(jsutil.Translate(err))
	}
	return p, nil
}

// Fits returns the error that an append of e would have for its size or form,
// nil or ErrTooLarge for those who have checked the latter.
func (l *Log) Fits(e contracts.Event) error {
	_, err := l.encode(&e)
	return err
}

func (l *Log) encode(e *contracts.Event) ([]byte, error) {
	data, err := contracts.EncodeEvent(e)
	if err != nil {
		return nil, fmt.Errorf("append %s to run %s: encode: %w", e.Type, e.RunID, err)
	}
	if limit := l.nc.MaxPayload(); limit > 0 && int64(len(data)+headerRoom) > limit {
		return nil, fmt.Errorf("append %s to run %s: %w: %d bytes and up to %d of headers, max_payload is %d",
			e.Type, e.RunID, ErrTooLarge, len(data), headerRoom, limit)
	}
	return data, nil
}

// checkOn refuses an event that cannot stand on top of at. Whether its type
// may follow is contracts.Apply's to say; this catches the mix-up of two runs.
func checkOn(at Head, e contracts.Event) error {
	switch {
	case e.Seq != at.Seq+1:
		return fmt.Errorf("append %s to run %s: seq %d does not follow %d", e.Type, e.RunID, e.Seq, at.Seq)
	case at.Seq > 0 && e.RunID != at.RunID:
		return fmt.Errorf("append %s of run %s to the log of run %s", e.Type, e.RunID, at.RunID)
	case (at.Seq == 0) != (at.Sequence == 0):
		return fmt.Errorf("append %s to run %s: head has seq %d but sequence %d", e.Type, e.RunID, at.Seq, at.Sequence)
	}
	if err := contracts.CheckRunID(e.RunID); err != nil {
		return fmt.Errorf("append %s: run id %w", e.Type, err)
	}
	return nil
}
