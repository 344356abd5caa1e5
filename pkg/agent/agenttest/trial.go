// Package agenttest tries agents out in plain tests.
//
// A Trial is one run without a broker: its log, made by the rules of the real
// one, is in memory, and a script says when the run is cancelled or its worker
// dies. It waits by the clock of the time package; in a bubble of
// testing/synctest hours of sleep pass at once. Package live hosts agents on
// the real services with an embedded broker.
package agenttest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/schema"
	"longhaul/pkg/contracts"
)

// RunID is the id of a Trial's run, unless its submission has another.
const RunID = "0198c0de-7a11-7abc-8def-0123456789ab"

// Act is what a script has happen at an event.
type Act int

// What can happen.
const (
	GoOn     Act = iota
	Crash        // the worker dies: nothing that the attempt does from here on is seen
	Cancel       // somebody cancels the run
	Shutdown     // the worker drains: the attempt ends without being charged
)

// Trial is one run of an agent. Set its fields before the first attempt.
type Trial struct {
	// Before is asked before an event is committed; a Crash then loses it.
	// After is asked when it is. They are called one at a time.
	Before, After func(e contracts.Event) Act
	// History is what was said in the run's conversation before it.
	History []contracts.Message
	// Log is the agent's logger; nowhere unless set.
	Log *slog.Logger

	agent agent.Agent
	sub   contracts.Submission

	mu     sync.Mutex
	head   contracts.Head
	events []contracts.Event
	states []contracts.State // by revision - 1
}

// Outcome is how a run ended, or where it stands.
type Outcome struct {
	Status contracts.Status
	contracts.Succeeded
	Error  contracts.ErrorInfo // of the last attempt that failed
	Spent  agent.Usage         // by the run so far
	Faults contracts.Faults    // of a rejected one
}

// Output decodes the final output into T.
func Output[T any](o Outcome) (v T, err error) {
	if o.Status != contracts.StatusSucceeded {
		return v, fmt.Errorf("the run is %s: %s: %s", o.Status, o.Error.Type, o.Error.Message)
	}
	return v, json.Unmarshal(o.FinalOutput, &v)
}

// New submits a run to an agent. What the submission leaves out is filled in
// as a dispatcher would; without a timeout it has none.
func New(a agent.Agent, s contracts.Submission) *Trial {
	s.AgentKey, s.RunID = a.Key, cmp.Or(s.RunID, RunID)
	s.Priority, s.MaxAttempts = cmp.Or(s.Priority, contracts.PriorityNormal), cmp.Or(s.MaxAttempts, contracts.DefaultMaxAttempts)
	return &Trial{agent: a, sub: s}
}

// Params is a submission with these params, anything that encodes as JSON. It
// panics if they do not.
func Params(v any) contracts.Submission {
	raw, err := contracts.Encode(v)
	if err != nil {
		panic(fmt.Sprintf("agenttest: encode the params: %v", err))
	}
	return contracts.Submission{Input: contracts.Input{Params: raw}}
}

// Run makes attempts until the run has ended: it waits while the run sleeps,
// does not wait to retry, and takes over from a worker that has died. If ctx
// ends first the run stays where it is.
func (t *Trial) Run(ctx context.Context) Outcome {
	for o := t.Outcome(); ; o = t.Attempt(ctx) {
		if o.Status.Terminal() || ctx.Err() != nil {
			return o
		}
	}
}

// Attempt makes one attempt, if need be after waiting until the run wakes up.
func (t *Trial) Attempt(ctx context.Context) Outcome {
	if err := t.begin(ctx); err != nil {
		if ctx.Err() == nil {
			panic("agenttest: " + err.Error()) // the agent is not well defined
		}
		return t.Outcome()
	}
	t.mu.Lock()
	at := t.head
	t.mu.Unlock()
	if !at.Status.Held() {
		return t.Outcome() // it has ended without an attempt
	}
	log := t.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a := &attempt{trial: t, began: at.Seq, log: log.With("run_id", at.RunID, "attempt", at.Attempt)}
	a.ctx, a.stop = context.WithCancelCause(ctx)
	defer a.stop(nil)
	limited := a.ctx
	if s := t.sub.TimeoutSeconds; s > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeoutCause(a.ctx, time.Duration(s*float64(time.Second)), agent.ErrTimeout)
		defer cancel()
	}
	start := agent.Start{Submission: t.sub, Attempt: at.Attempt, MaxAttempts: at.MaxAttempts, Epoch: at.Epoch,
		History: t.History, Usage: at.Usage, Host: a, Log: func() *slog.Logger { return a.log }}
	if at.Checkpoint != nil {
		start.State = &t.states[at.Checkpoint.Revision-1]
	}
	a.run = agent.NewRun(limited, start)
	a.end(limited, a.call(limited))
	return t.Outcome()
}

