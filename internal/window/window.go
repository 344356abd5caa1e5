// Package window shows single runs to those who may see nothing else.
//
// JetStream's API to read a stream names what is wanted in the body of a
// request, where no permission can look; only the last message of a subject can
// be asked for by the request's own subject. So the history of one run can't be
// granted. Here it is asked for on subjects that hold the run's id; a request
// is checked to want that run alone, passed on, and answered with what the
// broker answers. In the accounts of viewers (internal/security) the broker
// itself maps JetStream's subjects to these: a client need not know.
package window

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// The kinds of questions, each a subject <SubjectAPI>.<kind>.<run id>.
const (
	KindLog    = "log"    // a direct get of RUNS_LOG, one message or a batch
	KindLeader = "leader" // a get from RUNS_LOG's leader
	KindRun    = "run"    // statekeeper's get
)

const (
	// group is the queue group that instances share.
	group = "window"
	// lanes bounds the questions that are passed on at once; the next one waits.
	lanes = 16
	// wait is for how long the broker's next message is waited for.
	wait = 5 * time.Second
	// maxBatch and maxBytes bound one answer. The client library of ours asks for no more.
	maxBatch, maxBytes = 256, 1 << 20
)

// Subject is where a question of a kind about a run is asked.
func Subject(kind, runID string) string { return contracts.APISubject(kind) + "." + runID }

// Serve answers questions that come over nc until ctx ends, and returns when
// those at hand are answered.
func Serve(ctx context.Context, nc *nats.Conn, logger *slog.Logger) error {
	w := &window{nc: nc, logger: logger, lanes: make(chan struct{}, lanes)}
	var subs []*nats.Subscription
	defer func() {
		for _, s := range subs {
			_ = s.Unsubscribe() // fails only on a closed connection
		}
		w.answering.Wait()
	}()
	for _, kind := range []string{KindLog, KindLeader, KindRun} {
		s, err := nc.QueueSubscribe(Subject(kind, "*"), group, func(m *nats.Msg) { w.take(ctx, kind, m) })
		if err != nil {
			return fmt.Errorf("listen for questions about single runs: %w", jsutil.Translate(err))
		}
		subs = append(subs, s)
	}
	<-ctx.Done()
	return nil
}

type window struct {
	nc        *nats.Conn
	logger    *slog.Logger
	lanes     chan struct{}
	answering sync.WaitGroup
}

// take answers m beside others.
func (w *window) take(ctx context.Context, kind string, m *nats.Msg) {
	select {
	case w.lanes <- struct{}{}:
	case <-ctx.Done():
		return
	}
	w.answering.Go(func() {
		defer func() { <-w.lanes }()
		runID := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
		to, question, err := allowed(kind, runID, m.Data)
		if err != nil {
			w.refuse(m, kind, err)
			return
		}
		if err := w.pass(ctx, to, question, m.Reply); err != nil { // whoever asked will ask again
			w.logger.Debug("question about a run not answered", "run_id", runID, "error", err)
		}
	})
}

// allowed returns where a question is to be passed on to, and its body written
// anew, or why it is not to be: what we have looked at is what the broker reads,
// whatever else may stand in the body.
func allowed(kind, runID string, body []byte) (to string, question []byte, err error) {
	if err := contracts.CheckRunID(runID); err != nil {
		return "", nil, fmt.Errorf("run id %w", err)
	}
	if kind == KindRun {
		var r contracts.GetRequest
		if err := json.Unmarshal(body, &r); err != nil || r.RunID != runID {
			return "", nil, errors.New("another run is asked for")
		}
		question, err = contracts.Encode(contracts.GetRequest{RunID: runID})
		return contracts.APISubject(contracts.EndpointGet), question, err
	}
	var r jsutil.GetRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return "", nil, fmt.Errorf("not understood: %w", err)
	}
	// A sequence without a subject is any run's.
	if of := contracts.EventsSubject(runID); len(r.MultiLast) > 0 || r.NextFor != of && r.LastFor != of || r.NextFor != "" && r.LastFor != "" {
		return "", nil, errors.New("more than the events of the run is asked for")
	}
	if r.Batch < 0 || r.Batch > maxBatch || r.MaxBytes < 0 || r.MaxBytes > maxBytes {
		return "", nil, fmt.Errorf("at most %d events or %d bytes at once", maxBatch, maxBytes)
	}
	to = jetstream.DefaultAPIPrefix + "DIRECT.GET." + contracts.StreamLog
	if kind == KindLeader {
		to = jetstream.DefaultAPIPrefix + "STREAM.MSG.GET." + contracts.StreamLog
	}
	question, err = json.Marshal(r)
	return to, question, err
}

// pass asks on, and passes back every message of the answer.
func (w *window) pass(ctx context.Context, to string, question []byte, reply string) error {
	sub, err := w.nc.SubscribeSync(w.nc.NewInbox())
	if err != nil {
		return fmt.Errorf("listen for the answer: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	if err := w.nc.PublishRequest(to, sub.Subject, question); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	for {
		next, cancel := context.WithTimeout(ctx, wait)
		answer, err := sub.NextMsgWithContext(next)
		cancel()
		if err != nil {
			return fmt.Errorf("wait for the answer: %w", err)
		}
		if err := w.nc.PublishMsg(&nats.Msg{Subject: reply, Header: answer.Header, Data: answer.Data}); err != nil {
			return fmt.Errorf("pass the answer back: %w", err)
		}
		// Each message of a batch says how many follow; its end has a status, and so
		// has any other that is no message.
		if answer.Header.Get("Nats-Num-Pending") == "" || answer.Header.Get("Status") != "" {
			return nil
		}
	}
}

// refuse answers as the broker does to what it does not understand.
func (w *window) refuse(m *nats.Msg, kind string, why error) {
	w.logger.Warn("question about a single run refused", "subject", m.Subject, "error", why)
	header := nats.Header{"Status": {"403"}, "Description": {why.Error()}}
	var body []byte
	switch kind {
	case KindLeader:
		body, header = []byte(`{"error":{"code":400,"err_code":10003,"description":"not allowed"}}`), nil
	case KindRun:
		header = nats.Header{micro.ErrorCodeHeader: {"400"}, micro.ErrorHeader: {why.Error()}}
	}
	_ = w.nc.PublishMsg(&nats.Msg{Subject: m.Reply, Header: header, Data: body}) // it asked for nothing that it may have
}
