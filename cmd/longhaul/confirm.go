package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
)

// confirmCmd lists and answers what a run asks.
type confirmCmd struct {
	RunID  string `arg:"" name:"run" help:"The run's id."`
	Call   string `arg:"" optional:"" help:"The call's id; without it, what the run asks is listed."`
	Refuse bool   `help:"Refuse the call: the model is told so, and the run goes on."`
	Reason string `placeholder:"TEXT" help:"Why it is refused; the model is told."`
	By     string `placeholder:"WHO" help:"Who answers (default: the user of this machine)."`
}

// Help is shown below the command's summary.
func (confirmCmd) Help() string {
	return `Some tools ask before they are called. The run waits meanwhile, without a worker, and goes on when it is answered, or when the deadline that the tool has is over. The first answer counts. The exit code is 8 if the run does not ask about that call.

Examples:

    longhaul confirm 0198c0de-7a11-7abc-8def-0123456789ab
    longhaul confirm 0198c0de-7a11-7abc-8def-0123456789ab call_1
    longhaul confirm 0198c0de-7a11-7abc-8def-0123456789ab call_1 --refuse --reason "not on a Friday"`
}

// Validate checks what the grammar cannot say.
func (c *confirmCmd) Validate() error {
	switch {
	case c.Call == "" && (c.Refuse || c.Reason != ""):
		return errors.New("name the call that is refused; longhaul confirm RUN lists them")
	case c.Reason != "" && !c.Refuse:
		return errors.New("--reason goes with --refuse")
	case len(c.Reason) > contracts.MaxReason || len(c.By) > contracts.MaxReason:
		return fmt.Errorf("--reason and --by: at most %d bytes are allowed", contracts.MaxReason)
	}
	return wrongID(c.RunID)
}

// Run runs the command.
func (c *confirmCmd) Run(ctx context.Context, a *app) error {
	cl, hangUp, err := a.dial()
	if err != nil {
		return err
	}
	defer hangUp()
	if _, err := a.head(ctx, cl, c.RunID); err != nil {
		return err
	}
	asked, err := cl.Confirmations(ctx, c.RunID)
	if err != nil {
		return err
	}
	if c.Call == "" {
		return a.showAsked(c.RunID, asked)
	}
	at := slices.IndexFunc(asked, func(q client.Asked) bool { return q.Call.ID == c.Call })
	if at < 0 {
		return &codedError{code: exitNotFound, err: fmt.Errorf("run %s does not ask about call %q", c.RunID, c.Call),
			hint: "answered already, or too late? longhaul confirm " + c.RunID + " lists what it asks"}
	}
	answer := contracts.Confirmation{Confirmed: !c.Refuse, Reason: c.Reason}
	if err := cl.Confirm(ctx, c.RunID, c.Call, orUser(c.By), answer); err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(struct {
			RunID string `json:"run_id"`
			Call  string `json:"call"`
			contracts.Confirmation
		}{c.RunID, c.Call, answer})
	}
	a.out.printf("%s is %s. The run goes on.\n", callWords(asked[at].Call), map[bool]string{true: "confirmed", false: "refused"}[answer.Confirmed])
	a.out.next("watch it", "longhaul watch "+c.RunID)
	return nil
}

// showAsked prints what a run asks.
func (a *app) showAsked(runID string, asked []client.Asked) error {
	if a.JSON {
		for _, q := range asked {
			if err := a.printJSON(q); err != nil {
				return err
			}
		}
		return nil
	}
	if len(asked) == 0 {
		a.out.printf("Run %s asks nothing.\n", runID)
		return nil
	}
	var rows [][]string
	for _, q := range asked {
		rows = append(rows, []string{printable(q.Call.ID), callWords(q.Call), a.out.at(q.Deadline), otherwiseWords(q)})
	}
	a.out.table([]string{"CALL", "WOULD DO", "UNTIL", "OTHERWISE"}, rows)
	a.nextConfirm(runID, asked[0])
	return nil
}

// nextConfirm says how a call is answered.
func (a *app) nextConfirm(runID string, q client.Asked) {
	answer := "longhaul confirm " + runID + " " + shellWord(q.Call.ID)
	a.out.next("confirm it", answer, "refuse it", answer+" --refuse", "cancel the run", "longhaul cancel "+runID)
}

func callWords(call contracts.ToolCall) string {
	return oneLine(call.Function.Name+"("+call.Function.Arguments+")", summaryWidth)
}

func otherwiseWords(q client.Asked) string {
	if q.Otherwise == "confirm" {
		return "it is made"
	}
	return "it is refused"
}

// askedWords says what a run asks, in the lines of longhaul get.
func (a *app) askedWords(asked []client.Asked) string {
	var lines []string
	for _, q := range asked {
		lines = append(lines, "your word on "+callWords(q.Call)+", until "+a.out.at(q.Deadline)+", otherwise "+otherwiseWords(q))
	}
	return strings.Join(lines, "\n")
}
