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
	var b strings.Builder
	if len(f) > 1 {
		b.WriteString(strconv.Itoa(len(f)) + " faults: ")
	}
	for i, fault := range f {
		if i > 0 {
			b.WriteString("; ")
		}
		if fault.Field != "" {
			b.WriteString(fault.Field + ": ")
		}
		b.WriteString(fault.Message)
	}
	return b.String()
}

// Err returns f as an error, nil if there is no fault. A plain conversion would
// make a non-nil error of an empty list.
func (f Faults) Err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}
