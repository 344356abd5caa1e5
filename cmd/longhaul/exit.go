package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/internal/shell"
	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// The exit codes. They are part of the command line's contract: the top-level
// help lists them.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitFailed      = 3
	exitTimedOut    = 4
	exitCancelled   = 5
	exitRejected    = 6
	exitNoBroker    = 7
	exitNotFound    = 8
	exitInterrupted = 130
)

// codedError is an error with an exit code of its own. Without err nothing is
// printed: the command has said it all.
type codedError struct {
	code int
	err  error
	hint string // what to do about it
}

func (e *codedError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *codedError) Unwrap() error { return e.err }

// usagef is an error in how the command was called.
func usagef(format string, args ...any) error {
	return &codedError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// exitCode says what err means to whoever called the program.
func exitCode(err error) int {
	var coded *codedError
	var run *client.RunError
	var faults contracts.Faults
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &run):
		return statusCode(run.Status)
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, client.ErrNotFound):
		return exitNotFound
	case errors.Is(err, client.ErrUnavailable):
		return exitNoBroker
	case errors.As(err, &faults), errors.Is(err, client.ErrInvalid), shell.IsUsage(err):
		return exitUsage
	}
	return exitError
}

// statusCode is the exit code for a run that ended with s.
func statusCode(s contracts.Status) int {
	switch s {
	case contracts.StatusSucceeded:
		return exitOK
	case contracts.StatusFailed:
		return exitFailed
	case contracts.StatusTimedOut:
		return exitTimedOut
	case contracts.StatusCancelled:
		return exitCancelled
	case contracts.StatusRejected:
		return exitRejected
	}
	return exitError
}

// hint says what may be done about err; empty if there is nothing to say.
func hint(err error) string {
	var coded *codedError
	switch {
	case errors.As(err, &coded):
		return coded.hint
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		return "a broker is there, but not Longhaul's streams: longhaul topology create, or start a dispatcher"
	case errors.Is(err, client.ErrUnavailable):
		return "start one: longhaul dev; or name another: --nats URL"
	case errors.Is(err, client.ErrNoStatekeeper):
		return "start one: longhaul statekeeper (or try everything at once: longhaul dev)"
	case errors.Is(err, jsutil.ErrNoTopology):
		return "create what is missing: longhaul topology create (a dispatcher or statekeeper does so, too)"
	}
	return ""
}

// errInterrupted is the cause of a context that a signal has ended. To whoever
// asks no closer it is context.Canceled.
var errInterrupted = fmt.Errorf("interrupted: %w", context.Canceled)

// interruptible returns a context that ends, with errInterrupted, on the first
// SIGINT or SIGTERM. The second one calls exit at once.
func interruptible(parent context.Context, exit func(int)) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for first := true; ; first = false {
			select {
			case <-signals:
				if !first {
					exit(exitInterrupted)
				}
				cancel(errInterrupted)
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		<-ended
		cancel(nil)
	}
}
