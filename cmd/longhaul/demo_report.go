package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
)

// print shows one event: when, of which run, what.
func (s *demoShow) print(r *demoRun, e runlog.Entry) {
	c := s.a.out
	if e.Type == contracts.TypeDelta || e.Type == contracts.TypeHeartbeat {
		return // its checkpoints say the same
	}
	if r.name == "cancel" && e.Type == contracts.TypeCheckpoint && e.Checkpoint.N%5 != 0 {
		return
	}
	p := eventPrinter{c: c, many: true}
	c.printf("%s  %s  %s  %s\n", c.dim(fmt.Sprintf("%5.1fs", s.a.now().Sub(s.started).Seconds())),
		c.bold(fmt.Sprintf("%-6s", r.name)), p.typeWord(e), oneLine(summary(e.Event, c), 100))
}

// narrate says what happens on the stage.
func (s *demoShow) narrate(format string, args ...any) {
	s.a.out.printf("\n  %s\n\n", s.a.out.bold("→ "+fmt.Sprintf(format, args...)))
}

// report prints how every run ended, as statekeeper has it, and whether that is right.
func (s *demoShow) report(ctx context.Context) error {
	c := s.a.out
	c.printf("\n")
	var rows [][]string
	var wrong []error
	for _, r := range s.runs {
		status, err := r.status(), error(nil)
		if resp, getErr := s.cast.client.Get(ctx, r.submission.RunID); getErr != nil {
			err = getErr
		} else {
			status = resp.Run.Status
		}
		switch {
		case err != nil:
		case status != r.want:
			err = fmt.Errorf("ended as %q, expected %q", status, r.want)
		case r.check != nil:
			err = r.check(r)
		}
		mark := c.green("ok")
		if err != nil {
			mark = c.red("wrong: " + err.Error())
			// %v: what went wrong with a run is no usage error of this command.
			wrong = append(wrong, fmt.Errorf("run %s: %v", r.name, err)) //nolint:errorlint // as the line above says
		}
		rows = append(rows, []string{c.bold(r.name), r.says, c.status(status), r.attempts(), mark})
	}
	if s.resumed > demoTakeover {
		wrong = append(wrong, fmt.Errorf("the takeover took %s, more than %s", s.resumed.Round(time.Millisecond), demoTakeover))
	}
	c.table([]string{"run", "what it shows", "status", "attempts", ""}, rows)
	c.printf("\n")
	if len(wrong) > 0 {
		return errors.Join(wrong...)
	}
	c.printf("%s The killed worker's run went on elsewhere after %.1f s, from its checkpoint; no step was lost.\n\n",
		c.green("All as it should be."), s.resumed.Seconds())
	c.printf("Now with a broker that stays: %s\n", c.bold("longhaul dev"))
	return nil
}

// attempts shows how many attempts were charged, of how many.
func (r *demoRun) attempts() string {
	if len(r.events) == 0 || r.want == contracts.StatusRejected {
		return "-"
	}
	last := r.events[len(r.events)-1]
	return strconv.Itoa(last.Attempt) + " of " + strconv.Itoa(last.MaxAttempts)
}

// attempts checks how many attempts a run took.
func attempts(want int) func(*demoRun) error {
	return func(r *demoRun) error {
		if got := r.events[len(r.events)-1].Attempt; got != want {
			return fmt.Errorf("took %d attempts, expected %d", got, want)
		}
		return nil
	}
}

// checkFaults checks that the refusal names all that is wrong.
func checkFaults(r *demoRun) error {
	var p contracts.Rejected
	if err := json.Unmarshal(r.events[0].Payload, &p); err != nil {
		return fmt.Errorf("read its faults: %w", err)
	}
	found := map[string]bool{}
	for _, f := range p.Errors {
		found[f.Field] = true
	}
	for _, field := range []string{"agent_key", "max_attempts", "colour"} {
		if !found[field] {
			return fmt.Errorf("the fault of %s is not named in: %w", field, p.Errors)
		}
	}
	return nil
}

// checkResumed checks that the run was taken over once, began from its last
// checkpoint, and counted every number exactly once in its checkpoints.
func checkResumed(r *demoRun) error {
	last := r.events[len(r.events)-1]
	if last.Epoch != 2 {
		return fmt.Errorf("was started %d times, expected 2", last.Epoch)
	}
	var done contracts.Succeeded
	if err := json.Unmarshal(last.Payload, &done); err != nil {
		return fmt.Errorf("read its result: %w", err)
	}
	var output struct {
		Count int `json:"count"`
	}
	if err := json.Unmarshal(done.FinalOutput, &output); err != nil || output.Count != demoSteps {
		return fmt.Errorf("its output is %s, expected a count of %d", done.FinalOutput, demoSteps)
	}
	step := 0
	for _, e := range r.events {
		if e.Type != contracts.TypeCheckpoint {
			continue
		}
		var p contracts.Checkpointed
		var state struct {
			I int `json:"i"`
		}
		if err := errors.Join(json.Unmarshal(e.Payload, &p), json.Unmarshal(p.State, &state)); err != nil {
			return fmt.Errorf("read checkpoint %d: %w", e.Checkpoint.N, err)
		}
		if step++; state.I != step {
			return fmt.Errorf("step %d came where %d was expected", state.I, step)
		}
	}
	return nil
}
