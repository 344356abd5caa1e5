package worker

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"longhaul/internal/sabotage"
	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/metrics"
	"longhaul/pkg/runlog"
	"longhaul/pkg/tracing"
)

// attempt is one execution of a run by this worker, from the committed
// run.started to its last event.
type attempt struct {
	worker *Worker
	work   work
	epoch  uint64
	begun  time.Time
	log    *slog.Logger
	run    *agent.Run
	lease  *lease
	writer *writer
	// stop ends the agent's context, with a cause.
	stop context.CancelCauseFunc
	// stopWriting ends the writer's.
	stopWriting context.CancelFunc
	span        tracing.Span

	checkpointMu sync.Mutex // one checkpoint at a time: each takes the next number

	// finishing says that its last event is under way: an end in the log may be
	// its own, whose answer has not arrived. If it is not, the append is refused.
	finishing atomic.Bool
	inside    atomic.Int32 // of the agent's functions have not returned
	parted    atomic.Bool  // see part
	fenced    atomic.Bool  // counted as such

	mu         sync.Mutex
	reason, by string             // of a cancel
	sleep      contracts.Sleeping // what the agent asked for
	nextBeat   time.Time
	nextEvent  time.Time
	beating    bool
}

// execute runs the agent and brings its end into the log. The returned channel,
// if not nil, closes when an abandoned agent has returned after all.
func (w *Worker) execute(wk work, at runlog.Head, state *contracts.State) <-chan struct{} {
	// The agent's context does not come from the worker's: a drain ends it
	// later, and every end has its cause.
	ctx, span := w.cfg.Tracer.Attempt(context.Background(), tracing.Start{Submission: &wk.submission, Head: at.Head, TookOver: wk.tookOver, Log: w.runs})
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	writing, stopWriting := context.WithCancel(context.Background())
	defer stopWriting()
	now := time.Now()
	a := &attempt{
		worker: w, work: wk, epoch: at.Epoch, begun: now, lease: newLease(wk.delivery),
		log: wk.log.With("attempt", at.Attempt, "epoch", at.Epoch), stop: stop, stopWriting: stopWriting, span: span,
		writer: newWriter(writing, w.runs, at),
	}
	a.writer.cancelRequested = a.cancelledElsewhere
	a.writer.fenced = a.loseLease
	a.scheduleBeats(now)
	a.run = agent.NewRun(ctx, agent.Start{
		Submission: wk.submission, Attempt: at.Attempt, MaxAttempts: at.MaxAttempts, Epoch: at.Epoch,
		State: state, History: wk.history, Usage: at.Usage, Host: host{a}, Log: a.log,
	})
	a.writer.usage = a.run.Usage
	if !w.hold(a) {
		stop(agent.ErrShutdown) // the drain's last call came before us
	}
	defer w.letGo(a)
	timeout := time.AfterFunc(a.timeout(), func() { stop(agent.ErrTimeout) })
	defer timeout.Stop()

	returned := make(chan ending, 1)
	gone := make(chan struct{})
	a.inside.Add(1)
	go func() {
		defer close(gone)
		end := a.call(ctx)
		a.inside.Add(-1)
		returned <- end
		a.part()
	}()
	end := a.await(ctx, returned)
	abandoned := end.err == errAbandoned //nolint:errorlint // ours, not one that an agent returned
	if abandoned {
		w.counts.AbandonedTotal.Add(1)
		w.counts.Abandoned.Add(1)
		a.part()
	}
	timeout.Stop()
	a.finish(context.Cause(ctx), end)
	if abandoned {
		a.log.Error("agent ignores its context, its slot is lost until it returns", "grace", w.cfg.CancelGrace)
		return gone
	}
	return nil
}

// part is called when the agent is abandoned and when it has returned; the
// second of the two, in whichever order, takes it off the count again.
func (a *attempt) part() {
	if a.parted.Swap(true) {
		a.worker.counts.Abandoned.Add(-1)
	}
}

func (a *attempt) timeout() time.Duration {
	if s := a.work.submission.TimeoutSeconds; s > 0 {
		return time.Duration(s * float64(time.Second))
	}
	return a.worker.cfg.RunTimeout
}

// call calls the agent, encodes what it returns, and turns a panic into an error.
func (a *attempt) call(ctx context.Context) (end ending) {
	defer func() {
		if v := recover(); v != nil {
			err := &panicError{v}
			end = ending{err: err, text: err.Error(), stack: string(debug.Stack())}
		}
	}()
	result, err := a.work.agent.Run(ctx, a.run)
	if err == nil {
		err = a.run.Unasked()
	}
	if err == nil {
		if used := a.run.Usage(); result.Usage == nil && used != (agent.Usage{}) {
			result.Usage = used
		}
		end.result, err = succeeded(result)
		err = agent.Permanent(err)
	}
	if err != nil { // looked at in here, for what an agent hands over may panic too
		end = ending{err: err, text: err.Error(), permanent: agent.IsPermanent(err)}
	}
	return end
}

// await waits for the agent. From the end of its context on it has CancelGrace.
func (a *attempt) await(ctx context.Context, returned <-chan ending) ending {
	select {
	case end := <-returned:
		return end
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), a.worker.cfg.CancelGrace)
	defer cancel()
	hook := a.hook("Cancel", func() {
		if a.work.agent.Cancel != nil && errors.Is(context.Cause(ctx), agent.ErrCancelled) {
			a.work.agent.Cancel(grace, a.run)
		}
	})
	end := ending{err: errAbandoned, text: errAbandoned.Error()}
	select {
	case end = <-returned:
	case <-grace.Done():
		select { // both may be ready; an agent that came back is not abandoned
		case end = <-returned:
		default:
		}
	}
	select {
	case <-hook:
	case <-grace.Done():
	}
	return end
}

