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
	work   *work
	epoch  uint64
	begun  time.Time
	log    func() *slog.Logger // like wk.log, and says which attempt it is
	run    *agent.Run
	lease  *lease
	writer *writer
	ctx    context.Context //nolint:containedctx // the agent's
	// cancelAgent ends it, with a cause; stop is who calls it.
	cancelAgent context.CancelCauseFunc
	// stopWriting ends the writer's context.
	stopWriting context.CancelFunc
	timer       *time.Timer   // of the run's timeout
	returned    chan struct{} // closed when the agent has
	watch       sync.Once
	watching    sync.WaitGroup
	over        func() // called once the attempt is
	span        tracing.Span

	checkpointMu sync.Mutex // one checkpoint at a time: each takes the next number

	// finishing says that its last event is under way: an end in the log may be
	// its own, whose answer has not arrived. If it is not, the append is refused.
	finishing atomic.Bool
	inside    atomic.Int32 // of the agent's functions have not returned
	fenced    atomic.Bool  // counted as such

	cancelled atomic.Pointer[contracts.Cancelled] // why and by whom, if that is known

	mu        sync.Mutex
	back      bool               // the agent has returned
	abandoned bool               // see bringBack
	sleep     contracts.Sleeping // what the agent asked for
	nextBeat  time.Time
	nextEvent time.Time
	beating   bool
}

// execute runs the agent and brings its end into the log; then it calls over. It
// returns when the agent has, which may be later, if that ignores its context.
func (w *Worker) execute(wk *work, over func()) {
	// The agent's context does not come from the worker's: a drain ends it
	// later, and every end has its cause.
	ctx, span := w.cfg.Tracer.Attempt(context.Background(), tracing.Start{Submission: &wk.submission, Head: wk.at.Head, TookOver: wk.tookOver, Log: w.runs})
	ctx, cancelAgent := context.WithCancelCause(ctx)
	writing, stopWriting := context.WithCancel(context.Background())
	a := &attempt{
		worker: w, work: wk, epoch: wk.at.Epoch, begun: time.Now(), lease: newLease(wk.delivery),
		ctx: ctx, cancelAgent: cancelAgent, stopWriting: stopWriting, returned: make(chan struct{}), over: over, span: span,
		writer: newWriter(writing, w.runs, wk.at),
		log:    sync.OnceValue(func() *slog.Logger { return wk.log().With("attempt", wk.at.Attempt, "epoch", wk.at.Epoch) }),
	}
	a.writer.cancelRequested = a.cancelledElsewhere
	a.writer.fenced = a.loseLease
	a.scheduleBeats(a.begun)
	a.run = agent.NewRun(ctx, agent.Start{
		Submission: wk.submission, Attempt: wk.at.Attempt, MaxAttempts: wk.at.MaxAttempts, Epoch: wk.at.Epoch,
		State: wk.state, History: wk.history, Usage: wk.at.Usage, Host: host{a}, Log: a.log,
	})
	a.writer.usage = a.run.Usage
	a.mu.Lock() // nobody watches it, and may let it go, before it is held
	a.timer = time.AfterFunc(a.timeout(), func() { a.stop(agent.ErrTimeout) })
	open := w.hold(a)
	a.mu.Unlock()
	if !open {
		a.stop(agent.ErrShutdown) // the drain's last call came before us
	}

	a.inside.Add(1)
	end := ending{err: errExited, text: errExited.Error()}
	defer func() { // which is all that is left of a goroutine that the agent ends
		a.inside.Add(-1)
		a.mu.Lock()
		a.back = true
		a.mu.Unlock()
		close(a.returned)
		if a.watching.Wait(); a.abandoned {
			w.counts.Abandoned.Add(-1)
			return
		}
		a.conclude(end)
	}()
	end = a.call(ctx)
}

// stop ends the agent's context, with a cause, and has the agent watched from then
// on: also one that is so quick to obey that it has returned by then.
func (a *attempt) stop(cause error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cancelAgent(cause)
	if !a.back {
		a.watch.Do(func() { a.watching.Go(a.bringBack) })
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

// bringBack gives an agent whose context has ended CancelGrace to return. One that
// does not is abandoned: the attempt goes on to its end without it.
func (a *attempt) bringBack() {
	grace, cancel := context.WithTimeout(context.Background(), a.worker.cfg.CancelGrace)
	defer cancel()
	hook := a.hook("Cancel", func() {
		if a.work.agent.Cancel != nil && errors.Is(context.Cause(a.ctx), agent.ErrCancelled) {
			a.work.agent.Cancel(grace, a.run)
		}
	})
	for _, returned := range []<-chan struct{}{a.returned, hook} {
		select {
		case <-returned:
		case <-grace.Done():
		}
	}
	a.mu.Lock()
	a.abandoned = !a.back
	a.mu.Unlock()
	if a.abandoned {
		a.worker.counts.AbandonedTotal.Add(1)
		a.worker.counts.Abandoned.Add(1)
		a.conclude(ending{err: errAbandoned, text: errAbandoned.Error()})
		a.log().Error("agent ignores its context, its slot is lost until it returns", "grace", a.worker.cfg.CancelGrace)
	}
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
				a.log().Error("hook panicked", "hook", name, "panic", v, "stack", string(debug.Stack()))
			}
		}()
		call()
	}()
	return over
}

// conclude ends the attempt, once, with what the agent came to.
func (a *attempt) conclude(end ending) {
	defer a.over()
	defer a.stopWriting()
	defer a.worker.letGo(a)
	a.timer.Stop()
	a.finish(context.Cause(a.ctx), end)
}

// finish writes the attempt's last event and answers the work message.
func (a *attempt) finish(cause error, end ending) {
	if errors.Is(cause, agent.ErrLeaseLost) {
		a.ended(metrics.OutcomeFenced, end)
		a.log().Warn("lease lost, nothing more is written")
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
		a.log().Warn("last event could not be written, the lease decides", "error", err)
		return
	}
	head := a.writer.head()
	a.ended(metrics.OutcomeOf(head.Status, errors.Is(cause, agent.ErrShutdown)), end)
	level := slog.LevelInfo
	if head.Status == contracts.StatusFailed || head.Status == contracts.StatusTimedOut {
		level = slog.LevelWarn
	}
	if a.worker.log.Enabled(context.Background(), level) {
		attrs := []any{"status", head.Status, "duration", time.Since(a.begun)}
		if end.err != nil {
			attrs = append(attrs, "error", contracts.Shorten(end.text, 1024))
		}
		a.log().Log(context.Background(), level, "attempt ended", attrs...)
	}
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
		a.cancelled.Store(&contracts.Cancelled{Reason: reason, By: by})
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
	var p contracts.Cancelled // is what was requested
	if last.Type == contracts.TypeCancelRequested && json.Unmarshal(last.Payload, &p) == nil {
		a.cancelled.Store(&p)
	}
	a.stop(agent.ErrCancelled)
}

// errCancelling says that a cancel is already in the log.
var errCancelling = errors.New("the run is being cancelled already")

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
