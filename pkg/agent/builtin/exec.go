package builtin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/internal/program"
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
	// Dir is the program's working directory; empty is the worker's. A command
	// with a slash in it is looked for from there.
	Dir string
	// PassEnv are the variables of the worker's environment that the program
	// gets, by name, or by the beginning of it with a * behind. Nil is all of them.
	// LONGHAUL_* is never passed on. PlainEnv is what most programs need.
	PassEnv []string
	// Env is added to them, each as NAME=value.
	Env []string
	// Timeout is how long the program may take, within the run's own time; zero
	// is as long as that. One that takes longer is stopped, and may be tried again.
	Timeout time.Duration
	// MaxOutput is how much the program may write to stdout, in bytes; zero is
	// 64 MiB. One that writes more is stopped, for good.
	MaxOutput int64
	// Limits are the system's, for the program and each of its children.
	Limits Limits
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
// killed when it ends. Where a worker is killed itself, on Linux the system kills
// the program, but not what it has started.
func Exec(cfg ExecConfig) (agent.Agent, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return agent.Agent{}, err
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

func (cfg ExecConfig) withDefaults() ExecConfig {
	cfg.Key = cmp.Or(cfg.Key, KeyExec)
	cfg.Grace = cmp.Or(cfg.Grace, 5*time.Second)
	cfg.MaxOutput = cmp.Or(cfg.MaxOutput, 64<<20)
	return cfg
}

func (cfg ExecConfig) check() error {
	var faults contracts.Faults
	if err := contracts.CheckAgentKey(cfg.Key); err != nil {
		faults = append(faults, contracts.Fault{Field: "key", Message: err.Error()})
	}
	faults = append(faults, cfg.program().Check()...)
	for field, negative := range map[string]bool{"grace": cfg.Grace < 0, "timeout": cfg.Timeout < 0, "max_output": cfg.MaxOutput < 0} {
		if negative {
			faults = append(faults, contracts.Fault{Field: field, Message: "must not be negative"})
		}
	}
	if len(cfg.InputSchema) > 0 && !json.Valid(cfg.InputSchema) {
		faults = append(faults, contracts.Fault{Field: "input_schema", Message: "must be JSON"})
	}
	if len(faults) > 0 {
		return fmt.Errorf("exec agent: %w", faults)
	}
	return nil
}

// program is the part of it that is about any program.
func (cfg ExecConfig) program() program.Spec {
	return program.Spec{Command: cfg.Command, Dir: cfg.Dir, PassEnv: cfg.PassEnv, Env: cfg.Env, Limits: cfg.Limits}
}

// Limits are bounds that the system puts on each process of a program; zero is
// no bound but the worker's own.
type Limits = program.Limits

// PlainEnv is a PassEnv for programs that need no secrets of the worker's:
// where things are, who and where they run for, and how the network is reached.
func PlainEnv() []string { return program.PlainEnv() }

func errTooLate(limit time.Duration) error {
	return &ExecError{Info: contracts.ErrorInfo{Type: "ProgramTimeout", Message: fmt.Sprintf("the program took longer than %v", limit), Retriable: true}}
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
