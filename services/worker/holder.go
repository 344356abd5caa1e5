package worker

import (
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// held is the set of attempts that this worker has under way.
type held struct {
	mu       sync.Mutex
	byRun    map[string]*attempt
	starting map[string]*starting
	closing  bool // the drain's time is over: whatever comes ends at once
}

// starting is a run whose run.started is being appended. Others may read that
// event before we know of it, and ask: the answer must not be no.
type starting struct {
	epoch uint64
	over  chan struct{} // closed when the run is held, or is not
}

// beginStart notes that run.started is about to be appended; false if this
// worker is at it already. The run must then be passed to endStart.
func (w *Worker) beginStart(runID string, epoch uint64) bool {
	w.held.mu.Lock()
	defer w.held.mu.Unlock()
	if w.held.starting[runID] != nil || w.held.byRun[runID] != nil {
		return false
	}
	w.held.starting[runID] = &starting{epoch: epoch, over: make(chan struct{})}
	return true
}

func (w *Worker) endStart(runID string) {
	w.held.mu.Lock()
	defer w.held.mu.Unlock()
	if s := w.held.starting[runID]; s != nil {
		delete(w.held.starting, runID)
		close(s.over)
	}
}

func (w *Worker) startOf(runID string) *starting {
	w.held.mu.Lock()
	defer w.held.mu.Unlock()
	return w.held.starting[runID]
}

// hold adds an attempt, and then ends its start; false if the worker ends its
// attempts already.
func (w *Worker) hold(a *attempt) bool {
	defer w.endStart(a.work.submission.RunID)
	w.held.mu.Lock()
	defer w.held.mu.Unlock()
	w.held.byRun[a.work.submission.RunID] = a
	return !w.held.closing
}

// letGo removes an attempt. It may be called twice: the run may be here again
// in a new attempt by then.
func (w *Worker) letGo(a *attempt) {
	w.held.mu.Lock()
	defer w.held.mu.Unlock()
	if w.held.byRun[a.work.submission.RunID] == a {
		delete(w.held.byRun, a.work.submission.RunID)
	}
}

// closing reports whether the drain's time is over.
func (w *Worker) closing() bool {
	w.held.mu.Lock()
	defer w.held.mu.Unlock()
	return w.held.closing
}

func (w *Worker) holding(runID string) *attempt {
	w.held.mu.Lock()
	defer w.held.mu.Unlock()
	return w.held.byRun[runID]
}

func (w *Worker) attempts() []*attempt {
	w.held.mu.Lock()
	defer w.held.mu.Unlock()
	all := make([]*attempt, 0, len(w.held.byRun))
	for _, a := range w.held.byRun {
		all = append(all, a)
	}
	return all
}

// listen answers requests on runs.worker.<worker_id> until stop is called,
// which waits for the answers under way.
func (w *Worker) listen() (stop func(), err error) {
	var answering sync.WaitGroup
	sub, err := w.nc.Subscribe(contracts.WorkerSubject(w.cfg.WorkerID), func(m *nats.Msg) {
		req, err := contracts.DecodeHolderRequest(m.Data)
		if err != nil {
			w.reply(m, contracts.HolderReply{Error: err.Error()})
			return
		}
		if req.Op != contracts.HolderCancel {
			w.reply(m, w.answerHolder(req))
			return
		}
		// A cancel waits for its event to be committed; the others need not wait for it.
		answering.Go(func() { w.reply(m, w.answerHolder(req)) })
	})
	if err != nil {
		return nil, fmt.Errorf("listen on the worker's subject: %w", jsutil.Translate(err))
	}
	return func() {
		w.answer(sub.Unsubscribe())
		answering.Wait()
	}, nil
}

// answerHolder answers one request.
func (w *Worker) answerHolder(req contracts.HolderRequest) contracts.HolderReply {
	var reply contracts.HolderReply
	start := w.startOf(req.RunID) // before the attempts: a start becomes one, never the reverse
	if start != nil && req.Op == contracts.HolderCancel {
		<-start.over
	}
	a := w.holding(req.RunID)
	switch req.Op {
	case contracts.HolderHolds:
		if start != nil && start.epoch == req.Epoch {
			reply.Holds = true
			break
		}
		if reply.Holds = a != nil && a.epoch == req.Epoch && !a.lost(); reply.Holds {
			// Whoever asks was handed the message, so the lease had run out or
			// was given back: take it up again.
			w.answer(a.lease.current().Extend())
		}
	case contracts.HolderCancel:
		if a == nil {
			break
		}
		reply.Holds = true
		if err := a.cancel(req.Reason, req.By); err != nil {
			reply.Error = err.Error()
		} else {
			reply.Requested = true
		}
	}
	return reply
}

func (w *Worker) reply(m *nats.Msg, reply contracts.HolderReply) {
	reply.WorkerID = w.cfg.WorkerID
	body, err := contracts.Encode(reply)
	if err == nil {
		err = m.Respond(body)
	}
	if err != nil {
		w.log.Warn("request to this worker could not be answered", "error", err)
	}
}
