package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"longhaul/internal/sabotage"
	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/metrics"
	"longhaul/pkg/runlog"
)

// pauseAfterError is how long a message is given back for when the broker
// would not answer; long enough not to spin, short beside the lease.
const pauseAfterError = time.Second

// work is a work message as read.
type work struct {
	worker     *Worker
	delivery   *jsutil.Delivery
	agent      agent.Agent
	submission contracts.Submission
	queued     contracts.Event
	due        time.Time // from when on it could have begun
	follows    string    // the run before it in its conversation
	history    []contracts.Message
	tookOver   bool // from a worker that is gone
	// What claim has found and made.
	state *contracts.State
	at    runlog.Head // that of run.started
}

// take does whatever a work message asks for, and calls over when the run is, as
// far as this worker goes. It returns when the agent has, if it is later: an
// agent may ignore its context.
func (w *Worker) take(d *jsutil.Delivery, over func()) {
	if wk := w.begin(d); wk != nil {
		w.execute(wk, over)
		return
	}
	over()
}

// begin does whatever a work message asks for, up to starting the run; then it
// is the caller's to execute. Nil means that the message has been dealt with.
func (w *Worker) begin(d *jsutil.Delivery) *work {
	wk, err := w.readWork(d)
	if err != nil {
		w.log.Error("work message is not one of ours, given up", "subject", d.Subject, "error", err)
		w.answer(d.Term())
		return nil
	}
	if held := w.holding(wk.submission.RunID); held != nil {
		w.takeAgain(context.Background(), held, d)
		return nil
	}
	started, err := w.claim(wk)
	if err != nil {
		wk.log().Warn("run could not be taken, its lease decides", "error", err)
		w.answer(d.Nak(pauseAfterError))
	}
	if !started {
		return nil
	}
	return wk
}

// takeAgain is handed a run that is held here: because a heartbeat came late, or
// because it has gone on without us, and this is its work of another round.
func (w *Worker) takeAgain(ctx context.Context, held *attempt, d *jsutil.Delivery) {
	held.lease.adopt(d)
	held.look(ctx, time.Now(), false, false)
	// Lost, and its agent winds up; or ended by now, and its answer may have been
	// undone by our taking up the lease: for whoever comes then.
	if held.lost() || w.holding(held.work.submission.RunID) != held {
		w.answer(d.Nak(pauseAfterError))
	}
}

// readWork decodes a work message: the run.queued event of its run.
func (w *Worker) readWork(d *jsutil.Delivery) (*work, error) {
	runID, err := contracts.RunIDOfSubject(d.Subject)
	if err != nil {
		return nil, err
	}
	e, err := contracts.DecodeEvent(d.Data)
	if err != nil {
		return nil, err
	}
	queued, err := contracts.DecodeQueued(e.Payload)
	if err != nil {
		return nil, fmt.Errorf("decode the payload of %s: %w", e.Type, err)
	}
	a, known := w.agents[e.AgentKey]
	s := queued.Submission
	if e.Type != contracts.TypeQueued || e.RunID != runID || s.RunID != runID || s.AgentKey != e.AgentKey || !known {
		return nil, fmt.Errorf("event %s of run %s for agent %q is no work of this subject", e.Type, e.RunID, e.AgentKey)
	}
	return &work{worker: w, delivery: d, agent: a, submission: s, queued: e, due: metrics.Due(e, queued), follows: queued.Follows}, nil
}

// log returns a logger that says which run it is of. It is made for those who
// log: of most runs nobody does.
func (wk *work) log() *slog.Logger {
	return wk.worker.log.With("run_id", wk.submission.RunID, "agent_key", wk.submission.AgentKey)
}

