package main

import (
	"context"
	"encoding/json"
	"fmt"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
)

// signalCmd sends a run a signal.
type signalCmd struct {
	RunID string `arg:"" name:"run" help:"The run's id."`
	Name  string `arg:"" help:"The signal's name, as the run waits for it."`
	Data  string `placeholder:"JSON" help:"What the run is given along."`
	By    string `placeholder:"WHO" help:"Who sends it (default: the user of this machine)."`
}

// Help is shown below the command's summary.
func (signalCmd) Help() string {
	return `The signal is durable: the run has it also if nothing but the broker runs at this moment, or if it does not wait for it yet. Of several of one name the first one counts. The exit code is 1 for a run that has ended, 8 for one that is unknown.

longhaul get shows what a run waits for. Where that is your word on a call of a tool, use longhaul confirm.

Examples:

    longhaul signal 0198c0de-7a11-7abc-8def-0123456789ab approve
    longhaul signal 0198c0de-7a11-7abc-8def-0123456789ab approve --data '{"limit": 5}' --by ann`
}

// command is what is sent.
func (s *signalCmd) command() contracts.SignalCommand {
	return contracts.SignalCommand{Name: s.Name, Payload: json.RawMessage(s.Data), By: orUser(s.By)}
}

// Validate checks what the grammar cannot say.
func (s *signalCmd) Validate() error {
	if err := wrongID(s.RunID); err != nil {
		return err
	}
	if s.Data != "" && !json.Valid([]byte(s.Data)) {
		return fmt.Errorf("--data: must be JSON, not %q (text needs quotes of its own: '\"…\"')", contracts.Shorten(s.Data, 60))
	}
	return s.command().Check().Err()
}

// signalDocument is what --json prints.
type signalDocument struct {
	RunID    string           `json:"run_id"`
	Name     string           `json:"name"`
	Status   contracts.Status `json:"status"` // before the signal
	WaitsFor string           `json:"waits_for,omitempty"`
}

// Run runs the command.
func (s *signalCmd) Run(ctx context.Context, a *app) error {
	c, hangUp, err := a.dial()
	if err != nil {
		return err
	}
	defer hangUp()
	doc, err := a.signal(ctx, c, s.RunID, s.command())
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(doc)
	}
	switch doc.WaitsFor {
	case s.Name, contracts.AnySignal:
		a.out.printf("Run %s goes on.\n", s.RunID)
	default:
		a.out.printf("Run %s has the signal when it waits for it.\n", s.RunID)
	}
	a.out.next("watch it", "longhaul watch "+s.RunID)
	return nil
}

// signal sends a run a signal, if it can have any use for it.
func (a *app) signal(ctx context.Context, c *client.Client, runID string, cmd contracts.SignalCommand) (signalDocument, error) {
	head, err := a.head(ctx, c, runID)
	if err != nil {
		return signalDocument{}, err
	}
	if head.Status.Terminal() || head.Status == contracts.StatusCancelling {
		return signalDocument{}, &codedError{code: exitError, err: fmt.Errorf("run %s is %s: it takes no signal any more", runID, head.Status)}
	}
	return signalDocument{RunID: runID, Name: cmd.Name, Status: head.Status, WaitsFor: head.WaitsFor}, c.Signal(ctx, runID, cmd)
}