// begin brings the run to run.started, or to an end without it.
func (t *Trial) begin(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.head.Seq == 0 {
		first := contracts.Draft{Type: contracts.TypeQueued, AgentKey: t.sub.AgentKey, Priority: t.sub.Priority, MaxAttempts: t.sub.MaxAttempts,
			Payload: contracts.Queued{Submission: t.sub, SubmittedAt: now.UTC()}}
		input, err := schema.Compile(t.agent.InputSchema)
		if err != nil {
			return fmt.Errorf("input schema: %w", err)
		}
		if faults := input.Check(t.sub.Input.Params, "input.params"); len(faults) > 0 {
			first.Type, first.Payload = contracts.TypeRejected, contracts.Rejected{Errors: faults}
		}
		if err := t.append(first); err != nil {
			return err
		}
	}
	if wait := t.head.NotBefore.Sub(now); wait > 0 {
		t.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		t.mu.Lock()
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case t.head.Status.Terminal():
		return nil
	case t.head.Status == contracts.StatusCancelling:
		return t.append(contracts.Draft{Type: contracts.TypeCancelled})
	case t.head.Attempt >= t.head.MaxAttempts:
		return t.append(contracts.Draft{Type: contracts.TypeFailed, Payload: contracts.Failed{Attempts: t.head.Attempt,
			ErrorInfo: contracts.ErrorInfo{Type: contracts.ErrorTypeAttemptsExhausted, Message: "each time the worker died"}}})
	}
	return t.append(contracts.Draft{Type: contracts.TypeStarted, WorkerID: "w-trial", Payload: contracts.Started{
		AgentKey: t.head.AgentKey, Epoch: t.head.Epoch + 1, Attempt: t.head.Attempt + 1, ResumedFrom: t.head.Checkpoint}})
}

// append commits an event, under mu.
func (t *Trial) append(d contracts.Draft) error {
	e, err := contracts.Next(t.head, t.sub.RunID, d, time.Now())
	if err == nil {
		t.head, t.events = e.Head(), append(t.events, e)
	}
	return err
}

// Cancel cancels the run while no attempt of it is under way: while it sleeps,
// or between two attempts. A script's Cancel does so in the midst of one.
func (t *Trial) Cancel() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.append(contracts.Draft{Type: contracts.TypeCancelled})
}

// Signal gives the run a signal while no attempt of it is under way, and after
// its first one: while it waits for it, or before. Payload is anything that
// encodes as JSON.
func (t *Trial) Signal(name string, payload any) error {
	raw, err := contracts.Encode(payload)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.append(contracts.Signalled{Name: name, Payload: raw, By: "trial"}.Draft(t.head))
}

// WaitsFor returns the name of the signal that the run waits for, "" if it waits for none.
func (t *Trial) WaitsFor() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.head.WaitsFor
}

// Confirm answers for a call of a tool that asks first, by the call's id, as Signal gives a signal.
func (t *Trial) Confirm(callID string, answer contracts.Confirmation) error {
	return t.Signal(contracts.ConfirmSignal(callID), answer)
}

// Redrive begins a new round of a run that failed, timed out or was cancelled.
func (t *Trial) Redrive(fromStart bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.append(contracts.Draft{Type: contracts.TypeRequeued, FromStart: fromStart,
		Payload: contracts.Requeued{Reason: contracts.RequeueRedrive, FromStart: fromStart}})
}

// Deploy has the attempts from now on made by other code.
func (t *Trial) Deploy(a agent.Agent) { t.agent = a }

// Events returns the run's log.
func (t *Trial) Events() []contracts.Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.events)
}

// Types returns the types of the run's events.
func (t *Trial) Types() []contracts.EventType {
	var types []contracts.EventType
	for _, e := range t.Events() {
		types = append(types, e.Type)
	}
	return types
}

// Outcome says how the run ended, or where it stands.
func (t *Trial) Outcome() Outcome {
	o := Outcome{}
	for _, e := range t.Events() {
		o.Status, o.Spent = e.Status, e.Usage
		var retrying contracts.Retrying
		var rejected contracts.Rejected
		switch e.Type { // of what this package has written itself nothing fails to decode
		case contracts.TypeRetrying:
			_ = json.Unmarshal(e.Payload, &retrying)
			o.Error = retrying.Error
		case contracts.TypeFailed:
			_ = json.Unmarshal(e.Payload, &o.Error)
		case contracts.TypeSucceeded:
			_ = json.Unmarshal(e.Payload, &o.Succeeded)
		case contracts.TypeRejected:
			_ = json.Unmarshal(e.Payload, &rejected)
			o.Faults = rejected.Errors
		}
	}
	return o
}