// claim brings the run to run.started under this worker. False and no error
// mean that the message has been dealt with otherwise.
func (w *Worker) claim(wk *work) (started bool, err error) {
	// A drain does not cut it off: an append whose outcome nobody waits for may
	// start an attempt that nobody executes. Past the lease it is somebody else's.
	ctx, cancel := context.WithTimeout(context.Background(), w.cfg.Lease)
	defer cancel()
	at, err := w.position(ctx, wk)
	if errors.Is(err, jsutil.ErrNotFound) {
		wk.log().Warn("work message of a run without a log, dropped")
		w.answer(wk.delivery.Ack())
		return false, nil
	}
	for gone := uint64(0); err == nil; { // gone: the epoch whose holder is known to be gone
		now := time.Now()
		spoil(&at.Head)
		act := decide(at.Head, wk.startBy(at.Head), now, gone == at.Epoch && gone > 0)
		if act == actStart {
			if act, err = w.prepare(ctx, wk, at); err != nil {
				break
			}
		}
		switch act {
		case actLeave, actDrop, actTurn, actWait:
			w.pass(wk, at, act, now)
			return false, nil
		case actAsk:
			holds, askErr := w.askHolder(ctx, at)
			if askErr != nil {
				return false, askErr
			}
			if holds {
				// Leave it alone: the holder has extended the lease by answering.
				wk.log().Info("run is held by another worker, left alone", "worker_id", at.WorkerID, "epoch", at.Epoch)
				return false, nil
			}
			gone = at.Epoch
			continue
		}
		var e contracts.Event
		var next runlog.Head
		if e, err = w.claimEvent(wk, at.Head, act, now); err == nil {
			next, err = w.runs.Append(ctx, at, e)
		}
		if err == nil {
			if act == actStart {
				if wk.tookOver = at.Status.Held(); wk.tookOver {
					w.counts.Takeovers.Add(1)
				}
				w.counts.Started(wk.agent.Key, wk.queued.Priority, next.Epoch, wk.due)
				// The append may have sat out an outage. If this fails, the next beat may not.
				_ = w.renew(ctx, wk.delivery)
				wk.at = next
				return true, nil
			}
			wk.log().Info("run ended without its worker", "status", next.Status, "attempt", next.Attempt)
			w.counts.Closed(wk.agent.Key, next.Status, wk.due)
			w.answer(wk.delivery.Ack())
			return false, nil
		}
		if act == actStart {
			w.endStart(at.RunID)
		}
		if errors.Is(err, jsutil.ErrConflict) {
			at, err = w.leaderHead(ctx, at.RunID)
		}
	}
	return false, err
}

// pass answers a message whose run is not to be begun now.
func (w *Worker) pass(wk *work, at runlog.Head, act action, now time.Time) {
	switch act {
	case actDrop:
		w.answer(wk.delivery.Ack())
	case actTurn:
		w.answer(wk.delivery.Nak(turnPause(now.Sub(wk.queued.Time))))
	case actWait:
		w.answer(wk.delivery.Nak(at.NotBefore.Sub(now)))
	default: // actLeave: somebody else answers it
	}
}

// spoil is for tests of the tests.
func spoil(at *contracts.Head) {
	if sabotage.Broken(sabotage.Attempts) && at.Status.Held() {
		at.Attempt = 0
	}
	if sabotage.Broken(sabotage.NotBefore) {
		at.NotBefore = time.Time{}
	}
}

// prepare gets what a run needs before its start: the state to go on from and
// most of a lease, so that a broker which cannot give them charges no attempt;
// and the worker's word that it is started once. It says what is to be done then.
func (w *Worker) prepare(ctx context.Context, wk *work, at runlog.Head) (act action, err error) {
	if wk.submission.ConversationID != "" && !sabotage.Broken(sabotage.Turns) {
		history, turn, err := w.history(ctx, wk, at.Head)
		if err != nil || !turn {
			return actTurn, err
		}
		wk.history = history
	}
	if wk.state, act, err = w.resume(ctx, at); err != nil || act != actStart {
		return act, err
	}
	if err := w.renew(ctx, wk.delivery); err != nil {
		return act, err
	}
	if !w.beginStart(at.RunID, at.Epoch+1) {
		return actLeave, nil // handed to us twice; the other one is at it
	}
	return act, nil
}

