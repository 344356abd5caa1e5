package agenttest

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// attempt is one attempt of a Trial, and its agent's Host. Its fields are under
// the trial's mu, but for those that are set before the agent is called.
type attempt struct {
	trial *Trial
	run   *agent.Run
	log   *slog.Logger
	ctx   context.Context //nolint:containedctx // the attempt's own
	stop  context.CancelCauseFunc
	began uint64 // seq of its run.started
	hooks sync.WaitGroup

	dead  bool // the script has its worker die
	sleep contracts.Sleeping
}

// report appends an event of the agent's, and asks the script about it.
func (a *attempt) report(d contracts.Draft) error {
	t := a.trial
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.dead {
		return errDead
	}
	if a.run != nil {
		d.Usage = a.run.Usage()
	}
	e, err := contracts.Next(t.head, t.sub.RunID, d, time.Now())
	if err != nil {
		return err
	}
	if t.Before != nil {
		if a.act(t.Before(e)); a.dead {
			return errDead
		}
		if e, err = contracts.Next(t.head, t.sub.RunID, d, time.Now()); err != nil { // a cancel came first
			return err
		}
	}
	t.head, t.events = e.Head(), append(t.events, e)
	if t.After != nil {
		a.act(t.After(e))
	}
	return nil
}

// maxPayload is how large anything may be that is stored, in bytes: what a
// broker takes by default in one message, less what is added to it.
const maxPayload = 1<<20 - 5<<10

func fits(what string, data []byte) error {
	if len(data) > maxPayload {
		return agent.Permanent(fmt.Errorf("%s of %d bytes is above the limit of %d: store it elsewhere and return its name", what, len(data), maxPayload))
	}
	return nil
}

// act does what the script says, under mu.
func (a *attempt) act(act Act) {
	switch act {
	case Crash:
		a.dead = true
		a.stop(errDead)
	case Shutdown:
		a.stop(agent.ErrShutdown)
	case Cancel:
		if a.trial.append(contracts.Draft{Type: contracts.TypeCancelRequested}) != nil {
			return // it is being cancelled already
		}
		a.stop(agent.ErrCancelled)
		if hook := a.trial.agent.Cancel; hook != nil {
			a.hooks.Go(func() { hook(context.WithoutCancel(a.ctx), a.run) })
		}
	}
}

// Emit implements agent.Host.
func (a *attempt) Emit(_ context.Context, t contracts.EventType, v contracts.Visibility, payload json.RawMessage) error {
	if err := fits("payload", payload); err != nil {
		return err
	}
	return a.report(contracts.Draft{Type: t, Visibility: v, Payload: payload})
}

// Delta implements agent.Host.
func (a *attempt) Delta(_ context.Context, text string) error {
	return a.report(contracts.Draft{Type: contracts.TypeDelta, Payload: contracts.Delta{Text: text}})
}

// Checkpoint implements agent.Host.
func (a *attempt) Checkpoint(ctx context.Context, state contracts.State) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := fits("state", state.Data); err != nil {
		return err
	}
	a.trial.mu.Lock()
	a.trial.states = append(a.trial.states, state)
	ref := contracts.CheckpointRef{N: 1, Epoch: a.trial.head.Epoch, Revision: uint64(len(a.trial.states))}
	if last := a.trial.head.Checkpoint; last != nil {
		ref.N = last.N + 1
	}
	a.trial.mu.Unlock()
	payload := contracts.Checkpointed{N: ref.N, Size: len(state.Data)}
	if state.Binary {
		payload.Binary = state.Data
	} else {
		payload.State = state.Data
	}
	return a.report(contracts.Draft{Type: contracts.TypeCheckpoint, Checkpoint: &ref, Payload: payload})
}

// CompleteStep implements agent.Host.
func (a *attempt) CompleteStep(ctx context.Context, done contracts.StepCompleted) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := fits("result", done.Result); err != nil {
		return err
	}
	return a.report(contracts.Draft{Type: contracts.TypeStepCompleted, Visibility: contracts.VisibilityDebug, Payload: done})
}

// Steps implements agent.Host.
func (a *attempt) Steps(context.Context) (map[string]agent.StepRef, error) {
	steps := map[string]agent.StepRef{}
	for _, e := range a.trial.Events()[:a.began] {
		if err := agent.Remember(steps, e, e.Seq); err != nil {
			return nil, err
		}
	}
	return steps, nil
}

// StepAt implements agent.Host.
func (a *attempt) StepAt(_ context.Context, ref agent.StepRef) (json.RawMessage, error) {
	return a.trial.Events()[ref.Sequence-1].Payload, nil
}

// Sleep implements agent.Host.
func (a *attempt) Sleep(s contracts.Sleeping) {
	a.trial.mu.Lock()
	defer a.trial.mu.Unlock()
	a.sleep = a.sleep.Join(s)
	a.stop(agent.ErrSleeping)
}
