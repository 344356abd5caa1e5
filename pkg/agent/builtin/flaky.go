package builtin

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"longhaul/pkg/agent"
)

// KeyFlaky is the key of Flaky.
const KeyFlaky = "flaky"

// FlakyExitCode is the exit code of a worker that Flaky ended.
const FlakyExitCode = 70

const flakySchema = `{
  "type": "object",
  "properties": {
    "fail_times": {"type": "integer", "minimum": 0, "default": 1, "description": "how many attempts fail before one succeeds"},
    "retriable": {"type": "boolean", "default": true, "description": "whether the error may be retried"},
    "panic": {"type": "boolean", "default": false, "description": "fail by a panic"},
    "exit": {"type": "boolean", "default": false, "description": "fail by ending the worker's process"}
  },
  "additionalProperties": false
}`

// Flaky returns an agent that fails its first params.fail_times attempts: with
// an error (permanent if params.retriable is false), with a panic if
// params.panic, by ending the whole worker process with FlakyExitCode if
// params.exit. The attempt that succeeds returns {"attempt": its number}.
//
// Whoever may submit to it can end the worker: it is for tests and
// demonstrations, and a worker hosts it only when told to.
func Flaky() agent.Agent {
	return agent.Agent{
		Key:         KeyFlaky,
		Description: "fails the first fail_times attempts: by an error, a panic or the end of its process",
		InputSchema: json.RawMessage(flakySchema),
		Run:         flaky,
	}
}

func flaky(_ context.Context, run *agent.Run) (agent.Result, error) {
	p := struct {
		FailTimes int  `json:"fail_times"`
		Retriable bool `json:"retriable"`
		Panic     bool `json:"panic"`
		Exit      bool `json:"exit"`
	}{FailTimes: 1, Retriable: true}
	if err := run.Params(&p); err != nil {
		return agent.Result{}, err
	}
	if run.Attempt > p.FailTimes {
		return agent.Result{FinalOutput: map[string]int{"attempt": run.Attempt}}, nil
	}
	err := fmt.Errorf("attempt %d fails, as the first %d do", run.Attempt, p.FailTimes)
	switch {
	case p.Exit:
		run.Log().Error("flaky agent ends the process, as its params ask", "exit_code", FlakyExitCode)
		os.Exit(FlakyExitCode)
	case p.Panic:
		panic(err)
	case !p.Retriable:
		err = agent.Permanent(err)
	}
	return agent.Result{}, err
}
