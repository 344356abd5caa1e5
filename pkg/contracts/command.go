package contracts

import "encoding/json"

// CancelCommand is the body of runs.<id>.cancel; an empty body is one too.
type CancelCommand struct {
	Reason string `json:"reason,omitempty"`
	By     string `json:"by,omitempty"`
}

// RedriveCommand is the body of runs.<id>.redrive; an empty body is one too.
type RedriveCommand struct {
	By string `json:"by,omitempty"`
	// FromStart begins without the last checkpoint.
	FromStart bool `json:"from_start,omitempty"`
}

// SignalCommand is the body of runs.<id>.signal: a word to a run that waits for
// it, or will.
type SignalCommand struct {
	Name    string          `json:"name"`
	Payload json.RawMessage `json:"payload,omitempty"` // whatever the run makes of it
	By      string          `json:"by,omitempty"`
}

// Check returns everything that is wrong with a command that was built in Go,
// nil if it is good.
func (c SignalCommand) Check() Faults {
	data, err := Encode(c)
	if err != nil {
		return Faults{{Message: "cannot be encoded: " + err.Error()}}
	}
	_, faults := DecodeSignal(data)
	return faults
}

// MaxSignal bounds the body of a SignalCommand, in bytes, and MaxSignalName its name.
const (
	MaxSignal     = 256 << 10
	MaxSignalName = 100
)

// MaxCommand bounds the body of any other command, in bytes, and MaxReason its texts.
const (
	MaxCommand = 16 << 10
	MaxReason  = 1024
)
