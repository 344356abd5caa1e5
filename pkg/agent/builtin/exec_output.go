package builtin

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"unicode/utf8"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/builtin/internal/lines"
	"longhaul/pkg/contracts"
)

// maxText is how much of a longer line of text goes into one delta.
const maxText = 32 << 10

// outputReader turns a program's stdout into events. One goroutine uses it, and
// after that has ended the one that waits for the program.
type outputReader struct {
	sink lines.Sink
	left int64 // bytes that may still come
	max  int64
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
		if o.left -= int64(len(part)); o.left < 0 {
			check(agent.Permanent(fmt.Errorf("the program wrote more than %d bytes to stdout", o.max)))
		}
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
	case isEvent && len(line) > lines.Max:
		return nil, agent.Permanent(fmt.Errorf("the program wrote an event of more than %d bytes in one line", lines.Max))
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
	l, ok := lines.Parse(raw)
	if !ok {
		return o.text(raw)
	}
	return o.sink.Take(l)
}

func (o *outputReader) text(raw []byte) error {
	return o.sink.Run.Delta(strings.ToValidUTF8(string(raw), "\uFFFD"))
}

// finish says what the attempt came to, once the program has ended with
// waitErr. cause is the one with which the attempt's context ended, if it did:
// the engine's, or the fault in the program's output that it was stopped for.
func (o *outputReader) finish(cause, waitErr error, stderr string) (agent.Result, error) {
	if cause != nil {
		return agent.Result{}, cause
	}
	if waitErr == nil || errors.Is(waitErr, exec.ErrWaitDelay) { // the latter: stdin was left unread
		return o.sink.Result, nil
	}
	var exit *exec.ExitError
	if !errors.As(waitErr, &exit) {
		return agent.Result{}, fmt.Errorf("wait for the program: %w", waitErr)
	}
	info := contracts.ErrorInfo{Type: "ExitError", Message: exit.String(), Retriable: true}
	if stderr != "" {
		info.Message += ": " + stderr
	}
	if o.sink.Failure != nil {
		info = *o.sink.Failure
		if info.Type == "" {
			info.Type = "ExitError"
		}
		if info.Stack == "" {
			info.Stack = stderr
		}
	}
	return agent.Result{}, &ExecError{Info: info}
}
