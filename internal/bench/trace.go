package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"longhaul/pkg/client"
	"longhaul/pkg/contracts"
	"longhaul/pkg/runlog"
)

// restPause is between two runs at rest, and as much again at random, so that
// they fall into no step with anybody's timer.
const restPause = 4 * time.Millisecond

// Rest is the pause between two jobs that are measured one by one.
func Rest(ctx context.Context) error { return pause(ctx, restPause+rand.N(restPause)) }

// Trace submits a run and follows it to its end by watcher, a client on
// another connection. toEnd is told when the end is seen there, unless the job
// writes deltas; toFollower how long each delta took. The agent is told when
// the run was submitted.
func (l *Load) Trace(ctx context.Context, watcher *client.Client, job Job, toEnd, toFollower *Latencies) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	runID := contracts.NewRunID()
	var seen time.Time
	ended := make(chan error, 1)
	go func() { // Trace waits for it
		ended <- follow(ctx, watcher, runID, func(e runlog.Entry) error {
			seen = time.Now()
			return RecordSince(time.Time{}, toFollower, e, seen)
		})
	}()
	err := Rest(ctx) // until it is followed
	var sub contracts.Submission
	if err == nil {
		job.Sent = time.Now().UnixNano()
		sub, err = Submission(l.key, job, smallest)
	}
	if err == nil {
		sub.RunID = runID
		l.submits(runID)
		_, err = l.Client.Submit(ctx, sub)
	}
	if err != nil {
		cancel()
		return errors.Join(err, <-ended)
	}
	if err := <-ended; err != nil {
		return fmt.Errorf("follow run %s: %w", runID, err)
	}
	if job.Deltas == 0 {
		toEnd.Record(seen.Sub(time.Unix(0, job.Sent)))
	}
	return nil
}

// smallest is the size of submissions whose own size is not measured.
const smallest = 512

// follow passes a run's events on until it has succeeded.
func follow(ctx context.Context, c *client.Client, runID string, pass func(runlog.Entry) error) error {
	for e, err := range c.Follow(ctx, runID, runlog.FollowOptions{UntilEnd: true}) {
		if err != nil {
			return err
		}
		if err := pass(e); err != nil {
			return err
		}
		if e.Type.Terminal() && e.Type != contracts.TypeSucceeded {
			return fmt.Errorf("it ended with %s %s", e.Type, e.Payload)
		}
	}
	return nil
}

// RecordSince takes the times at which deltas were written, after since, out
// of an event that was seen just now: deltas that waited were merged.
func RecordSince(since time.Time, into *Latencies, e runlog.Entry, seen time.Time) error {
	if e.Type != contracts.TypeDelta {
		return nil
	}
	var d contracts.Delta
	if err := json.Unmarshal(e.Payload, &d); err != nil {
		return fmt.Errorf("decode a delta: %w", err)
	}
	for _, word := range strings.Fields(d.Text) {
		ns, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return fmt.Errorf("decode a delta: %w", err)
		}
		if at := time.Unix(0, ns); at.After(since) {
			into.Record(seen.Sub(at))
		}
	}
	return nil
}
