package httpagent

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/tmaxmax/go-sse"

	"longhaul/pkg/agent"
	"longhaul/pkg/agent/builtin/internal/lines"
	"longhaul/pkg/agent/internal/remote"
	"longhaul/pkg/contracts"
)

// stream is an answer that is events.
type stream struct {
	sink  lines.Sink
	fault error // of an event itself, not of how it came
}

// take hands an event on, and reports whether more may come.
func (s *stream) take(l lines.Line, ok bool) bool {
	if !ok {
		s.fault = remote.Fail(remote.TypeBadAnswer, false, `there is something in the answer that is no event: each is {"type": …, "payload": …}`)
		return false
	}
	s.fault = s.sink.Take(l)
	return s.fault == nil && !s.sink.Ended
}

// readLines takes events one a line, up to the result.
func (s *stream) readLines(in io.Reader) error {
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, lines.Max+1)
	for scanner.Scan() {
		raw := bytes.TrimSpace(scanner.Bytes())
		if len(raw) == 0 {
			continue
		}
		l, ok := lines.Parse(raw)
		if !ok && !scanner.Scan() {
			break // the last line, which is cut off
		}
		if !s.take(l, ok) {
			return nil
		}
	}
	return scanner.Err()
}

// readSSE takes server-sent events, up to the result.
func (s *stream) readSSE(in io.Reader) error {
	for e, err := range sse.Read(in, &sse.ReadConfig{MaxEventSize: lines.Max}) {
		if err != nil {
			return err
		}
		if !s.take(line(e)) {
			return nil
		}
	}
	return nil
}

// line is what an event stands for: what its data says, or its name with the
// data as the payload.
func line(e sse.Event) (lines.Line, bool) {
	if l, ok := lines.Parse([]byte(e.Data)); ok || e.Type == "" {
		return l, ok
	}
	l := lines.Line{Type: e.Type}
	if json.Valid([]byte(e.Data)) {
		l.Payload = json.RawMessage(e.Data)
	} else if e.Data != "" {
		l.Payload, _ = contracts.Encode(strings.ToValidUTF8(e.Data, "\uFFFD")) // a string always encodes
	}
	return l, true
}

// result is what the answer came to, once it was read up to its result, its
// end, or err.
func (s *stream) result(err error) (agent.Result, error) {
	switch {
	case errors.Is(err, bufio.ErrTooLong):
		return agent.Result{}, remote.Fail(remote.TypeAnswerTooLong, false, "an event is above %d bytes", lines.Max)
	case s.fault != nil:
		return agent.Result{}, s.fault
	case s.sink.Ended:
		return s.sink.Result, nil
	case s.sink.Failure != nil:
		info := *s.sink.Failure
		if info.Type == "" {
			info.Type = remote.TypeUnavailable
		}
		return agent.Result{}, &remote.Failure{Info: info}
	case err != nil:
		return agent.Result{}, broken(err)
	}
	return agent.Result{}, remote.Fail(remote.TypeCutOff, true, "the answer ended without a result")
}
