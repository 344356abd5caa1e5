package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
	"unicode/utf8"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// ending is how an agent's Run function came to its end.
type ending struct {
	result    json.RawMessage // the payload of run.succeeded
	err       error
	text      string // of err
	permanent bool   // err is
	stack     string // of a panic
	info      contracts.ErrorInfo
}

// errAbandoned is the error of an agent that has not come to its end: it ignores its context.
var errAbandoned = errors.New("the agent did not return after its context had ended")

// errExited is the error of an agent that has ended its goroutine.
var errExited = errors.New("the agent did not return: it called runtime.Goexit, as t.FailNow does in a test")

// panicError is the error of an agent that panicked.
type panicError struct{ value any }

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// outcome is the event that an ending is worth on top of head, cause being why
// the agent's context ended, if it did.
func (a *attempt) outcome(head contracts.Head, cause error, end ending) (contracts.Draft, error) {
	switch {
	case head.Status.Terminal():
		return contracts.Draft{}, errEnded
	case head.Status == contracts.StatusCancelling:
		// Whatever the agent made of it: the log has promised a cancel.
		return contracts.Draft{Type: contracts.TypeCancelled, Payload: cmp.Or(a.cancelled.Load(), &contracts.Cancelled{})}, nil
	case errors.Is(cause, agent.ErrSleeping):
		return a.sleeping(), nil
	case end.err == nil:
		if limit := a.worker.payloadLimit(); len(end.result) > limit {
			return a.failed(head, contracts.ErrorInfo{Type: contracts.ErrorTypeResultTooLarge, Message: fmt.Sprintf(
				"result of %d bytes is above the limit of %d: store it elsewhere and return its name", len(end.result), limit)}), nil
		}
		return contracts.Draft{Type: contracts.TypeSucceeded, Payload: end.result}, nil
	case errors.Is(cause, agent.ErrTimeout):
		return contracts.Draft{Type: contracts.TypeTimedOut, Payload: contracts.TimedOut{TimeoutSeconds: a.timeout().Seconds()}}, nil
	case errors.Is(cause, agent.ErrShutdown):
		return contracts.Draft{Type: contracts.TypeRequeued, Payload: contracts.Requeued{Reason: contracts.RequeueShutdown, By: a.worker.cfg.WorkerID}}, nil
	}
	return a.failed(head, end.info), nil
}

// failed is run.retrying while an attempt is left and worth it, else run.failed.
func (a *attempt) failed(head contracts.Head, info contracts.ErrorInfo) contracts.Draft {
	info = a.fit(info)
	if !info.Retriable || head.Attempt >= head.MaxAttempts {
		return contracts.Draft{Type: contracts.TypeFailed, Payload: contracts.Failed{ErrorInfo: info, Attempts: head.Attempt}}
	}
	asked := info.RetryAfterSeconds * (1 + rand.Float64()/10) // as in backoff: not all at once
	delay := max(a.worker.backoff(head.Attempt), time.Duration(asked*float64(time.Second)))
	at := time.Now().Add(delay).UTC()
	return contracts.Draft{Type: contracts.TypeRetrying, NotBefore: at, Payload: contracts.Retrying{
		Error: info, DelaySeconds: math.Round(delay.Seconds()*1000) / 1000, RetryAt: at,
	}}
}

// classify describes a failed attempt: as the agent's OnError says, unless it
// failed for a cause that is known, else by the error itself.
func (a *attempt) classify(cause error, end ending) contracts.ErrorInfo {
	if cause == nil && a.work.agent.OnError != nil {
		if info := a.onError(end.err); info != nil {
			return *info
		}
	}
	info := contracts.ErrorInfo{Type: contracts.ErrorTypeAgent, Message: end.text, Stack: end.stack, Retriable: !end.permanent}
	if end.stack != "" {
		info.Type = contracts.ErrorTypePanic
	}
	return info
}

// onError asks the agent; a panic in the asking, no answer within CancelGrace,
// or a lease that is lost meanwhile leaves it to the default.
func (a *attempt) onError(cause error) *contracts.ErrorInfo {
	ctx, cancel := context.WithTimeout(a.writer.ctx, a.worker.cfg.CancelGrace)
	defer cancel()
	var info *contracts.ErrorInfo
	select {
	case <-a.hook("OnError", func() { info = a.work.agent.OnError(ctx, a.run, cause) }):
		return info
	case <-ctx.Done():
		a.log().Error("hook does not return", "hook", "OnError", "grace", a.worker.cfg.CancelGrace)
		return nil
	}
}

// maxErrorText bounds an error's message and its stack in the log, in bytes.
const maxErrorText = 32 << 10

// fit cuts what would not fit into an event.
func (a *attempt) fit(info contracts.ErrorInfo) contracts.ErrorInfo {
	info.Type = contracts.Shorten(info.Type, 256)
	info.RetryAfterSeconds = heeded(info.RetryAfterSeconds)
	info.Message = contracts.Shorten(info.Message, maxErrorText)
	info.Stack = contracts.Shorten(info.Stack, maxErrorText)
	if len(info.Details) > a.worker.payloadLimit()/2 || len(info.Details) > 0 && !(json.Valid(info.Details) && utf8.Valid(info.Details)) {
		info.Details = nil
	}
	return info
}

// succeeded encodes what an agent returned.
func succeeded(r agent.Result) (json.RawMessage, error) {
	p := contracts.Succeeded{FinalMessages: r.FinalMessages}
	var err error
	if p.FinalOutput, err = optional("final_output", r.FinalOutput); err != nil {
		return nil, err
	}
	if p.Usage, err = optional("usage", r.Usage); err != nil {
		return nil, err
	}
	for i, artifact := range r.Artifacts {
		raw, err := optional(fmt.Sprintf("artifacts[%d]", i), artifact)
		if err != nil {
			return nil, err
		}
		p.Artifacts = append(p.Artifacts, raw)
	}
	payload, err := contracts.Encode(p)
	if err != nil {
		return nil, fmt.Errorf("encode the result: %w", err)
	}
	if !utf8.Valid(payload) { // of a json.RawMessage
		return nil, errors.New("encode the result: it is not UTF-8")
	}
	return payload, nil
}

func optional(field string, v any) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	raw, err := contracts.Encode(v)
	if err != nil {
		return nil, fmt.Errorf("encode the result's %s: %w", field, err)
	}
	return raw, nil
}
