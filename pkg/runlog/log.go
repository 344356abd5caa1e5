package runlog

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// Errors of this package's own. What the broker says comes as jsutil's errors.
var (
	// ErrMalformed is in the error for a stored message that is no event, or
	// not one of its run. A reader may go on after it.
	ErrMalformed = errors.New("malformed event in the log")
	// ErrGap is in the error that tells a reader that events are missing from
	// the log: removed by retention, or by hand. A reader may go on after it.
	ErrGap = errors.New("events are missing from the log")
	// ErrTooLarge is in the error for an event that the broker's max_payload
	// does not allow. Nothing was sent.
	ErrTooLarge = errors.New("event is larger than the broker allows")
)

// Head is the head of a run's log and where it stands in RUNS_LOG. The zero
// Head is that of an empty log.
type Head struct {
	contracts.Head
	// Sequence is the stream sequence of the last event: what the next append
	// is compared with.
	Sequence uint64
}

// Entry is one event as it stands in RUNS_LOG.
type Entry struct {
	contracts.Event
	// Sequence is the event's stream sequence. It rises along a log, with gaps,
	// for all runs share the stream.
	Sequence uint64
}

// Head returns the head of a log that ends with e.
func (e Entry) Head() Head { return Head{Head: e.Event.Head(), Sequence: e.Sequence} }

// Log appends to and reads the logs of all runs. Make one per connection; its
// methods may be called from several goroutines at once.
type Log struct {
	js jetstream.JetStream
	nc *nats.Conn

	one, all limits // of Follow and FollowAll; constant but for tests
}

// New returns the logs behind js. It does no I/O.
//
// Appends go through js's asynchronous publisher, which holds a place for each
// publish until its ack arrives. Make js with
// jetstream.WithPublishAsyncTimeout (jsutil.JetStream does): without it an ack
// that is lost while the connection stays up is waited for for ever, and its
// place never given back.
func New(js jetstream.JetStream) *Log {
	return &Log{
		js: js, nc: js.Conn(),
		one: limits{messages: 512, bytes: 8 << 20, first: firstCheck, check: checkInterval},
		all: limits{messages: 8192, bytes: 32 << 20, first: firstCheck, check: checkInterval},
	}
}

// Purge removes the events of a log up to at, and leaves what was appended since.
func (l *Log) Purge(ctx context.Context, at Head) error {
	return jsutil.Purge(ctx, l.nc, contracts.StreamLog, contracts.EventsSubject(at.RunID), at.Sequence+1)
}
