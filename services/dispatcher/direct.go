package dispatcher

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// A client that waits for its answer may ask a dispatcher for a run, in place of
// leaving the submission in the inbox, and saves the run that hop (ADR 21). The
// answer is a stream's, and says no less: run.queued is stored, and the work
// message behind it. Whatever is not plain, or not to be had at once, is refused:
// whoever asked leaves it in the inbox then, as he does if he has no answer.

const (
	// directGroup shares the requests out among the dispatchers.
	directGroup = "dispatchers"
	// maxAsked bounds the requests that lie here untaken: those past half of it are
	// refused, which is quick, and those past all of it get no answer. Half is what
	// one client has under way; with those in hand it is little more than a second's
	// work where every write is synced, and who asks has patience for two.
	maxAsked, maxAskedBytes = 1024, 64 << 20
	// refusal is in the form of a stream's, too.
	refusal = `{"error":{"code":503,"description":"not to be queued at once: publish it to runs.submit"}}`
)

// takeRequests takes submissions by request until ctx ends.
func (s *submitter) takeRequests(ctx context.Context) {
	ended := make(chan struct{})
	sub, err := s.nc.QueueSubscribe(contracts.SubjectSubmitDirect, directGroup, func(m *nats.Msg) {
		waiting, _, err := m.Sub.Pending()
		s.request(m, err == nil && waiting > maxAsked/2)
	})
	if err == nil {
		sub.SetClosedHandler(func(string) { close(ended) })
		err = sub.SetPendingLimits(maxAsked, maxAskedBytes)
	}
	if err != nil {
		s.logger.Error("requests are not taken, submissions come by the inbox alone", "error", err)
		return
	}
	<-ctx.Done()
	if !s.nc.IsConnected() || sub.Drain() != nil {
		_ = sub.Unsubscribe() // fails if it has ended
	}
	select {
	case <-ended:
	case <-time.After(drainTimeout):
		_ = sub.Unsubscribe()
		<-ended
	}
}

// request takes one submission in, unless it is busy. It waits only while too many are under way.
func (s *submitter) request(m *nats.Msg, busy bool) {
	if m.Reply == "" || strings.HasPrefix(m.Reply, "runs.") || strings.HasPrefix(m.Reply, "$") {
		return // an answer that nobody waits for, or that is to do something by our rights
	}
	now := time.Now()
	it := &item{asked: m, Delivery: &jsutil.Delivery{Subject: m.Subject, Header: m.Header, Data: m.Data, Stored: now, Received: now, Delivered: 1}}
	if !busy {
		faults := it.read(s.cfg)
		if it.named && it.sub.ConversationID == "" && s.sendPlain(it, faults) {
			s.queued <- it
			return
		}
	}
	s.refuse(it)
}

// answer tells who asked that its run is queued, or refuses: in the inbox it is
// tried until it is done, and what was done already is found in the log.
func (s *submitter) answer(it *item, err error) {
	if broken(err) {
		s.suspected.Store(true)
	}
	if err != nil {
		s.logger.Debug("request is refused", "run_id", it.sub.RunID, "error", err)
		s.refuse(it)
		return
	}
	if it.Finished != nil { // what is refused has no span: that is the one by the inbox
		it.Finished(nil)
	}
	s.respond(it, actAck, fmt.Sprintf(`{"stream":%q,"seq":%d}`, contracts.StreamLog, it.at))
}

func (s *submitter) refuse(it *item) { s.respond(it, actRefuse, refusal) }

func (s *submitter) respond(it *item, act action, text string) {
	s.meters.Answered(it.Delivery, string(act))
	if err := it.asked.Respond([]byte(text)); err != nil {
		s.logger.Warn("request could not be answered", "run_id", it.sub.RunID, "error", err) // who asked does not wait for long
	}
}
