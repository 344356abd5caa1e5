package dispatcher

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// A client that waits for its answer may ask a dispatcher for a run, in place of
// leaving the submission in the inbox, and saves the run that hop (ADR 21). The
// answer is a stream's, and says no less: run.queued is stored, and the work
// message behind it. Whatever is not plain, or not to be had at once, is passed on to the
// inbox, whose answer then is the client's. Who gets none leaves it there himself.

const (
	// directGroup shares the requests out among the dispatchers.
	directGroup = "dispatchers"
	// maxAsked bounds the requests that lie here untaken: those past half of it are
	// passed on, which is quick, and those past all of it get no answer.
	maxAsked, maxAskedBytes = 2048, 64 << 20
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
	now := time.Now()
	it := &item{asked: m, Delivery: &jsutil.Delivery{Subject: m.Subject, Header: m.Header, Data: m.Data, Stored: now, Received: now, Delivered: 1}}
	if !busy {
		faults := it.read(s.cfg)
		if it.named && it.sub.ConversationID == "" && s.sendPlain(it, faults) {
			s.queued <- it
			return
		}
	}
	s.passOn(it)
}

// answer tells who asked that its run is queued, or has the inbox see to it:
// there it is tried until it is done, and what was done already is found in the log.
func (s *submitter) answer(it *item, err error) {
	if err != nil {
		s.logger.Debug("submission by request is not carried out", "run_id", it.sub.RunID, "error", err)
		if broken(err) {
			s.suspected.Store(true)
		}
		s.passOn(it)
		return
	}
	s.meters.Answered(it.Delivery, string(actAck))
	if it.Finished != nil {
		it.Finished(nil)
	}
	s.reply(&nats.Msg{Subject: it.asked.Reply, Data: fmt.Appendf(nil, `{"stream":%q,"seq":%d}`, contracts.StreamLog, it.at)})
}

func (s *submitter) passOn(it *item) {
	s.meters.Answered(it.Delivery, "pass")
	if it.Finished != nil {
		it.Finished(nil)
	}
	s.reply(&nats.Msg{Subject: contracts.SubjectSubmit, Reply: it.asked.Reply, Header: it.asked.Header, Data: it.asked.Data})
}

func (s *submitter) reply(m *nats.Msg) {
	if err := s.nc.PublishMsg(m); err != nil {
		s.logger.Warn("request could not be answered", "error", err) // its sender turns to the inbox
	}
}
