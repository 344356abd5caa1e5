package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// Job is what the bench's agent does, as its params have it. The zero Job does
// nothing, which is what an engine's own cost is measured with.
type Job struct {
	Sent        int64  `json:"sent,omitempty"`        // when it was submitted, in Unix nanoseconds; 0 is not measured
	Events      int    `json:"events,omitempty"`      // how many it emits, of 100 B each
	Checkpoints int    `json:"checkpoints,omitempty"` // how many it saves, of 1 KB each
	Deltas      int    `json:"deltas,omitempty"`      // how many pieces of text, each the time at which it was written
	PauseMS     int64  `json:"pause_ms,omitempty"`    // before each delta
	WaitMS      int64  `json:"wait_ms,omitempty"`     // before the first one
	HoldMS      int64  `json:"hold_ms,omitempty"`     // how long it waits before it ends, as one does for a model
	Padding     string `json:"padding,omitempty"`     // makes the submission as large as is wanted
}

// schema is a plain one: who submits is told of misfits, and pays for the look.
const schema = `{"type":"object","properties":{"sent":{"type":"integer"},"events":{"type":"integer"},"checkpoints":{"type":"integer"},` +
	`"deltas":{"type":"integer"},"pause_ms":{"type":"integer"},"wait_ms":{"type":"integer"},"hold_ms":{"type":"integer"},"padding":{"type":"string"}},"additionalProperties":false}`

const (
	eventBytes      = 100
	checkpointBytes = 1000
)

// Agent returns the bench's agent under a key. began, if not nil, is told for
// every job how long after its submission the agent's code began; it is called
// from many goroutines. When released is closed, every job that waits ends.
func Agent(key string, began func(time.Duration), released <-chan struct{}) agent.Agent {
	event := json.RawMessage(`{"text":"` + strings.Repeat("e", eventBytes-11) + `"}`)
	state := []byte(strings.Repeat("s", checkpointBytes))
	return agent.Agent{
		Key: key, Description: "does as much or as little as the bench asks for", InputSchema: json.RawMessage(schema),
		Run: func(ctx context.Context, run *agent.Run) (agent.Result, error) {
			now := time.Now()
			var job Job
			if err := run.Params(&job); err != nil {
				return agent.Result{}, err
			}
			if began != nil && job.Sent != 0 {
				began(now.Sub(time.Unix(0, job.Sent)))
			}
			for range job.Events {
				if err := run.Emit("bench.event", event); err != nil {
					return agent.Result{}, err
				}
			}
			for range job.Checkpoints {
				if err := run.Checkpoint(ctx, state); err != nil {
					return agent.Result{}, err
				}
			}
			if err := pause(ctx, time.Duration(job.WaitMS)*time.Millisecond); err != nil {
				return agent.Result{}, err
			}
			for range job.Deltas {
				if err := pause(ctx, time.Duration(job.PauseMS)*time.Millisecond); err != nil {
					return agent.Result{}, err
				}
				if err := run.Delta(strconv.FormatInt(time.Now().UnixNano(), 10) + " "); err != nil {
					return agent.Result{}, err
				}
			}
			return agent.Result{FinalOutput: "done"}, hold(ctx, time.Duration(job.HoldMS)*time.Millisecond, released)
		},
	}
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hold is pause, but for a release.
func hold(ctx context.Context, d time.Duration, released <-chan struct{}) error {
	if d <= 0 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, d, errHeld)
	defer cancel()
	select {
	case <-released:
		return nil
	case <-ctx.Done():
		if err := context.Cause(ctx); !errors.Is(err, errHeld) {
			return err
		}
		return nil
	}
}

// errHeld is the cause of a context that has lasted as long as it should.
var errHeld = errors.New("held")

// Submission is one for the agent under key, of about size bytes when it is
// encoded, a run id included; smaller than the job itself it can't be.
func Submission(key string, job Job, size int) (contracts.Submission, error) {
	s := contracts.Submission{AgentKey: key, RunID: contracts.NewRunID()}
	fit := func() (int, error) {
		params, err := json.Marshal(job)
		if err != nil {
			return 0, fmt.Errorf("encode a job: %w", err)
		}
		s.Input.Params = params
		data, err := contracts.Encode(s)
		return len(data), err
	}
	job.Padding = "x"
	has, err := fit()
	if err == nil && has < size {
		job.Padding = strings.Repeat("x", 1+size-has)
		_, err = fit()
	}
	s.RunID = "" // each gets a fresh one
	return s, err
}
