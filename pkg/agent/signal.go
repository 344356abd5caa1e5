package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"longhaul/pkg/contracts"
)

// ErrSignalTimeout is in the error of a Wait whose time was over.
var ErrSignalTimeout = errors.New("no signal came in time")

// Received is a signal that has come.
type Received struct {
	Payload json.RawMessage // whatever its sender gave along, nil if nothing
	By      string          // who sent it, as the sender says
}

// Wait returns the signal of this name (longhaul signal, client.Signal), or an
// error that is ErrSignalTimeout if none has come within timeout since the run
// first came here. It holds no worker meanwhile: like Sleep it ends the attempt,
// and the agent returns the error that it gets, whatever timeout is. The agent
// is called again when the signal has come, or the time is over.
//
// A name, 1 to 100 bytes, stands for one signal of the run. A signal may come
// before the run waits for it, from its submission on; of several of one name
// the first one counts, also for a Wait in a later attempt. What Wait has come
// to is remembered like a step, the timeout too: no later attempt sees anything
// else, and a signal that comes later changes nothing. A redrive from the start
// forgets it. Waits of different names may go on in parallel.
func Wait(ctx context.Context, run *Run, name string, timeout time.Duration) (Received, error) {
	w, err := run.await(ctx, name, timeout, func(time.Time) error { return nil })
	if err != nil {
		return Received{}, err
	}
	return run.hear(ctx, w)
}

// Signal is Wait for a payload of type T, none being T's zero value. A payload
// that is no T is a permanent error that names what is wrong with it.
func Signal[T any](ctx context.Context, run *Run, name string, timeout time.Duration) (v T, err error) {
	got, err := Wait(ctx, run, name, timeout)
	if err == nil {
		err = decodeStrictly("payload", got.Payload, &v)
	}
	if err != nil {
		var zero T
		return zero, fmt.Errorf("signal %q: %w", name, err)
	}
	return v, nil
}

// awaited is what a Wait came to, as it is remembered.
type awaited struct {
	TimedOut bool `json:"timed_out,omitempty"`
	contracts.Signalled
}

// word is a signal that a run waits for.
type word struct {
	name     string
	deadline time.Time
}

// await fixes until when a signal is waited for, once: it is the first of two steps
// under names of their own. Once it is known ask is called: before that is
// remembered, so perhaps again after a crash.
func (r *Run) await(ctx context.Context, name string, timeout time.Duration, ask func(deadline time.Time) error) (word, error) {
	deadline, err := Step(ctx, r, "wait:"+name, func(context.Context) (time.Time, error) {
		if err := (contracts.SignalCommand{Name: name}).Check().Err(); err != nil {
			return time.Time{}, Permanent(err)
		}
		deadline := time.Now().Add(min(timeout, longestWait)).UTC()
		return deadline, ask(deadline)
	})
	return word{name, deadline}, err
}

// spoken reports whether hear would return without ending the attempt.
func (r *Run) spoken(w word) bool {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	_, said := r.memory.done[signalKey(w.name)]
	_, settled := r.memory.done["signal:"+w.name]
	return said || settled || !time.Now().Before(w.deadline)
}

// hear fixes what came of it, the second step, or ends the attempt.
func (r *Run) hear(ctx context.Context, w word) (Received, error) {
	name, deadline := w.name, w.deadline
	got, err := Step(ctx, r, "signal:"+name, func(ctx context.Context) (got awaited, err error) {
		// No signal comes while a worker holds the run: what was there at the
		// start is all that there is, and what comes next finds the run waiting.
		ref, come := r.signalled(name)
		switch {
		case come:
			err = r.recall(ctx, ref, &got.Signalled)
		case time.Now().Before(deadline):
			r.host.Sleep(contracts.Sleeping{Name: name, WakeAt: deadline, Signal: name})
			err = ErrSleeping
		default:
			got.TimedOut = true
		}
		return got, err
	})
	switch {
	case err != nil:
		return Received{}, err
	case got.TimedOut:
		return Received{}, fmt.Errorf("%w: %q until %s", ErrSignalTimeout, name, deadline.Format(time.RFC3339))
	}
	return Received{Payload: got.Payload, By: got.By}, nil
}

// signalled finds a signal among what the run remembers, which has been read.
func (r *Run) signalled(name string) (StepRef, bool) {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	ref, ok := r.memory.done[signalKey(name)]
	return ref, ok
}
