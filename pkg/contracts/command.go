package contracts

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

// MaxCommand bounds the body of a command, in bytes, and MaxReason its texts.
const (
	MaxCommand = 16 << 10
	MaxReason  = 1024
)
