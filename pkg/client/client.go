// Package client is what a program imports that submits runs, follows them and
// steers them.
//
// A Client needs nothing but a NATS connection and permission for the subjects
// of docs/protocol.md. Submit, Cancel and Redrive return when the broker has
// stored the request; nobody else needs to be up at that moment. Follow and
// Wait read the run's log. Get, List and Stats ask statekeeper, whose view of
// many runs may lag by milliseconds.
package client

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
	"longhaul/pkg/seal"
	"longhaul/pkg/tracing"
)

// What a Client's errors wrap, for errors.Is. An invalid submission or command
// is a contracts.Faults, for errors.As.
var (
	// ErrNotFound: there is no such run, checkpoint or agent.
	ErrNotFound = jsutil.ErrNotFound
	// ErrUnavailable: the broker could not be reached or did not answer in
	// time. A submission may have been stored all the same; to submit it again
	// under the same run id is safe.
	ErrUnavailable = jsutil.ErrUnavailable
	// ErrNoTopology: the broker lacks Longhaul's streams. A dispatcher or
	// statekeeper creates them when it starts.
	ErrNoTopology = jsutil.ErrNoTopology
	// ErrNoStatekeeper: the broker answers, but no statekeeper does.
	ErrNoStatekeeper = errors.New("no statekeeper answers")
	// ErrInvalid: statekeeper did not accept the request.
	ErrInvalid = errors.New("invalid request")
)

const (
	// maxInFlight bounds the submissions of SubmitAsync that the broker has not
	// acknowledged yet. Past a few hundred throughput no longer grows.
	maxInFlight = 512
	// ackTimeout bounds the wait for one acknowledgement. A broker that changes
	// its leader takes up to 6 s.
	ackTimeout = 10 * time.Second
	// submitTry bounds the wait for that of one of Submit's tries.
	submitTry = 3 * time.Second
	// leastPause and mostPause lie between two of them, longer each time: a broker
	// that is full says so at once.
	leastPause, mostPause = 50 * time.Millisecond, time.Second
	// lookTimeout bounds the look at the run that an idempotency key stands for.
	lookTimeout = 500 * time.Millisecond
	// apiTimeout bounds one request to statekeeper.
	apiTimeout = 10 * time.Second
	// sweepTimeout bounds a sweep, which reads every run.
	sweepTimeout = time.Minute + apiTimeout
)

// Client speaks to Longhaul over one NATS connection, which stays the caller's
// to close. Its methods may be called from several goroutines.
type Client struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	direct *direct
	log    *runlog.Log
	// keys seal and open; nil without.
	keys *seal.Keys

	tracer *tracing.Tracer
}

// WithTracer has spans made of submissions. Without it there is one for each whose
// context has a span that is kept; and either way the run's spans are a part of that.
func WithTracer(t *tracing.Tracer) Option { return func(c *Client) { c.tracer = t } }

// New returns a Client on nc.
func New(nc *nats.Conn, opts ...Option) (*Client, error) {
	js, err := jetstream.New(nc,
		jetstream.WithDefaultTimeout(ackTimeout),
		jetstream.WithPublishAsyncMaxPending(maxInFlight),
		jetstream.WithPublishAsyncTimeout(ackTimeout))
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	d, err := newDirect(nc)
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	c := &Client{nc: nc, js: js, direct: d, log: runlog.New(js)}
	for _, set := range opts {
		set(c)
	}
	return c, nil
}
