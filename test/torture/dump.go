package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/test/torture/check"
	"longhaul/test/torture/history"
)

// resultDir holds what the checker reads.
func resultDir(dir string) string { return filepath.Join(dir, "result") }

// probe submits runs after the faults: what was before must not hold them up.
func (s *system) probe(ctx context.Context) ([]string, error) {
	var ids []string
	for i, key := range agentKeys() {
		id := contracts.NewRunID()
		ids = append(ids, id)
		e := history.Entry{Actor: "probe", Kind: history.KindSubmit, ID: int64(i + 1), Run: id}
		e.Op, e.Submit = history.OpInvoke, &history.Submit{Agent: key, Probe: true}
		s.write(e)
		if _, err := s.client.Submit(ctx, contracts.Submission{RunID: id, AgentKey: key}); err != nil {
			e.Op, e.Error = history.OpUnknown, err.Error()
			s.write(e)
			continue
		}
		e.Op = history.OpOK
		s.write(e)
	}
	return ids, nil
}

// open says what has not come to its end; "" if all has.
func (s *system) open(ctx context.Context, probes []string) (string, error) {
	for _, id := range probes {
		if !s.book.head(id).Status.Terminal() {
			return "run " + id + ", submitted after the faults, has not ended", nil
		}
	}
	if n := s.book.living(); n > 0 {
		return fmt.Sprintf("%d runs have not ended", n), nil
	}
	for _, stream := range []string{contracts.StreamInbox, contracts.StreamWork, contracts.StreamSchedule} {
		if n, err := s.undone(ctx, stream); err != nil || n > 0 {
			return fmt.Sprintf("%d messages are undone in %s", n, stream), err
		}
	}
	return "", nil
}

// undone counts what the consumers of a stream have before them or in hand. It
// is not what stands in the stream: a broker whose disk was full may show again
// what was done with before, and deliver it to nobody.
func (s *system) undone(ctx context.Context, stream string) (n uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	st, err := s.js.Stream(ctx, stream)
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", stream, err)
	}
	list := st.ListConsumers(ctx)
	for c := range list.Info() {
		n += c.NumPending + uint64(c.NumAckPending)
	}
	if err := list.Err(); err != nil {
		return 0, fmt.Errorf("look at the consumers of %s: %w", stream, err)
	}
	return n, nil
}

// dump writes down what stands in the broker.
func (s *system) dump(ctx context.Context) error {
	var d check.Dump
	for _, part := range []struct {
		stream string
		to     *[]check.Message
	}{
		{contracts.StreamLog, &d.Log}, {contracts.StreamWork, &d.Work}, {contracts.StreamSchedule, &d.Schedule},
		{contracts.StreamInbox, &d.Inbox}, {contracts.StreamRuns, &d.Runs},
	} {
		all, err := s.messages(ctx, part.stream)
		if err != nil {
			return fmt.Errorf("dump %s: %w", part.stream, err)
		}
		*part.to = all
	}
	s.say("dumped %d events", len(d.Log))
	return d.Save(resultDir(s.dir))
}

// messages reads all of a stream from its leader, which has all that was ever
// acknowledged; the client library would ask any replica.
func (s *system) messages(ctx context.Context, stream string) (all []check.Message, err error) {
	for next := uint64(1); ; next = all[len(all)-1].Seq + 1 {
		m, found, err := s.message(ctx, stream, next)
		if err != nil || !found {
			return all, err
		}
		all = append(all, m)
	}
}

// message reads the first message at or after a sequence.
func (s *system) message(ctx context.Context, stream string, from uint64) (m check.Message, found bool, err error) {
	body, err := json.Marshal(map[string]any{"seq": from, "next_by_subj": ">"})
	if err != nil {
		return m, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	reply, err := s.nc.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+"STREAM.MSG.GET."+stream, body)
	if err != nil {
		return m, false, fmt.Errorf("read from message %d: %w", from, err)
	}
	var answer struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Subject string    `json:"subject"`
			Seq     uint64    `json:"seq"`
			Headers []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(reply.Data, &answer); err != nil {
		return m, false, fmt.Errorf("read from message %d: %w", from, err)
	}
	if answer.Error != nil {
		if answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
			return m, false, nil
		}
		return m, false, fmt.Errorf("read from message %d: %w", from, answer.Error)
	}
	g := answer.Message
	m = check.Message{Seq: g.Seq, Subject: g.Subject, Time: g.Time, Data: g.Data}
	if len(g.Headers) > 0 {
		if m.Header, err = nats.DecodeHeadersMsg(g.Headers); err != nil {
			return m, false, fmt.Errorf("read the header of message %d: %w", g.Seq, err)
		}
	}
	return m, true, nil
}
