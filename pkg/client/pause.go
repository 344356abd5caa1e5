package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// PauseOptions say which queues of an agent are paused, and for how long. The
// zero value is all of them, until they are resumed.
type PauseOptions struct {
	Priorities []contracts.Priority // none: all
	For        time.Duration        // 0: until Resume
	Reason, By string               // shown beside the queue; either may be empty
}

// ErrNoQueue says that an agent has no queue: no worker has ever served it.
var ErrNoQueue = errors.New("the agent has no queue: no worker has ever served it")

// A pause is the broker's own, of the consumer that workers pull from, and no
// state of ours: it outlasts restarts of everything, and whoever makes sure
// that the consumer stands leaves it alone (jsutil's settings). Why, and who,
// are kept in the consumer's metadata.
const (
	pauseReason = "longhaul.pause.reason"
	pauseBy     = "longhaul.pause.by"
)

// untilResumed is the end of a pause without one: the broker wants a time.
var untilResumed = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// Pause has workers be handed no more runs of an agent. Runs that are executed
// go on to their end; what would be handed out again meanwhile waits like the
// rest: retries, sleepers that wake, and runs whose worker has died.
//
// It returns the agent's queues as they are then. Pausing what is paused sets
// a new end and reason; of two who do so at the same moment the last one counts.
// An error that comes halfway leaves some of the queues paused; it is safe to try again.
func (c *Client) Pause(ctx context.Context, agentKey string, o PauseOptions) ([]Queue, error) {
	if err := checkTexts(field{"reason", o.Reason}, field{"by", o.By}); err != nil {
		return nil, fmt.Errorf("pause agent %s: %w", agentKey, err)
	}
	until := untilResumed
	if o.For > 0 {
		until = time.Now().Add(o.For)
	}
	return c.pause(ctx, "pause", agentKey, o.Priorities, until, map[string]string{pauseReason: o.Reason, pauseBy: o.By})
}

// Resume ends a pause, of all priorities if none is named. For queues that are
// not paused it does nothing. It returns the agent's queues as they are then.
func (c *Client) Resume(ctx context.Context, agentKey string, priorities ...contracts.Priority) ([]Queue, error) {
	return c.pause(ctx, "resume", agentKey, priorities, time.Time{}, map[string]string{pauseReason: "", pauseBy: ""})
}

// pause sets the end of the pause, none if it is zero, and what metadata says of it.
func (c *Client) pause(ctx context.Context, what, agentKey string, priorities []contracts.Priority, until time.Time, words map[string]string) ([]Queue, error) {
	err := contracts.CheckAgentKey(agentKey)
	if err == nil && len(priorities) == 0 {
		priorities = contracts.Priorities()
	}
	for i := 0; i < len(priorities) && err == nil; i++ {
		if err = c.pauseQueue(ctx, contracts.WorkConsumer(agentKey, priorities[i]), until, words); err != nil {
			err = fmt.Errorf("queue of priority %s: %w", priorities[i], err)
		}
	}
	var queues []Queue
	if err == nil {
		queues, err = c.queues(ctx, agentKey)
	}
	if err != nil {
		return nil, fmt.Errorf("%s agent %s: %w", what, agentKey, err)
	}
	return queues, nil
}

// pauseQueue sets the pause of one queue, and returns when the queue has heard of
// it. Somebody else's word may come at the same time, and undo it: then it is said again.
func (c *Client) pauseQueue(ctx context.Context, consumer string, until time.Time, words map[string]string) error {
	before, err := c.setPause(ctx, consumer, until, words)
	ctx, cancel := context.WithTimeout(ctx, pauseHeard)
	defer cancel()
	for err == nil {
		var heard bool
		if heard, err = c.awaitPause(ctx, consumer, before, until); heard {
			return nil
		}
		if err == nil {
			_, err = c.setPause(ctx, consumer, until, words)
		}
	}
	return err
}

// setPause tells the broker, and returns until when the queue was paused before.
func (c *Client) setPause(ctx context.Context, consumer string, until time.Time, words map[string]string) (before time.Time, err error) {
	found, err := c.js.Consumer(ctx, contracts.StreamWork, consumer)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return before, ErrNoQueue
	}
	if err != nil {
		return before, jsutil.Translate(err)
	}
	cfg, changed := found.CachedInfo().Config, false
	before = pausedUntil(cfg)
	metadata := make(map[string]string, len(cfg.Metadata))
	for k, v := range cfg.Metadata {
		metadata[k] = v
	}
	for k, v := range words {
		changed = changed || metadata[k] != v
		if metadata[k] = v; v == "" {
			delete(metadata, k)
		}
	}
	if changed {
		// First, so that there is no pause without its reason, unless somebody resumes
		// the queue between the two: who is paused then is so without one. The broker leaves
		// pause_until alone here.
		cfg.Metadata = metadata
		if _, err := c.js.UpdateConsumer(ctx, contracts.StreamWork, cfg); err != nil {
			return before, fmt.Errorf("note the reason: %w", jsutil.Translate(err))
		}
	}
	if until.IsZero() {
		_, err = c.js.ResumeConsumer(ctx, contracts.StreamWork, consumer)
	} else {
		_, err = c.js.PauseConsumer(ctx, contracts.StreamWork, consumer, until)
	}
	return before, jsutil.Translate(err)
}

const (
	// pauseHeard bounds the wait for a queue to do as it was told, which takes
	// milliseconds.
	pauseHeard = 5 * time.Second
	// pauseAgain is after how long a queue that says otherwise is told again.
	pauseAgain = 250 * time.Millisecond
	// pauseLook lies between two looks.
	pauseLook = 20 * time.Millisecond
)

// awaitPause returns when a queue is paused until the given time, or not; or, if
// it is to be paused, until any other time than before: somebody else has paused
// it at the same moment. On three replicas the broker answers when that is
// decided, and the consumer's leader, who hands out the work, hears of it a moment
// later, or another is chosen. It reports false if the queue says otherwise for longer than that.
func (c *Client) awaitPause(ctx context.Context, consumer string, before, until time.Time) (heard bool, err error) {
	for began := time.Now(); ; {
		found, err := c.js.Consumer(ctx, contracts.StreamWork, consumer)
		if err = jsutil.Translate(err); err != nil && !errors.Is(err, jsutil.ErrUnavailable) {
			return false, err
		}
		if err == nil {
			// The time and not whether it has come, for clocks differ.
			is := pausedUntil(found.CachedInfo().Config)
			if is.Equal(until) || !until.IsZero() && !is.IsZero() && !is.Equal(before) {
				return true, nil
			}
			if time.Since(began) > pauseAgain {
				return false, nil
			}
		}
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("wait for the queue to hear of it: %w", context.Cause(ctx))
		case <-time.After(pauseLook):
		}
	}
}

// pausedUntil is zero for a queue that is not paused.
func pausedUntil(cfg jetstream.ConsumerConfig) time.Time {
	if cfg.PauseUntil == nil {
		return time.Time{}
	}
	return *cfg.PauseUntil
}
