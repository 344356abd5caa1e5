package builtin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"unicode/utf8"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

const (
	// maxLine bounds a line that is an event; an event must fit into a message
	// of the broker, 1 MiB by default, with its envelope.
	maxLine = 512 << 10
	// maxText is how much of a longer line of text goes into one delta.
	maxText = 32 << 10
)

// The types of a line that the program's output is not emitted for.
const (
	lineResult     = "result"
	lineCheckpoint = "checkpoint"
)

// outputLine is a line of stdout that is a JSON object.
type outputLine struct {
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload"`

	// Beside the payload of a result.
	FinalMessages []contracts.Message `json:"final_messages"`
	Usage         json.RawMessage     `json:"usage"`
	Artifacts     []json.RawMessage   `json:"artifacts"`
}

// outputReader turns a program's stdout into events. One goroutine uses it, and
// after that has ended the one that waits for the program.
type outputReader struct {
	ctx    context.Context //nolint:containedctx // of the one attempt that it lives for
	run    *agent.Run
	result agent.Result
	// failure is the payload of the program's last error event.
	failure *contracts.ErrorInfo
}

// read handles line by line until the end of r. The first error is given to
// stop, at once. After it read goes on, and drops what it reads: a program that
// is told to stop must be able to write its last words without blocking on a
// full pipe.
func (o *outputReader) read(r io.Reader, stop func(error)) {
	in := bufio.NewReaderSize(r, maxText)
	var line []byte
	stopped := false
	check := func(err error) {
		if err != nil && !stopped {
			stopped = true
			stop(err)
		}
	}
	for {
		part, err := in.ReadSlice('\n')
		if !stopped {
			var fault error
			line, fault = o.take(line, part, errors.Is(err, bufio.ErrBufferFull))
			check(fault)
		}
		switch {
		case err == nil || errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded):
			if !stopped && len(line) > 0 {
				check(o.line(line))
			}
			return
		default:
			check(fmt.Errorf("read the program's output: %w", err))
			return
		}
	}
}

// take adds part to the line that is being read, handles it if it is whole (or
// text long enough for a delta of its own), and returns what is still open.
func (o *outputReader) take(line, part []byte, more bool) ([]byte, error) {
	line = append(line, part...)
	isEvent := bytes.HasPrefix(bytes.TrimLeft(line, " \t"), []byte("{"))
	switch {
	case isEvent && len(line) > maxLine:
		return nil, agent.Permanent(fmt.Errorf("the program wrote an event of more than %d bytes in one line", maxLine))
	case more && isEvent:
		return line, nil
	case more:
		whole := wholeRunes(line)
		err := o.text(line[:whole])
		return append(line[:0], line[whole:]...), err
	case !bytes.HasSuffix(part, []byte("\n")):
		return line, nil // the end of the output; read handles it
	}
	return line[:0], o.line(line)
}

// wholeRunes returns how many bytes of b there are before a character that is
// cut off at its end.
func wholeRunes(b []byte) int {
	for i := len(b) - 1; i >= 0 && i >= len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if !utf8.FullRune(b[i:]) {
				return i
			}
			break
		}
	}
	return len(b)
}

// line handles one line, its newline included if it had one.
func (o *outputReader) line(raw []byte) error {
	trimmed := bytes.TrimSpace(raw)
	var l outputLine
	if !bytes.HasPrefix(trimmed, []byte("{")) || json.Unmarshal(trimmed, &l) != nil || l.Type == "" {
		return o.text(raw)
	}
	switch l.Type {
	case lineResult:
		o.result = agent.Result{FinalMessages: l.FinalMessages}
		if len(l.Payload) > 0 {
			o.result.FinalOutput = l.Payload
		}
		if len(l.Usage) > 0 {
			o.result.Usage = l.Usage
		}
		for _, a := range l.Artifacts {
			o.result.Artifacts = append(o.result.Artifacts, a)
		}
		return nil
	case lineCheckpoint:
		if len(l.Payload) == 0 {
			return agent.Permanent(errors.New("the program wrote a checkpoint without a payload"))
		}
		return o.run.Checkpoint(o.ctx, l.Payload)
	case string(contracts.TypeDelta):
		var d contracts.Delta
		if json.Unmarshal(l.Payload, &d) == nil {
			return o.run.Delta(d.Text) // which may be merged with others, unlike an event
		}
	case string(contracts.TypeError):
		info := contracts.ErrorInfo{Retriable: true}
		if json.Unmarshal(l.Payload, &info) == nil && info.Message != "" {
			o.failure = &info
		}
	}
	if t := contracts.EventType(l.Type); !t.Valid() || t.Reserved() {
		return agent.Permanent(fmt.Errorf("the program wrote an event of type %.80q: "+
			"a type is dotted lower-case words, outside run.*, state.* and step.*", l.Type))
	}
	var payload any
	if len(l.Payload) > 0 {
		payload = l.Payload
	}
	return o.run.Emit(l.Type, payload)
}

func (o *outputReader) text(raw []byte) error {
	return o.run.Delta(strings.ToValidUTF8(string(raw), "\uFFFD"))
}

// finish says what the attempt came to, once the program has ended with
// waitErr. cause is the one with which the attempt's context ended, if it did:
// the engine's, or the fault in the program's output that it was stopped for.
func (o *outputReader) finish(cause, waitErr error, stderr string) (agent.Result, error) {
	if cause != nil {
		return agent.Result{}, cause
	}
	if waitErr == nil || errors.Is(waitErr, exec.ErrWaitDelay) { // the latter: stdin was left unread
		return o.result, nil
	}
	var exit *exec.ExitError
	if !errors.As(waitErr, &exit) {
		return agent.Result{}, fmt.Errorf("wait for the program: %w", waitErr)
	}
	info := contracts.ErrorInfo{Type: "ExitError", Message: exit.String(), Retriable: true}
	if stderr != "" {
		info.Message += ": " + stderr
	}
	if o.failure != nil {
		info = *o.failure
		if info.Type == "" {
			info.Type = "ExitError"
		}
		if info.Stack == "" {
			info.Stack = stderr
		}
	}
	return agent.Result{}, &ExecError{Info: info}
}
