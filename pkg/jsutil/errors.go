package jsutil

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What the broker's refusals mean to us. Translate puts exactly one of them
// around an error of the broker, so that errors.Is decides and nobody else
// looks at error codes.
var (
	// ErrConflict: another write to the same subject came first.
	ErrConflict = errors.New("another write came first")
	// ErrNotFound: there is no such message or key.
	ErrNotFound = errors.New("not found")
	// ErrPresent: the subject holds a message already, and may hold but one.
	ErrPresent = errors.New("already present")
	// ErrUnavailable: the broker could not be reached or did not answer in
	// time. Whether it did what was asked is unknown; asking again may help.
	ErrUnavailable = errors.New("broker unavailable")
	// ErrNoTopology: the stream, bucket or consumer does not exist.
	ErrNoTopology = errors.New("streams or consumers are missing")
	// ErrRefused: the broker does not allow it, now or later.
	ErrRefused = errors.New("refused by the broker")
)

// meaning is the one table of JetStream's error codes (server/errors.json).
// A code that is not in it stays untranslated unless its HTTP-like status is
// 503, which is always a passing condition.
var meaning = map[jetstream.ErrorCode]error{
	10071: ErrConflict, // wrong last sequence
	10164: ErrConflict, // the same, on three replicas

	10037: ErrNotFound, // no message found

	10077: ErrPresent, // maximum messages per subject exceeded (also: stream full; see Translate)

	10059: ErrNoTopology, // stream not found
	10014: ErrNoTopology, // consumer not found
	10149: ErrNoTopology, // consumer does not exist
}

// Translate says what an error of nats.go or of the broker means to us. The
// result wraps one of this package's sentinels and err itself; an error that
// no rule knows, and one that is translated already, is returned as it is.
func Translate(err error) error {
	if err == nil {
		return nil
	}
	for _, s := range []error{ErrConflict, ErrNotFound, ErrPresent, ErrUnavailable, ErrNoTopology, ErrRefused} {
		if errors.Is(err, s) {
			return err
		}
	}
	if s := classify(err); s != nil {
		return fmt.Errorf("%w: %w", s, err)
	}
	return err
}

func classify(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		if s, ok := meaning[api.ErrorCode]; ok {
			return s
		}
		if api.Code == 503 {
			return ErrUnavailable
		}
		return nil
	}
	for _, r := range clientErrors {
		if errors.Is(err, r.is) {
			return r.means
		}
	}
	var netErr net.Error
	if errors.As(err, &netErr) {
		return ErrUnavailable
	}
	return nil
}

// clientErrors are nats.go's own errors.
var clientErrors = []struct{ is, means error }{
	{jetstream.ErrKeyNotFound, ErrNotFound},
	{jetstream.ErrKeyDeleted, ErrNotFound},
	{jetstream.ErrBucketNotFound, ErrNoTopology},
	{jetstream.ErrNoStreamResponse, ErrUnavailable},
	{jetstream.ErrAsyncPublishTimeout, ErrUnavailable},
	{jetstream.ErrConnectionClosed, ErrUnavailable},
	{jetstream.ErrServerShutdown, ErrUnavailable},
	{nats.ErrPermissionViolation, ErrRefused},
	{nats.ErrAuthorization, ErrRefused},
	{nats.ErrNoResponders, ErrUnavailable},
	{nats.ErrTimeout, ErrUnavailable},
	{nats.ErrDisconnected, ErrUnavailable},
	{nats.ErrConnectionClosed, ErrUnavailable},
	{nats.ErrConnectionReconnecting, ErrUnavailable},
	{nats.ErrNoServers, ErrUnavailable},
	{nats.ErrReconnectBufExceeded, ErrUnavailable},
	{context.DeadlineExceeded, ErrUnavailable},
}
