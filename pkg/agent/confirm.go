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

// ask asks for somebody's word on a call, once.
func (t *tool) ask(ctx context.Context, run *Run, call contracts.ToolCall) (word, error) {
	if call.ID == "" {
		return word{}, Permanent(errors.New("the call has no id to confirm it by"))
	}
	name := contracts.ConfirmSignal(call.ID)
	return run.await(ctx, name, cmp.Or(t.ConfirmWithin, defaultConfirmWithin), func(deadline time.Time) error {
		return run.emit(contracts.TypeToolConfirm, contracts.VisibilityUser, contracts.ToolConfirm{
			Call: call, Signal: name, Deadline: deadline, Otherwise: cmp.Or(string(t.Unanswered), "refuse"),
		})
	})
}

// heard says why the call is not to be made, "" if it is, by what was said; the
// error ends the attempt. It is remembered, as Wait does.
func (t *tool) heard(ctx context.Context, run *Run, w word) (refusal string, err error) {
	word, err := run.hear(ctx, w)
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