// startBy is when the run has to have begun, zero if never, or if it has been
// begun or redriven since.
func (wk *work) startBy(head contracts.Head) time.Time {
	if head.Seq != wk.queued.Seq {
		return time.Time{}
	}
	return wk.submission.StartBy(wk.queued)
}

// position returns the head to act on: at the first delivery the one that the
// message itself carries, without a read; compare-and-set finds out if it is old.
func (w *Worker) position(ctx context.Context, wk *work) (runlog.Head, error) {
	if wk.delivery.Delivered == 1 {
		if seq, err := strconv.ParseUint(wk.delivery.Header.Get(contracts.HeaderLogSequence), 10, 64); err == nil && seq > 0 {
			return runlog.Head{Head: wk.queued.Head(), Sequence: seq}, nil
		}
	}
	return w.leaderHead(ctx, wk.submission.RunID)
}

// leaderHead reads the head where it cannot be stale: an old terminal event
// would have us ack away the work message of a redrive.
func (w *Worker) leaderHead(ctx context.Context, runID string) (runlog.Head, error) {
	last, err := w.runs.LastFromLeader(ctx, runID)
	if err != nil {
		return runlog.Head{}, err
	}
	return last.Head(), nil
}

// claimEvent is the event that a decision makes on top of at.
func (w *Worker) claimEvent(wk *work, at contracts.Head, act action, now time.Time) (contracts.Event, error) {
	var d contracts.Draft
	switch act {
	case actStart:
		started := contracts.Started{
			AgentKey: at.AgentKey, Epoch: at.Epoch + 1, Attempt: at.Attempt + 1, ResumedFrom: at.Checkpoint,
			LeaseToken: wk.delivery.Token(),
		}
		if at.Epoch == 0 {
			started.History = wk.history
		}
		d = contracts.Draft{Type: contracts.TypeStarted, WorkerID: w.cfg.WorkerID, Payload: started}
	case actCancel:
		d = contracts.Draft{Type: contracts.TypeCancelled, Payload: contracts.Cancelled{Reason: "its worker was gone"}}
	case actExhaust:
		d = contracts.Draft{Type: contracts.TypeFailed, Payload: contracts.Failed{Attempts: at.Attempt, ErrorInfo: contracts.ErrorInfo{
			Type:    contracts.ErrorTypeAttemptsExhausted,
			Message: fmt.Sprintf("%d of %d attempts were begun and none came to an end: each time the worker died or was lost", at.Attempt, at.MaxAttempts),
		}}}
	case actLost:
		d = contracts.Draft{Type: contracts.TypeFailed, Payload: contracts.Failed{Attempts: at.Attempt, ErrorInfo: contracts.ErrorInfo{
			Type:    contracts.ErrorTypeCheckpointLost,
			Message: fmt.Sprintf("the state of checkpoint %d has gone, and there is nothing else to go on from: `longhaul redrive %s --from-start` begins anew", at.Checkpoint.N, at.RunID),
		}}}
	case actTimeOut:
		d = contracts.Draft{Type: contracts.TypeTimedOut, Payload: contracts.TimedOut{
			TimeoutSeconds: wk.submission.TimeoutSeconds, StartTimeoutSeconds: wk.submission.StartTimeoutSeconds,
		}}
	default:
		panic(fmt.Sprintf("worker: nothing to append for action %d", act))
	}
	return contracts.Next(at, at.RunID, d, now)
}

// answer logs a failed answer to the broker. Nothing else is to be done about
// one: the lease runs out and the next receiver finds the truth in the log.
func (w *Worker) answer(err error) {
	if err != nil {
		w.log.Warn("work message could not be answered", "error", err)
	}
}
