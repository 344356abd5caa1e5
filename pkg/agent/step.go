package agent

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime/debug"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.opentelemetry.io/otel/trace"

	"longhaul/pkg/contracts"
	"longhaul/pkg/tracing"
)

// Step executes do and remembers what it returns: once its result is in the
// run's log, no attempt executes it again, and a Step of that name returns the
// remembered result, after a failure, a crash, a takeover or a redrive. A
// redrive from the start forgets it. Both ways T is what comes out of its JSON,
// so that a first attempt sees nothing that a later one would not.
//
// A step is executed at least once: a worker that dies after do has returned
// and before the result is stored leaves no trace of it, and one that has lost
// the run without noticing may be at the same step as its successor, though
// only one result is ever stored. StepKey makes side effects safe.
//
// A name stands for one step of the run; a second one of that name in the same
// attempt is an error, unless the first one failed. Steps with names of their
// own may be taken in parallel. An error of do, or a panic, is tried again as
// WithTries says, then it is Step's, and nothing is remembered.
//
// What a run remembers must fit its code. A remembered result that T has no
// place for is a permanent error, and so is a run that comes to its end without
// having asked for a step that it remembers (see Run.Forget).
func Step[T any](ctx context.Context, run *Run, name string, do func(ctx context.Context) (T, error), opts ...StepOption) (T, error) {
	var result T
	o := stepOptions{tries: 1, first: time.Second, most: time.Minute}
	for _, set := range opts {
		set(&o)
	}
	err := run.step(ctx, name, o, step{
		do: func(ctx context.Context) (contracts.StepCompleted, error) {
			v, err := do(ctx)
			if err != nil {
				return contracts.StepCompleted{}, err
			}
			raw, err := encode(v)
			if err == nil {
				err = decodeResult(raw, &result)
			}
			if err != nil {
				err = Permanent(fmt.Errorf("its result, %s, does not survive JSON: %w", reflect.TypeFor[T](), err))
			}
			return contracts.StepCompleted{Name: name, Type: reflect.TypeFor[T]().String(), Result: raw}, err
		},
		recall: func(done contracts.StepCompleted) error {
			if err := decodeResult(done.Result, &result); err != nil {
				return Permanent(fmt.Errorf("the run remembers a result of type %s, which is no %s: %w: "+
					"the code has changed since; redrive the run from its start", cmp.Or(done.Type, "unknown"), reflect.TypeFor[T](), err))
			}
			return nil
		},
	})
	if err != nil {
		var zero T
		return zero, fmt.Errorf("step %q: %w", name, err)
	}
	return result, nil
}

// decodeResult decodes a step's result into v, strictly: a field that v's type
// has no place for shows that it was another type's.
func decodeResult[T any](raw json.RawMessage, v *T) error {
	*v = *new(T)
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if string(raw) == "null" { // which encoding/json lets pass as anything
		if again, err := encode(*v); err == nil && string(again) != "null" {
			return errors.New("it is null")
		}
	}
	return nil
}

// StepKey returns the key of the step that ctx was given to, "<run id>/<name>":
// the same in every attempt, for a side effect that must not happen twice. It
// is "" outside of a step.
func StepKey(ctx context.Context) string {
	key, _ := ctx.Value(stepKey{}).(string)
	return key
}

type stepKey struct{}

// StepOption is how one step is taken.
type StepOption func(*stepOptions)

type stepOptions struct {
	tries       int
	first, most time.Duration
	timeout     time.Duration
}

// WithTries has a step tried up to n times in one attempt of the run, with a
// pause between two tries (WithBackoff); 1 unless told. A Permanent error is
// not tried again.
func WithTries(n int) StepOption { return func(o *stepOptions) { o.tries = n } }

// WithBackoff sets the pauses between tries: first, then twice as long each
// time, and at most most; each up to a tenth longer. Unless told 1 s and 1 min.
func WithBackoff(first, most time.Duration) StepOption {
	return func(o *stepOptions) { o.first, o.most = first, most }
}

// WithTimeout ends the context of each try after d. The step's function must
// heed it. Unless told only the attempt's own timeout holds.
func WithTimeout(d time.Duration) StepOption { return func(o *stepOptions) { o.timeout = d } }

// step is a Step without its type.
type step struct {
	do     func(ctx context.Context) (contracts.StepCompleted, error)
	recall func(contracts.StepCompleted) error
}

// maxStepName bounds a step's name, in bytes: it is part of a key.
const maxStepName = 128

func checkStepName(name string) error {
	if name == "" || len(name) > maxStepName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return Permanent(fmt.Errorf("a name must be 1 to %d bytes of text without control characters", maxStepName))
	}
	return nil
}

// step remembers, or executes and commits.
func (r *Run) step(ctx context.Context, name string, o stepOptions, s step) error {
	if err := checkStepName(name); err != nil {
		return err
	}
	ref, remembered, err := r.beginStep(ctx, name)
	if err != nil {
		return err
	}
	var done contracts.StepCompleted
	if remembered {
		tracing.Note(ctx, "step remembered", name)
		if err = r.recall(ctx, ref, &done); err == nil {
			err = s.recall(done)
		}
	} else {
		within, span := tracing.In(ctx, trace.SpanKindInternal, "step", name)
		done, err = r.try(context.WithValue(within, stepKey{}, r.IdempotencyKey(name)), name, o, s.do)
		if err == nil {
			// Also if ctx has ended meanwhile: what is done is worth remembering.
			err = r.host.CompleteStep(context.WithoutCancel(ctx), done)
		}
		span.End(err)
	}
	if err != nil {
		r.failedStep(name)
	}
	return err
}

// recall reads what the run remembers into payload, a pointer.
func (r *Run) recall(ctx context.Context, ref StepRef, payload any) error {
	raw, err := r.host.StepAt(ctx, ref)
	if err == nil {
		err = json.Unmarshal(raw, payload)
	}
	return err
}

// try executes a step until it goes well or there is no point in going on.
func (r *Run) try(ctx context.Context, name string, o stepOptions, do func(context.Context) (contracts.StepCompleted, error)) (contracts.StepCompleted, error) {
	for n := 1; ; n++ {
		done, err := r.tryOnce(ctx, name, o.timeout, do)
		switch {
		case err == nil:
			return done, nil
		case ctx.Err() != nil:
			return done, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case n >= o.tries || IsPermanent(err):
			return done, err
		}
		pause := time.Duration(min(float64(o.first)*math.Exp2(float64(n-1)), float64(o.most)) * (1 + rand.Float64()/10))
		r.log().Warn("step failed, trying again", "step", name, "try", n, "of", o.tries, "pause", pause, "error", err)
		if err := wait(ctx, pause); err != nil {
			return done, err
		}
	}
}

// tryOnce is one try. A panic is an error: steps are taken in goroutines of the
// agent's, where it would end the worker and every run on it.
func (r *Run) tryOnce(ctx context.Context, name string, timeout time.Duration, do func(context.Context) (contracts.StepCompleted, error)) (done contracts.StepCompleted, err error) {
	defer func() {
		if v := recover(); v != nil {
			r.log().Error("step panicked", "step", name, "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	within := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		within, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	done, err = do(within)
	if err != nil && within.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("took longer than its %v: %w", timeout, err)
	}
	return done, err
}

// wait waits, but not beyond the end of ctx, whose cause it then returns.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
