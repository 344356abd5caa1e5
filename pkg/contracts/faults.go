package contracts

import (
	"strconv"
	"strings"
)

// Fault is one thing wrong with a message: where, and what was expected.
type Fault struct {
	// Field is the path of the value, such as input.messages[2].role; empty
	// where the message as a whole is meant.
	Field   string `json:"field"`
	Message string `json:"message"`
}

// Faults is everything wrong with a message, as an error.
type Faults []Fault

// Error lists every fault.
func (f Faults) Error() string {
	texts := make([]string, len(f))
	for i, fault := range f {
		texts[i] = strings.TrimPrefix(fault.Field+": "+fault.Message, ": ")
	}
	text := strings.Join(texts, "; ")
	if len(f) > 1 {
		return strconv.Itoa(len(f)) + " faults: " + text
	}
	return text
}

// Err returns f as an error, nil if there is no fault. A plain conversion would
// make a non-nil error of an empty list.
func (f Faults) Err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}