// hook calls one of the agent's other functions. The channel closes when it has
// returned, or panicked; it may do neither.
func (a *attempt) hook(name string, call func()) <-chan struct{} {
	over := make(chan struct{})
	a.inside.Add(1)
	go func() {
		defer close(over)
		defer a.inside.Add(-1)
		defer func() {
			if v := recover(); v != nil {
				a.log.Error("hook panicked", "hook", name, "panic", v, "stack", string(debug.Stack()))
			}
		}()
		call()
	}()
	return over
}

// finish writes the attempt's last event and answers the work message.
func (a *attempt) finish(cause error, end ending) {
	if errors.Is(cause, agent.ErrLeaseLost) {
		a.ended(metrics.OutcomeFenced, end)
		a.log.Warn("lease lost, nothing more is written")
		return
	}
	if end.err != nil {
		end.info = a.classify(cause, end) // by the agent, so that it is asked now, under the lease
	}
	a.finishing.Store(true)
	a.stop(nil) // for what the agent has left behind
	err := a.writer.commit(context.Background(), func(head contracts.Head) (contracts.Draft, error) {
		return a.outcome(head, cause, end)
	})
	// Before the answer: a message given back may be here again at once, and
	// must not be taken for the attempt that has just ended.
	a.worker.letGo(a)
	if err != nil {
		a.ended(metrics.OutcomeUnwritten, end)
		a.log.Warn("last event could not be written, the lease decides", "error", err)
		return
	}
	head := a.writer.head()
	a.ended(metrics.OutcomeOf(head.Status, errors.Is(cause, agent.ErrShutdown)), end)
	level := slog.LevelInfo
	if head.Status == contracts.StatusFailed || head.Status == contracts.StatusTimedOut {
		level = slog.LevelWarn
	}
	attrs := []any{"status", head.Status, "duration", time.Since(a.begun)}
	if end.err != nil {
		attrs = append(attrs, "error", contracts.Shorten(end.text, 1024))
	}
	a.log.Log(context.Background(), level, "attempt ended", attrs...)
	a.worker.answer(a.answer(head.Head, time.Now()))
}

// ended counts what became of the attempt, and says it on its span.
func (a *attempt) ended(outcome string, end ending) {
	a.worker.counts.Ended(a.work.agent.Key, outcome, a.begun, a.work.due)
	a.span.EndAttempt(outcome, end.text)
}

// answer disposes of the work message by what the log says now: a run that has
// ended needs it no more, one that waits again needs it then.
func (a *attempt) answer(head contracts.Head, now time.Time) error {
	d := a.lease.current()
	if head.Status == contracts.StatusPending {
		if sabotage.Broken(sabotage.NotBefore) {
			now = head.NotBefore
		}
		// Never a Nak without a delay: the broker keeps such a one in memory
		// alone, and one that is stopped next would hold the run for the lease.
		return d.Nak(max(time.Millisecond, head.NotBefore.Sub(now)))
	}
	return d.Ack()
}

// cancel writes run.cancel_requested in our own turn and ends the agent's
// context. It reports an error if the run has ended, or is lost.
func (a *attempt) cancel(reason, by string) error {
	seen := time.Now()
	err := a.writer.commit(context.Background(), func(head contracts.Head) (contracts.Draft, error) {
		switch {
		case head.Status == contracts.StatusCancelling:
			return contracts.Draft{}, errCancelling
		case head.Status != contracts.StatusRunning:
			return contracts.Draft{}, errEnded
		}
		a.mu.Lock()
		a.reason, a.by = reason, by
		a.mu.Unlock()
		return contracts.Draft{Type: contracts.TypeCancelRequested, Payload: contracts.CancelRequested{Reason: reason, By: by}}, nil
	})
	if err != nil && !errors.Is(err, errCancelling) {
		return err
	}
	a.stop(agent.ErrCancelled)
	a.worker.counts.Cancelled(seen)
	return nil
}

// cancelledElsewhere ends the agent's context because the log, whose last entry
// is given, says cancelling, and not by our hand.
func (a *attempt) cancelledElsewhere(last runlog.Entry) {
	var p contracts.CancelRequested
	if last.Type == contracts.TypeCancelRequested && json.Unmarshal(last.Payload, &p) == nil {
		a.mu.Lock()
		a.reason, a.by = p.Reason, p.By
		a.mu.Unlock()
	}
	a.stop(agent.ErrCancelled)
}

// errCancelling says that a cancel is already in the log.
var errCancelling = errors.New("the run is being cancelled already")

func (a *attempt) cancelReason() (reason, by string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reason, a.by
}

// loseLease ends the attempt without a trace.
func (a *attempt) loseLease() {
	if sabotage.Broken(sabotage.Fencing) {
		return
	}
	if !a.fenced.Swap(true) {
		a.worker.counts.Fenced.Add(1)
	}
	a.stop(agent.ErrLeaseLost)
	a.stopWriting()
}

// lost reports whether the lease is, though the agent may not have returned yet.
func (a *attempt) lost() bool { return a.writer.ctx.Err() != nil }
