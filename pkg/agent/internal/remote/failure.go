// Package remote holds what the agents that call a service over HTTP have in
// common: which answers are worth another attempt and when, and secrets that
// must not get into a log.
package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// The types of the errors that calls of a service come to.
const (
	TypeRateLimited   = "RateLimited"        // status 429
	TypeUnavailable   = "ServiceUnavailable" // another status that passes
	TypeUnauthorized  = "Unauthorized"       // 401 and 403
	TypeRefused       = "RequestRefused"     // another status that does not pass
	TypeUnreachable   = "ServiceUnreachable" // no answer at all
	TypeCutOff        = "AnswerCutOff"       // an answer that broke off
	TypeStalled       = "AnswerStalled"      // one that did not go on
	TypeBadAnswer     = "BadAnswer"          // one that makes no sense
	TypeAnswerTooLong = "AnswerTooLong"      // one above what is taken
)

// Failure is an error that says itself what a run's log is to say of it.
type Failure struct{ Info contracts.ErrorInfo }

// Error returns the message.
func (f *Failure) Error() string { return f.Info.Message }

// Fail makes a Failure.
func Fail(kind string, retriable bool, format string, args ...any) *Failure {
	return &Failure{contracts.ErrorInfo{Type: kind, Message: fmt.Sprintf(format, args...), Retriable: retriable}}
}

// Classify is the OnError of agents whose errors are Failures.
func Classify(_ context.Context, _ *agent.Run, err error) *contracts.ErrorInfo {
	var f *Failure
	if !errors.As(err, &f) {
		return nil
	}
	info := f.Info
	return &info
}

// Retriable reports whether a call that was answered with this status may go
// better later: 429 and 5xx, and what says "not now" by other numbers.
func Retriable(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusConflict, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return status >= 500
}

// Status is the Failure that an answer with a status of 400 or above stands
// for. message is what the service says about it.
func Status(status int, header http.Header, message string) *Failure {
	kind := TypeRefused
	switch {
	case status == http.StatusTooManyRequests:
		kind = TypeRateLimited
	case Retriable(status):
		kind = TypeUnavailable
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		kind = TypeUnauthorized
	}
	f := Fail(kind, Retriable(status), "status %d %s", status, http.StatusText(status))
	if message != "" {
		f.Info.Message += ": " + contracts.Shorten(message, 4<<10)
	}
	if f.Info.Retriable {
		f.Info.RetryAfterSeconds = RetryAfter(header, time.Now())
	}
	f.Info.Details, _ = contracts.Encode(map[string]int{"status": status}) // which always encodes
	return f
}

// RetryAfter is how many seconds to wait as Retry-After has it, in seconds or
// as a date, or retry-after-ms, which some providers add; 0 if nothing is said.
func RetryAfter(header http.Header, now time.Time) float64 {
	if ms, err := strconv.ParseFloat(header.Get("Retry-After-Ms"), 64); err == nil && ms > 0 {
		return ms / 1000
	}
	said := header.Get("Retry-After")
	if seconds, err := strconv.ParseFloat(said, 64); err == nil {
		return max(seconds, 0)
	}
	if at, err := http.ParseTime(said); err == nil {
		return max(at.Sub(now).Seconds(), 0)
	}
	return 0
}

// Unreachable is the Failure of a call that was not answered. An address may
// hold secrets, so that of the error is left out.
func Unreachable(err error) *Failure {
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	return Fail(TypeUnreachable, true, "the service cannot be reached: %v", err)
}
