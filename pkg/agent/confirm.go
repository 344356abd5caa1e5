package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"time"

	"longhaul/pkg/contracts"
)

// Unanswered is what becomes of a call that requires a confirmation and gets no answer.
type Unanswered string

// What can become of it.
const (
	RefuseCall Unanswered = ""        // the model is told that nobody has confirmed it
	MakeCall   Unanswered = "confirm" // it is made
)

const defaultConfirmWithin = 24 * time.Hour

// confirm asks for a word on a call and waits for it. It says why the call is
// not to be made, "" if it is; the error ends the attempt. What was said is
// remembered, as Wait does.
func (t *tool) confirm(ctx context.Context, run *Run, call contracts.ToolCall) (refusal string, err error) {
	if call.ID == "" {
		return "", Permanent(errors.New("the call has no id to confirm it by"))
	}
	name := contracts.ConfirmSignal(call.ID)
	word, err := run.wait(ctx, name, cmp.Or(t.ConfirmWithin, defaultConfirmWithin), func(deadline time.Time) error {
		return run.emit(contracts.TypeToolConfirm, contracts.VisibilityUser, contracts.ToolConfirm{
			Call: call, Signal: name, Deadline: deadline, Otherwise: cmp.Or(string(t.Unanswered), "refuse"),
		})
	})
	switch {
	case errors.Is(err, ErrSignalTimeout) && t.Unanswered == MakeCall:
		return "", nil
	case errors.Is(err, ErrSignalTimeout):
		return "refused: nobody has confirmed it in time", nil
	case err != nil:
		return "", err
	}
	var said contracts.Confirmation
	if json.Unmarshal(word.Payload, &said) != nil {
		said = contracts.Confirmation{Reason: "the answer could not be understood"} // whatever it was, it was no yes
	}
	switch {
	case said.Confirmed:
		return "", nil
	case said.Reason == "":
		return "refused", nil
	}
	return "refused: " + said.Reason, nil
}
