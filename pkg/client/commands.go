package client

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// Cancel asks for the end of a run. It returns when the request is stored; the
// run ends soon after, with an event run.cancelled unless something else ended
// it first. For a run that has ended, or that there is not, it does nothing.
func (c *Client) Cancel(ctx context.Context, runID string, cmd contracts.CancelCommand) error {
	if err := checkRunID(runID); err != nil {
		return err
	}
	if err := checkTexts(field{"reason", cmd.Reason}, field{"by", cmd.By}); err != nil {
		return fmt.Errorf("cancel run %s: %w", runID, err)
	}
	if err := c.command(ctx, contracts.CancelSubject(runID), cmd); err != nil {
		return fmt.Errorf("cancel run %s: %w", runID, err)
	}
	return nil
}

// Redrive asks for a new round of a run that failed, timed out or was
// cancelled: its attempts count anew, and it goes on from its last checkpoint
// unless cmd.FromStart is set. It returns when the request is stored. For any
// other run it does nothing.
func (c *Client) Redrive(ctx context.Context, runID string, cmd contracts.RedriveCommand) error {
	if err := checkRunID(runID); err != nil {
		return err
	}
	if err := checkTexts(field{"by", cmd.By}); err != nil {
		return fmt.Errorf("redrive run %s: %w", runID, err)
	}
	if err := c.command(ctx, contracts.RedriveSubject(runID), cmd); err != nil {
		return fmt.Errorf("redrive run %s: %w", runID, err)
	}
	return nil
}

// Signal sends a run a signal, which it waits for or will (agent.Wait). It
// returns when the signal is stored; the run has it when no worker holds it, at
// most some two seconds later. A run that has ended, or that there is not, gets none.
func (c *Client) Signal(ctx context.Context, runID string, cmd contracts.SignalCommand) error {
	if err := checkRunID(runID); err != nil {
		return err
	}
	err := cmd.Check().Err()
	if err == nil {
		cmd, err = c.sealedSignal(runID, cmd)
	}
	if err == nil {
		err = c.command(ctx, contracts.SignalSubject(runID), cmd)
	}
	if err != nil {
		return fmt.Errorf("signal run %s: %w", runID, err)
	}
	return nil
}

func (c *Client) command(ctx context.Context, subject string, cmd any) error {
	data, err := contracts.Encode(cmd)
	if err != nil {
		return err
	}
	_, err = c.js.Publish(ctx, subject, data, jetstream.WithExpectStream(contracts.StreamInbox))
	return jsutil.Translate(err)
}

type field struct{ name, text string }

func checkTexts(fields ...field) error {
	var faults contracts.Faults
	for _, f := range fields {
		if len(f.text) > contracts.MaxReason {
			faults = append(faults, contracts.Fault{Field: f.name,
				Message: fmt.Sprintf("has %d bytes; at most %d are allowed", len(f.text), contracts.MaxReason)})
		}
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}
