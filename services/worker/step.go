package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// CompleteStep implements agent.Host. The result stands in the event itself:
// being stored and being committed are one write.
func (h host) CompleteStep(ctx context.Context, done contracts.StepCompleted) error {
	if h.finishing.Load() {
		return errEnded
	}
	if limit := h.worker.payloadLimit() - len(done.Type) - 1024; len(done.Result) > limit { // with room for the name
		return agent.Permanent(fmt.Errorf("result of %d bytes is above the limit of %d: store it elsewhere and return its name", len(done.Result), limit))
	}
	return h.writer.commit(ctx, func(contracts.Head) (contracts.Draft, error) {
		return contracts.Draft{Type: contracts.TypeStepCompleted, Visibility: contracts.VisibilityDebug, Payload: done}, nil
	})
}

// Steps implements agent.Host: it reads the log up to this attempt's own
// run.started. A replica that does not show that one lags, and may not show a
// step either.
func (h host) Steps(ctx context.Context) (map[string]agent.StepRef, error) {
	for {
		steps := map[string]agent.StepRef{}
		for e, err := range h.worker.runs.Read(ctx, h.run.ID, 0) {
			switch {
			case err != nil:
				return nil, err
			case e.Type == contracts.TypeStarted && e.Epoch == h.epoch:
				return steps, nil
			}
			if err := agent.Remember(steps, e.Event, e.Sequence); err != nil {
				return nil, err
			}
		}
		if jsutil.Sleep(ctx, pauseUnavailable); ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// StepAt implements agent.Host.
func (h host) StepAt(ctx context.Context, ref agent.StepRef) (json.RawMessage, error) {
	for {
		e, err := h.worker.runs.Next(ctx, h.run.ID, ref.Sequence)
		switch {
		case err == nil:
			return e.Payload, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case !errors.Is(err, jsutil.ErrUnavailable) && !errors.Is(err, jsutil.ErrNotFound): // the latter from a replica that lags
			return nil, err
		}
		jsutil.Sleep(ctx, pauseUnavailable)
	}
}

// Sleep implements agent.Host.
func (h host) Sleep(s contracts.Sleeping) {
	h.mu.Lock()
	h.sleep = h.sleep.Join(s)
	h.mu.Unlock()
	h.stop(agent.ErrSleeping)
}

// sleeping is the draft of run.sleeping.
func (a *attempt) sleeping() contracts.Draft {
	a.mu.Lock()
	defer a.mu.Unlock()
	return contracts.Draft{Type: contracts.TypeSleeping, NotBefore: a.sleep.WakeAt, WaitsFor: a.sleep.Signal, Payload: a.sleep}
}
