package jsutil

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What the broker's errors mean to us. Translate puts exactly one of them
// around an error, so that errors.Is decides and nobody else looks at codes.
var (
	// ErrConflict: another write to the subject came first. Nothing was stored.
	ErrConflict = errors.New("another write came first")
	// ErrNotFound: there is no such message or key.
	ErrNotFound = errors.New("not found")
	// ErrPresent: the subject may hold but one message, and has it. Nothing was stored.
	ErrPresent = errors.New("already present")
	// ErrUnavailable: the broker could not be reached, did not answer in time
	// or can't do it just now. It may have done what was asked all the same;
	// asking again later may help. Under a context that has a deadline, and for
	// a user without permission, a missing answer looks the same: the broker
	// reports a forbidden publish to the connection's log alone.
	ErrUnavailable = errors.New("broker unavailable")
	// ErrNoTopology: the stream, bucket or consumer does not exist.
	ErrNoTopology = errors.New("stream or consumer missing")
	// ErrRefused: the broker does not allow it; asking again will not help.
	ErrRefused = errors.New("refused by the broker")
)

// codes is the one table of JetStream's error codes (errors.json of the
// server) whose HTTP-like status does not say what they mean; see classifyCode
// for the others.
var codes = map[jetstream.ErrorCode]error{
	10071: ErrConflict, // wrong last sequence
	10164: ErrConflict, // the same, mostly on three replicas

	10037: ErrNotFound, // no message found
	10043: ErrNotFound, // sequence not found

	10059: ErrNoTopology, // stream not found
	10014: ErrNoTopology, // consumer not found
	10149: ErrNoTopology, // consumer does not exist

	10002: ErrUnavailable, // resource limits exceeded for account: passes once something is deleted
	10007: ErrUnavailable, // cluster not assigned to this server
	10009: ErrUnavailable, // not the leader
	10028: ErrUnavailable, // insufficient memory
	10047: ErrUnavailable, // insufficient storage
	10118: ErrUnavailable, // stream is offline
	10119: ErrUnavailable, // consumer is offline
	10158: ErrUnavailable, // a message with this id is in process
	10194: ErrUnavailable, // stream is offline, with the reason
	10195: ErrUnavailable, // consumer is offline, with the reason

	10010: ErrRefused, // JetStream clustering required
	10036: ErrRefused, // not supported in a cluster
	10111: ErrRefused, // rollup not permitted
}

// storeFailed is the code that the broker uses for everything its store says
// no to; only the description tells what.
const storeFailed = 10077

// clientErrors are the errors that nats.go makes by itself.
var clientErrors = []struct {
	means error
	are   []error
}{
	{ErrNotFound, []error{jetstream.ErrKeyNotFound, jetstream.ErrKeyDeleted}},
	{ErrConflict, []error{jetstream.ErrKeyRevisionMismatch}},
	{ErrNoTopology, []error{jetstream.ErrBucketNotFound, jetstream.ErrConsumerDeleted}},
	{ErrRefused, []error{nats.ErrPermissionViolation, nats.ErrAuthorization, nats.ErrMaxPayload, nats.ErrBadSubject}},
	{ErrUnavailable, []error{
		jetstream.ErrNoStreamResponse, jetstream.ErrAsyncPublishTimeout, jetstream.ErrTooManyStalledMsgs, jetstream.ErrConnectionClosed,
		jetstream.ErrServerShutdown, jetstream.ErrConsumerLeadershipChanged, jetstream.ErrNoHeartbeat,
		nats.ErrNoResponders, nats.ErrTimeout, nats.ErrDisconnected, nats.ErrConnectionClosed, nats.ErrConnectionDraining,
		nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded, nats.ErrStaleConnection, nats.ErrNoServers,
		context.DeadlineExceeded,
	}},
}

// sentinels are what Translate may answer with.
var sentinels = []error{ErrConflict, ErrNotFound, ErrPresent, ErrUnavailable, ErrNoTopology, ErrRefused}

// Translate says what an error of nats.go or of the broker means to us: the
// result wraps one of this package's sentinels and err. An error that is
// translated already, or that is none of the broker's (a cancelled context
// among them), is returned as it is; nil stays nil.
func Translate(err error) error {
	if err == nil {
		return nil
	}
	if slices.ContainsFunc(sentinels, func(s error) bool { return errors.Is(err, s) }) {
		return err
	}
	if s := classify(err); s != nil {
		return fmt.Errorf("%w: %w", s, err)
	}
	return err
}

// Ignoring returns err, but nil if it is the one expected.
func Ignoring(expected, err error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

// classify returns the sentinel for err, or nil.
func classify(err error) error {
	if api := (*jetstream.APIError)(nil); errors.As(err, &api) {
		return classifyCode(api)
	}
	for _, c := range clientErrors {
		if slices.ContainsFunc(c.are, func(known error) bool { return errors.Is(err, known) }) {
			return c.means
		}
	}
	if netErr := net.Error(nil); errors.As(err, &netErr) {
		return ErrUnavailable
	}
	return nil
}

func classifyCode(api *jetstream.APIError) error {
	if s, known := codes[api.ErrorCode]; known {
		return s
	}
	if api.ErrorCode == storeFailed {
		switch {
		case strings.Contains(api.Description, "per subject"):
			return ErrPresent
		case strings.Contains(api.Description, "large"): // "message to large"
			return ErrRefused
		}
		return ErrUnavailable // full by count or by bytes, or the disk failed
	}
	switch api.Code {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusRequestTimeout:
		return ErrUnavailable
	case http.StatusBadRequest: // of the request itself: its size, a header that the stream does not take
		return ErrRefused
	}
	return nil
}
