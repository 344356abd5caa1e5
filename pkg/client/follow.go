package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
)

// Follow yields a run's events in order, without a gap: those of its log from
// o.From on, then each new one as it is committed. It ends with ctx, and with
// o.UntilEnd at the terminal event. It may be called before the run exists.
func (c *Client) Follow(ctx context.Context, runID string, o runlog.FollowOptions) iter.Seq2[runlog.Entry, error] {
	if err := checkRunID(runID); err != nil {
		return failed(err)
	}
	return c.openedAll(c.log.Follow(ctx, runID, o))
}

// FollowAll yields what is committed from now on of every run of an agent, or
// of every run at all if agentKey is empty.
func (c *Client) FollowAll(ctx context.Context, agentKey string) iter.Seq2[runlog.Entry, error] {
	if agentKey != "" {
		if err := contracts.CheckAgentKey(agentKey); err != nil {
			return failed(fmt.Errorf("agent key: %w", err))
		}
	}
	return c.openedAll(c.log.FollowAll(ctx, agentKey))
}

// History yields the events that a run's log holds now, from number from on.
func (c *Client) History(ctx context.Context, runID string, from uint64) iter.Seq2[runlog.Entry, error] {
	if err := checkRunID(runID); err != nil {
		return failed(err)
	}
	return c.openedAll(c.log.Read(ctx, runID, from))
}

// Head returns the last event of a run's log, which tells where the run
// stands; ErrNotFound if there is none.
func (c *Client) Head(ctx context.Context, runID string) (runlog.Entry, error) {
	if err := checkRunID(runID); err != nil {
		return runlog.Entry{}, err
	}
	return c.last(ctx, runID)
}

// Wait returns when the run has ended, at once if it has ended already. The
// error is about the waiting; how the run ended is in the Outcome. It may be
// called before the run exists.
func (c *Client) Wait(ctx context.Context, runID string) (Outcome, error) {
	return c.WaitFrom(ctx, runID, 1)
}

// WaitFrom is Wait for an end at event number from or later: after a redrive,
// with the number behind that of the last round's end.
func (c *Client) WaitFrom(ctx context.Context, runID string, from uint64) (Outcome, error) {
	last, err := c.Head(ctx, runID)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return Outcome{}, fmt.Errorf("wait for run %s: %w", runID, err)
	case last.Seq >= from && last.Type.Terminal():
		return Outcome{last}, nil
	default:
		from = max(from, last.Seq+1)
	}
	// Not UntilEnd: after a redrive the log may still end with the last round.
	for e, err := range c.openedAll(c.log.Follow(ctx, runID, runlog.FollowOptions{From: from})) {
		if errors.Is(err, runlog.ErrGap) || errors.Is(err, runlog.ErrMalformed) {
			continue // of no matter here: what counts is the end
		}
		if err != nil {
			return Outcome{}, fmt.Errorf("wait for run %s: %w", runID, err)
		}
		if e.Type.Terminal() {
			return Outcome{e}, nil
		}
	}
	return Outcome{}, fmt.Errorf("wait for run %s: %w", runID, cmp.Or(context.Cause(ctx), errStopped))
}

// errStopped would tell of a log that is followed no longer for no reason that is known.
var errStopped = errors.New("following its log stopped")

// Outcome is how a run, or a round of it, ended: its terminal event.
type Outcome struct {
	runlog.Entry
}

// Result returns what the agent returned. If the run did not succeed, it is
// the error that Err returns.
func (o Outcome) Result() (contracts.Succeeded, error) {
	if err := o.Err(); err != nil {
		return contracts.Succeeded{}, err
	}
	var s contracts.Succeeded
	if err := json.Unmarshal(o.Payload, &s); err != nil {
		return s, fmt.Errorf("run %s: decode the result: %w", o.RunID, err)
	}
	return s, nil
}

// Output decodes the agent's final output into v, a pointer. If the run did not
// succeed, it returns the error that Err returns.
func (o Outcome) Output(v any) error {
	s, err := o.Result()
	if err != nil {
		return err
	}
	if len(s.FinalOutput) == 0 {
		return nil
	}
	if err := json.Unmarshal(s.FinalOutput, v); err != nil {
		return fmt.Errorf("run %s: decode the output: %w", o.RunID, err)
	}
	return nil
}

// Err returns nil if the run succeeded, else a *RunError.
func (o Outcome) Err() error {
	e := &RunError{RunID: o.RunID, Status: o.Status}
	var err error
	switch o.Status {
	case contracts.StatusSucceeded:
		return nil
	case contracts.StatusFailed:
		var p contracts.Failed
		err = json.Unmarshal(o.Payload, &p)
		e.Info, e.Attempts = p.ErrorInfo, p.Attempts
	case contracts.StatusTimedOut:
		var p contracts.TimedOut
		err = json.Unmarshal(o.Payload, &p)
		e.Info = contracts.ErrorInfo{Type: "TimeoutError", Message: fmt.Sprintf("an attempt took longer than %g s", p.TimeoutSeconds)}
		if p.StartTimeoutSeconds > 0 {
			e.Info.Message = fmt.Sprintf("no attempt was begun within %g s", p.StartTimeoutSeconds)
		}
	case contracts.StatusCancelled:
		var p contracts.Cancelled
		err = json.Unmarshal(o.Payload, &p)
		e.Info = contracts.ErrorInfo{Type: "Cancelled", Message: p.Reason}
	case contracts.StatusRejected:
		var p contracts.Rejected
		err = json.Unmarshal(o.Payload, &p)
		e.Info, e.Faults = contracts.ErrorInfo{Type: "Rejected", Message: p.Errors.Error()}, p.Errors
	}
	if err != nil {
		return fmt.Errorf("run %s: decode the payload of %s: %w", o.RunID, o.Type, err)
	}
	return e
}

// RunError says how a run ended that did not succeed.
type RunError struct {
	RunID  string
	Status contracts.Status
	// Info describes the failure; for a timeout, a cancel and a rejection it is
	// put together from what their events say.
	Info     contracts.ErrorInfo
	Attempts int              // of a failed run
	Faults   contracts.Faults // of a rejected run
}

// Error names the run, its status and the reason.
func (e *RunError) Error() string {
	s := fmt.Sprintf("run %s %s", e.RunID, statusWords(e.Status))
	if e.Info.Message != "" {
		s += ": " + e.Info.Message
	}
	return s
}

func statusWords(s contracts.Status) string {
	switch s {
	case contracts.StatusTimedOut:
		return "timed out"
	case contracts.StatusCancelled:
		return "was cancelled"
	case contracts.StatusRejected:
		return "was rejected"
	}
	return string(s)
}

func checkRunID(id string) error {
	if err := contracts.CheckRunID(id); err != nil {
		return fmt.Errorf("run id: %w", contracts.Faults{{Field: "run_id", Message: err.Error()}})
	}
	return nil
}

func failed(err error) iter.Seq2[runlog.Entry, error] {
	return func(yield func(runlog.Entry, error) bool) { yield(runlog.Entry{}, err) }
}
