package client

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"longhaul/pkg/contracts"
)

// Asked is a call of a tool that a run asks for somebody's word on.
type Asked struct {
	Seq uint64 `json:"seq"` // of the event that asks
	contracts.ToolConfirm
}

// Confirmations lists the calls that a run waits to have confirmed, in the
// order of the asking. It reads the whole log. Of a run that has ended there are
// none.
func (c *Client) Confirmations(ctx context.Context, runID string) ([]Asked, error) {
	open, ended := map[string]Asked{}, false
	for e, err := range c.History(ctx, runID, 1) {
		if err != nil {
			return nil, fmt.Errorf("confirmations of run %s: %w", runID, err)
		}
		ended = e.Status.Terminal()
		var p struct { // what is read of the payloads, of all types in one
			contracts.ToolConfirm
			Name      string `json:"name"`
			FromStart bool   `json:"from_start"`
		}
		switch e.Type {
		case contracts.TypeToolConfirm, contracts.TypeSignalled, contracts.TypeStepCompleted, contracts.TypeRequeued:
			if err := json.Unmarshal(e.Payload, &p); err != nil { // of an agent's own it may be anything
				continue
			}
		}
		switch {
		case e.Type == contracts.TypeToolConfirm && p.Signal != "":
			open[p.Signal] = Asked{Seq: e.Seq, ToolConfirm: p.ToolConfirm}
		case e.Type == contracts.TypeSignalled:
			delete(open, p.Name)
		case e.Type == contracts.TypeStepCompleted: // perhaps of the wait, whose time was over
			delete(open, strings.TrimPrefix(p.Name, "signal:"))
		case p.FromStart:
			clear(open)
		}
	}
	if ended {
		return nil, nil
	}
	return slices.SortedFunc(maps.Values(open), func(a, b Asked) int { return int(a.Seq) - int(b.Seq) }), nil //nolint:gosec // counts of events
}

// Confirm answers for a call that a run asks about, by the call's id. It
// returns when the answer is stored. The first answer counts; one to a call that
// is not asked about does nothing.
func (c *Client) Confirm(ctx context.Context, runID, callID, by string, answer contracts.Confirmation) error {
	payload, err := contracts.Encode(answer)
	if err != nil {
		return fmt.Errorf("confirm call %s: %w", callID, err)
	}
	return c.Signal(ctx, runID, contracts.SignalCommand{Name: contracts.ConfirmSignal(callID), Payload: payload, By: by})
}
