package builtin

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"longhaul/pkg/agent"
)

// KeyCount is the key of Count.
const KeyCount = "count"

const countSchema = `{
  "type": "object",
  "properties": {
    "n": {"type": "integer", "minimum": 0, "maximum": 1000000, "default": 10, "description": "how far to count"},
    "pause_ms": {"type": "integer", "minimum": 0, "maximum": 86400000, "default": 0, "description": "pause before each step, in milliseconds"}
  },
  "additionalProperties": false
}`

// Count returns an agent that counts to params.n with a pause of
// params.pause_ms before each step. Each step reports an assistant.delta and
// saves the checkpoint {"i": k}; an attempt that finds one goes on behind it.
// Its final output is {"count": n}.
func Count() agent.Agent {
	return agent.Agent{
		Key:         KeyCount,
		Description: "counts to n, one checkpoint a step; resumes where it was",
		InputSchema: json.RawMessage(countSchema),
		Run:         count,
	}
}

type countParams struct {
	N       int   `json:"n"`
	PauseMS int64 `json:"pause_ms"`
}

func (p countParams) check() error {
	switch {
	case p.N < 0 || p.N > 1_000_000:
		return agent.Permanent(fmt.Errorf("params.n: must be 0 to 1000000, not %d", p.N))
	case p.PauseMS < 0 || p.PauseMS > 86_400_000:
		return agent.Permanent(fmt.Errorf("params.pause_ms: must be 0 to 86400000, not %d", p.PauseMS))
	}
	return nil
}

// countState is the checkpoint: the last step that is done.
type countState struct {
	I int `json:"i"`
}

func count(ctx context.Context, run *agent.Run) (agent.Result, error) {
	p := countParams{N: 10}
	if err := run.Params(&p); err != nil {
		return agent.Result{}, err
	}
	if err := p.check(); err != nil {
		return agent.Result{}, err
	}
	var at countState
	if _, err := run.State(&at); err != nil {
		return agent.Result{}, err
	}
	for k := at.I + 1; k <= p.N; k++ {
		if err := pause(ctx, time.Duration(p.PauseMS)*time.Millisecond); err != nil {
			return agent.Result{}, err
		}
		if err := run.Delta(fmt.Sprintf("%d of %d\n", k, p.N)); err != nil {
			return agent.Result{}, err
		}
		if err := run.Checkpoint(ctx, countState{I: k}); err != nil {
			return agent.Result{}, err
		}
	}
	return agent.Result{FinalOutput: map[string]int{"count": p.N}}, nil
}

// pause waits for d, or returns the cause with which ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
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