// At returns a script that has something happen at the first event of the
// type; of step.completed, at that of the step named, if one is named.
func At(act Act, eventType contracts.EventType, step string) func(contracts.Event) Act {
	happened := false
	return func(e contracts.Event) Act {
		var p struct{ Name string }
		if happened || e.Type != eventType || step != "" && (json.Unmarshal(e.Payload, &p) != nil || p.Name != step) {
			return GoOn
		}
		happened = true
		return act
	}
}

var errDead = fmt.Errorf("%w: the script has the worker die", agent.ErrLeaseLost)

// call calls the agent.
func (a *attempt) call(ctx context.Context) (end ending) {
	defer func() {
		if v := recover(); v != nil {
			end = ending{err: fmt.Errorf("panic: %v", v), stack: string(debug.Stack())}
		}
	}()
	end.result, end.err = a.trial.agent.Run(ctx, a.run)
	if end.err == nil {
		end.err = a.run.Unasked()
	}
	return end
}

// ending is what an agent's Run came to.
type ending struct {
	result agent.Result
	err    error
	stack  string
}

// end writes the attempt's last event, by the rules of the worker.
func (a *attempt) end(ctx context.Context, end ending) {
	a.hooks.Wait()
	a.trial.mu.Lock()
	defer a.trial.mu.Unlock()
	if a.dead {
		return // the next attempt takes over
	}
	var d contracts.Draft
	switch cause := context.Cause(ctx); {
	case a.trial.head.Status == contracts.StatusCancelling:
		d.Type = contracts.TypeCancelled
	case errors.Is(cause, agent.ErrSleeping):
		d = contracts.Draft{Type: contracts.TypeSleeping, NotBefore: a.sleep.WakeAt, WaitsFor: a.sleep.Signal, Payload: a.sleep}
	case end.err == nil:
		d = a.succeeded(end)
	case errors.Is(cause, agent.ErrTimeout):
		d = contracts.Draft{Type: contracts.TypeTimedOut, Payload: contracts.TimedOut{TimeoutSeconds: a.trial.sub.TimeoutSeconds}}
	case errors.Is(cause, agent.ErrShutdown):
		d = contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueShutdown}}
	default:
		d = a.failed(end)
	}
	d.Usage = a.run.Usage()
	if err := a.trial.append(d); err != nil {
		panic(fmt.Sprintf("agenttest: the attempt's last event does not follow: %v", err))
	}
}

// succeeded is run.succeeded, or the failure of a result that is no JSON or too large.
func (a *attempt) succeeded(end ending) contracts.Draft {
	p := contracts.Succeeded{FinalMessages: end.result.FinalMessages}
	var err error
	encode := func(v any) (raw json.RawMessage) {
		if err == nil {
			raw, err = contracts.Encode(v)
		}
		return raw
	}
	if end.result.FinalOutput != nil {
		p.FinalOutput = encode(end.result.FinalOutput)
	}
	if used := a.run.Usage(); end.result.Usage != nil {
		p.Usage = encode(end.result.Usage)
	} else if used != (agent.Usage{}) {
		p.Usage = encode(used)
	}
	for _, artifact := range end.result.Artifacts {
		p.Artifacts = append(p.Artifacts, encode(artifact))
	}
	if whole := encode(p); err != nil {
		return a.failed(ending{err: agent.Permanent(fmt.Errorf("encode the result: %w", err))})
	} else if err := fits("result", whole); err != nil {
		return contracts.Draft{Type: contracts.TypeFailed, Payload: contracts.Failed{Attempts: a.trial.head.Attempt,
			ErrorInfo: contracts.ErrorInfo{Type: contracts.ErrorTypeResultTooLarge, Message: err.Error()}}}
	}
	return contracts.Draft{Type: contracts.TypeSucceeded, Payload: p}
}

func (a *attempt) failed(end ending) contracts.Draft {
	info := contracts.ErrorInfo{Type: contracts.ErrorTypeAgent, Message: end.err.Error(), Stack: end.stack, Retriable: !agent.IsPermanent(end.err)}
	if end.stack != "" {
		info.Type = contracts.ErrorTypePanic
	}
	if a.trial.agent.OnError != nil {
		if own := a.trial.agent.OnError(context.Background(), a.run, end.err); own != nil {
			info = *own
		}
	}
	if head := a.trial.head; !info.Retriable || head.Attempt >= head.MaxAttempts {
		return contracts.Draft{Type: contracts.TypeFailed, Payload: contracts.Failed{ErrorInfo: info, Attempts: head.Attempt}}
	}
	now := time.Now().UTC()
	return contracts.Draft{Type: contracts.TypeRetrying, NotBefore: now, Payload: contracts.Retrying{Error: info, RetryAt: now}}
}
