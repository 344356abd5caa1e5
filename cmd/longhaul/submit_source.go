package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"longhaul/pkg/contracts"
)

// source reads submissions: one JSON document, or JSON lines.
type source struct {
	// single is the submission if there is but one.
	single *contracts.Submission

	base  contracts.Submission
	in    *bufio.Reader
	ahead [][]byte // lines that are read already
	line  int
}

// maxLine bounds one line of input; what is larger is refused by the broker's side anyway.
const maxLine = contracts.MaxSubmission + 1

// newSource looks at the beginning of in to tell what it holds. What a
// submission leaves out is taken from base.
func newSource(in io.Reader, base contracts.Submission) (*source, error) {
	s := &source{base: base, in: bufio.NewReaderSize(in, 64<<10)}
	first, err := s.read()
	if errors.Is(err, io.EOF) {
		return nil, usagef("there is no submission to read")
	}
	if err != nil {
		return nil, err
	}
	if !completeJSON(first) {
		return s, s.wholeDocument(first)
	}
	second, err := s.read()
	switch {
	case errors.Is(err, io.EOF):
		sub, err := s.decode(first)
		s.single = &sub
		return s, err
	case err != nil:
		return nil, err
	}
	if base.RunID != "" || base.IdempotencyKey != "" {
		return nil, usagef("--run-id and --idempotency-key name one run; the input holds several")
	}
	s.ahead = [][]byte{first, second}
	return s, nil
}

// wholeDocument reads the rest as one document that spans lines.
func (s *source) wholeDocument(first []byte) error {
	rest, err := io.ReadAll(io.LimitReader(s.in, maxLine))
	if err != nil {
		return fmt.Errorf("read submissions: %w", err)
	}
	sub, err := s.decode(append(append(first, '\n'), rest...))
	s.single = &sub
	return err
}

// next returns the next submission and its line's number; io.EOF at the end.
// Any other error of an unread input is final; faults are those of one line.
func (s *source) next() (contracts.Submission, int, error) {
	var line []byte
	if len(s.ahead) > 0 {
		line, s.ahead = s.ahead[0], s.ahead[1:]
	} else {
		var err error
		if line, err = s.read(); err != nil {
			return contracts.Submission{}, s.line, err
		}
	}
	s.line++
	sub, err := s.decode(line)
	return sub, s.line, err
}

// read returns the next line that is not blank.
func (s *source) read() ([]byte, error) {
	for {
		var line []byte
		for {
			part, err := s.in.ReadSlice('\n')
			if len(line)+len(part) > maxLine {
				return nil, usagef("a line of the input is longer than %d bytes", contracts.MaxSubmission)
			}
			line = append(line, part...)
			if err == nil || errors.Is(err, io.EOF) && len(line) > 0 {
				break
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				if errors.Is(err, io.EOF) {
					return nil, io.EOF
				}
				return nil, fmt.Errorf("read submissions: %w", err)
			}
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return line, nil
		}
	}
}

// decode reads one submission as strictly as the dispatcher would, with what
// it leaves out taken from the flags.
func (s *source) decode(data []byte) (contracts.Submission, error) {
	sub, faults := contracts.DecodeSubmission(data)
	if s.base.AgentKey != "" && sub.AgentKey == "" {
		// The only member that a submission on its own must have.
		faults = withoutField(faults, "agent_key")
	}
	if len(faults) > 0 {
		return sub, fmt.Errorf("submission: %w", faults)
	}
	fill(&sub.RunID, s.base.RunID)
	fill(&sub.IdempotencyKey, s.base.IdempotencyKey)
	fill(&sub.AgentKey, s.base.AgentKey)
	fill(&sub.ConversationID, s.base.ConversationID)
	fill(&sub.OnConflict, s.base.OnConflict)
	fill(&sub.Priority, s.base.Priority)
	fill(&sub.TimeoutSeconds, s.base.TimeoutSeconds)
	fill(&sub.StartTimeoutSeconds, s.base.StartTimeoutSeconds)
	fill(&sub.MaxAttempts, s.base.MaxAttempts)
	if sub.NotBefore.IsZero() {
		sub.NotBefore = s.base.NotBefore
	}
	if sub.Metadata == nil {
		sub.Metadata = s.base.Metadata
	}
	if len(sub.Input.Messages) == 0 {
		sub.Input.Messages = s.base.Input.Messages
	}
	if len(sub.Input.Params) == 0 {
		sub.Input.Params = s.base.Input.Params
	}
	return sub, nil
}

func fill[T comparable](v *T, with T) {
	var zero T
	if *v == zero {
		*v = with
	}
}

func withoutField(faults contracts.Faults, field string) contracts.Faults {
	var rest contracts.Faults
	for _, f := range faults {
		if f.Field != field {
			rest = append(rest, f)
		}
	}
	return rest
}

// completeJSON reports whether line is likely a document of its own: JSON
// lines with a broken one among them are still lines.
func completeJSON(line []byte) bool {
	return bytes.HasPrefix(line, []byte("{")) && bytes.HasSuffix(line, []byte("}"))
}

// cutAssignment cuts NAME=VALUE.
func cutAssignment(s string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(s, "=")
	return name, value, ok && name != ""
}
