package bench

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

const (
	// look is the pause between two looks at how far a load is. Each costs a few
	// requests.
	look = 10 * time.Millisecond
	// standstill is how long nothing at all may happen.
	standstill = time.Minute
)

// Load submits runs for the bench's agent and knows when they are done. One
// goroutine uses it.
type Load struct {
	// Client is what submits.
	Client *client.Client
	// Submits, if not nil, is told the id of each run before it is submitted. It
	// is called by whoever submits.
	Submits func(runID string)
	// Beside says that others' runs are live, too: that the streams are empty is
	// not waited for then.
	Beside bool

	key string
	js  jetstream.JetStream
}

func (l *Load) submits(runID string) {
	if l.Submits != nil {
		l.Submits(runID)
	}
}

// NewLoad returns a Load on nc for the agent under key.
func NewLoad(nc *nats.Conn, key string) (*Load, error) {
	c, err := client.New(nc)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	return &Load{Client: c, key: key, js: js}, nil
}

// Submit submits n runs of size bytes each, and returns when all are stored.
func (l *Load) Submit(ctx context.Context, n int, job Job, size int) error {
	s, err := Submission(l.key, job, size)
	if err != nil {
		return err
	}
	var many iter.Seq[contracts.Submission] = func(yield func(contracts.Submission) bool) {
		for range n {
			// Noted before it is sent: of those under way when ctx ends nobody tells.
			s.RunID = contracts.NewRunID()
			l.submits(s.RunID)
			if ctx.Err() != nil || !yield(s) {
				return
			}
		}
	}
	stored := 0
	for _, err := range l.Client.SubmitAll(ctx, many) {
		if err != nil {
			return err
		}
		stored++
	}
	if stored < n {
		return fmt.Errorf("%d of %d runs were submitted: %w", stored, n, context.Cause(ctx))
	}
	return nil
}

// Count is how many of the agent's runs statekeeper knows, by status.
func (l *Load) Count(ctx context.Context) (map[contracts.Status]int, error) {
	stats, err := l.Client.Stats(ctx)
	return stats.ByAgent[l.key], err
}

// Queued returns when the dispatcher has queued everything that was submitted.
func (l *Load) Queued(ctx context.Context) error {
	return l.until(ctx, "submissions to be queued", func() (left int, err error) {
		return l.messages(ctx, contracts.StreamInbox)
	})
}

// Done returns when n more runs have succeeded than before says: their work
// messages are gone, and their statuses stored. executed is when the former
// was seen.
func (l *Load) Done(ctx context.Context, before map[contracts.Status]int, n int) (executed time.Time, err error) {
	err = l.until(ctx, "runs to be executed", func() (left int, err error) {
		if l.Beside {
			return 0, nil
		}
		if left, err = l.messages(ctx, contracts.StreamInbox); err != nil || left > 0 {
			return left, err
		}
		return l.messages(ctx, contracts.StreamWork)
	})
	if err != nil {
		return executed, err
	}
	return time.Now(), l.Succeeded(ctx, before, n)
}

// Succeeded returns when the statuses of n more runs than before says are
// stored, and say that they have succeeded.
func (l *Load) Succeeded(ctx context.Context, before map[contracts.Status]int, n int) error {
	return l.until(ctx, "statuses", func() (left int, err error) {
		now, err := l.Count(ctx)
		for s, count := range now {
			if bad := count - before[s]; s.Terminal() && s != contracts.StatusSucceeded && bad > 0 {
				return 0, fmt.Errorf("%d runs ended as %s", bad, s)
			}
		}
		return n - (now[contracts.StatusSucceeded] - before[contracts.StatusSucceeded]), err
	})
}

// Hosted returns when the agent is known.
func (l *Load) Hosted(ctx context.Context) error {
	return l.until(ctx, "the agent to be registered", func() (left int, err error) {
		agents, err := l.Client.Agents(ctx)
		if slices.ContainsFunc(agents, func(a client.Agent) bool { return a.AgentKey == l.key }) {
			return 0, nil
		}
		return 1, err
	})
}

// Quiet returns when nobody has anything to do any more with what was
// submitted: all is queued, and all events are in the statuses.
func (l *Load) Quiet(ctx context.Context) error {
	return l.until(ctx, "what was submitted to be seen", func() (left int, err error) {
		for stream, name := range map[string]string{contracts.StreamInbox: contracts.ConsumerSubmit, contracts.StreamLog: contracts.ConsumerProjector} {
			c, err := l.js.Consumer(ctx, stream, name)
			if err != nil {
				return 0, fmt.Errorf("look at consumer %s: %w", name, jsutil.Translate(err))
			}
			left += int(c.CachedInfo().NumPending) + c.CachedInfo().NumAckPending
		}
		return left, nil
	})
}

// until polls left until nothing is, and gives up when it changes no more.
func (l *Load) until(ctx context.Context, what string, left func() (int, error)) error {
	last, changed := -1, time.Now()
	for {
		n, err := left()
		switch {
		case err != nil && !errors.Is(err, client.ErrUnavailable):
			return fmt.Errorf("wait for %s: %w", what, err)
		case err == nil && n <= 0:
			return nil
		case n != last:
			last, changed = n, time.Now()
		case time.Since(changed) > standstill:
			return fmt.Errorf("wait for %s: %d are left and nothing has happened for %s", what, n, standstill)
		}
		if err := pause(ctx, look); err != nil {
			return fmt.Errorf("wait for %s, %d are left: %w", what, n, err)
		}
	}
}

func (l *Load) messages(ctx context.Context, stream string) (int, error) {
	s, err := l.js.Stream(ctx, stream)
	if err != nil {
		return 0, fmt.Errorf("look at stream %s: %w", stream, err)
	}
	return int(s.CachedInfo().State.Msgs), nil
}
