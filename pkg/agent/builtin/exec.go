package builtin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// KeyExec is the key of an Exec agent that is given no other.
const KeyExec = "exec"

// ExecConfig says which program an Exec agent runs. It belongs to the worker's
// configuration; no part of it ever comes from a submission.
type ExecConfig struct {
	// Key is the agent's key; empty means KeyExec.
	Key string
	// Description is shown to people; empty names the program.
	Description string
	// Command is the program and its arguments. No shell reads it.
	Command []string
	// Dir is the program's working directory; empty is the worker's.
	Dir string
	// Env is added to the worker's environment, of which LONGHAUL_* is left out.
	Env []string
	// Grace is how long the program has between SIGTERM and SIGKILL; zero means 5 s.
	Grace time.Duration
	// InputSchema is a JSON Schema of input.params, if there is one.
	InputSchema json.RawMessage
}

// Exec returns an agent that runs a program, once per attempt.
//
// The program gets the submission as JSON on stdin, and in its environment
// LONGHAUL_RUN_ID, LONGHAUL_ATTEMPT and, if there is a checkpoint,
// LONGHAUL_STATE (the state as JSON; one above 64 KiB stands in the file that
// LONGHAUL_STATE_FILE names instead). What it writes to stdout is read line by
// line: a JSON object with a "type" is an event, {"type": …, "payload": …};
// any other line is text and becomes an assistant.delta. Two types are not
// emitted: "result", whose payload is the final output (final_messages, usage
// and artifacts may stand beside it), and "checkpoint", whose payload is saved
// as the state. Events of type "error" are emitted, and the last one's payload
// {type, message, retriable, details} describes the failure if the program fails.
//
// Exit code 0 is success. Any other, and death by a signal, is an error with
// the end of stderr; it is retriable unless an error event said otherwise.
// When the run's context ends, the program's process group gets SIGTERM, and
// after a grace SIGKILL; what the program leaves running in its group is
// killed when it ends.
func Exec(cfg ExecConfig) (agent.Agent, error) {
	if cfg.Key == "" {
		cfg.Key = KeyExec
	}
	if cfg.Grace == 0 {
		cfg.Grace = 5 * time.Second
	}
	if err := cfg.check(); err != nil {
		return agent.Agent{}, err
	}
	if _, err := exec.LookPath(cfg.Command[0]); err != nil {
		return agent.Agent{}, fmt.Errorf("agent %s: %w", cfg.Key, err) // now, not at its every run
	}
	if cfg.Description == "" {
		cfg.Description = "runs " + cfg.Command[0]
	}
	return agent.Agent{
		Key: cfg.Key, Description: cfg.Description, InputSchema: cfg.InputSchema,
		Run:     func(ctx context.Context, run *agent.Run) (agent.Result, error) { return runProgram(ctx, cfg, run) },
		OnError: classifyExecError,
	}, nil
}

func (cfg ExecConfig) check() error {
	var faults contracts.Faults
	if err := contracts.CheckAgentKey(cfg.Key); err != nil {
		faults = append(faults, contracts.Fault{Field: "key", Message: err.Error()})
	}
	if len(cfg.Command) == 0 || cfg.Command[0] == "" {
		faults = append(faults, contracts.Fault{Field: "command", Message: "must name a program"})
	}
	if cfg.Grace < 0 {
		faults = append(faults, contracts.Fault{Field: "grace", Message: "must not be negative"})
	}
	if len(cfg.InputSchema) > 0 && !json.Valid(cfg.InputSchema) {
		faults = append(faults, contracts.Fault{Field: "input_schema", Message: "must be JSON"})
	}
	if len(faults) > 0 {
		return fmt.Errorf("exec agent: %w", faults)
	}
	return nil
}

// ExecError is the error of a program that failed.
type ExecError struct {
	Info contracts.ErrorInfo
}

// Error returns the message.
func (e *ExecError) Error() string { return e.Info.Message }

func classifyExecError(_ context.Context, _ *agent.Run, err error) *contracts.ErrorInfo {
	var e *ExecError
	if !errors.As(err, &e) {
		return nil
	}
	info := e.Info
	return &info
}
