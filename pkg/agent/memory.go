package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"longhaul/pkg/contracts"
)

// StepRef is where a host finds a completed step.
type StepRef struct {
	Sequence uint64
	// Signal says that it is no step, but a signal.
	Signal bool
}

// signalKey is under which a signal is remembered: no step has such a name.
func signalKey(name string) string { return "\x00" + name }

// checkpointKey is under which the last checkpoint is: no signal is without a name.
const checkpointKey = "\x00"

// memory is what a run knows of its steps.
type memory struct {
	mu    sync.Mutex
	done  map[string]StepRef // what earlier attempts completed; nil until it is read
	asked map[string]bool    // the steps begun in this attempt; false of those that failed, or may be left out
}

// beginStep takes the name for this attempt and finds what is remembered of it.
func (r *Run) beginStep(ctx context.Context, name string) (StepRef, bool, error) {
	for _, c := range []context.Context{r.ctx, ctx} { // whatever context the agent uses: no step begins after the attempt's end
		if c.Err() != nil {
			return StepRef{}, false, context.Cause(c)
		}
	}
	m := &r.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asked[name] {
		return StepRef{}, false, Permanent(errors.New("there was one of this name in this attempt already: give each step a name of its own"))
	}
	if err := m.load(ctx, r); err != nil {
		return StepRef{}, false, err
	}
	if m.asked == nil {
		m.asked = map[string]bool{}
	}
	m.asked[name] = true
	ref, ok := m.done[name]
	return ref, ok, nil
}

// failedStep lets a step of the name be begun again.
func (r *Run) failedStep(name string) {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	r.memory.asked[name] = false
}

// load reads what earlier attempts completed, once. The first one has nothing to read.
func (m *memory) load(ctx context.Context, r *Run) (err error) {
	if m.done == nil && r.Epoch > 1 {
		if m.done, err = r.host.Steps(ctx); err != nil {
			return fmt.Errorf("read what the run remembers: %w", err)
		}
	}
	return nil
}

// remembers reports whether earlier attempts completed the step of this name.
func (r *Run) remembers(ctx context.Context, name string) (bool, error) {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	err := r.memory.load(ctx, r)
	_, ok := r.memory.done[name]
	return ok, err
}

// Remember folds an event of a run's log, at a sequence, into what the run
// remembers: its steps by their names, and under names that no step has the
// signals and the last checkpoint. Hosts make what Steps returns by it, event by event.
func Remember(steps map[string]StepRef, e contracts.Event, sequence uint64) error {
	var err error
	switch e.Type {
	case contracts.TypeStepCompleted:
		var done struct{ Name string }
		err = json.Unmarshal(e.Payload, &done)
		steps[done.Name] = StepRef{Sequence: sequence}
	case contracts.TypeSignalled:
		var p contracts.Signalled
		err = json.Unmarshal(e.Payload, &p)
		if _, there := steps[signalKey(p.Name)]; !there { // the first one counts
			steps[signalKey(p.Name)] = StepRef{Sequence: sequence, Signal: true}
		}
	case contracts.TypeCheckpoint:
		steps[checkpointKey] = StepRef{Sequence: sequence}
	case contracts.TypeRequeued:
		var p contracts.Requeued
		if err = json.Unmarshal(e.Payload, &p); p.FromStart {
			clear(steps)
		}
	}
	if err != nil {
		return fmt.Errorf("decode the payload of event %d, %s: %w", e.Seq, e.Type, err)
	}
	return nil
}

// Forget says that the agent's code knows of these steps and takes them no
// more, or not in every attempt: a run that remembers one may come to its end
// without it.
func (r *Run) Forget(steps ...string) {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	if r.memory.asked == nil {
		r.memory.asked = map[string]bool{}
	}
	for _, name := range steps {
		if !r.memory.asked[name] {
			r.memory.asked[name] = false // it may be begun
		}
	}
}

// Unasked returns a permanent error if the run remembers steps that this
// attempt, which took steps, has not asked for. Hosts call it when Run has
// returned a result.
func (r *Run) Unasked() error {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	var names []string
	passed := r.memory.done[checkpointKey].Sequence // an attempt that resumes from there may do without the steps before it
	for name, ref := range r.memory.done {
		if _, asked := r.memory.asked[name]; ref.Sequence > passed && !ref.Signal && !asked {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return Permanent(fmt.Errorf("the run remembers steps that its code did not ask for: %q: "+
		"they were renamed or removed (then say so: Run.Forget), or what is done does not follow from the input and the steps alone", names))
}
