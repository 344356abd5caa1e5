package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// removals is how many runs are removed at a time.
const removals = 16

// Dequeue removes the work messages of an agent whose runs are to be removed.
func Dequeue(ctx context.Context, nc *nats.Conn, key string) error {
	var errs []error
	for _, p := range contracts.Priorities() {
		errs = append(errs, jsutil.Purge(ctx, nc, contracts.StreamWork, contracts.WorkFilter(key, p), 0))
	}
	return errors.Join(errs...)
}

// Clean removes runs that nobody executes any more, their agent and its queue,
// as if none had been. A run goes as statekeeper removes one whose time is over: the log
// first, and in place of the status a marker, which an audit takes down. No
// redrive may be under way.
func Clean(ctx context.Context, nc *nats.Conn, key string, runIDs []string) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	status, err := js.KeyValue(ctx, contracts.BucketRuns)
	if err != nil {
		return fmt.Errorf("open bucket %s: %w", contracts.BucketRuns, jsutil.Translate(err))
	}
	agents, err := js.KeyValue(ctx, contracts.BucketAgents)
	if err != nil {
		return fmt.Errorf("open bucket %s: %w", contracts.BucketAgents, jsutil.Translate(err))
	}
	todo, failed := make(chan string), make(chan error, len(runIDs))
	var all sync.WaitGroup
	for range removals {
		all.Go(func() {
			for id := range todo {
				err := jsutil.Purge(ctx, nc, contracts.StreamLog, contracts.EventsSubject(id), 0)
				if err == nil {
					err = jsutil.Translate(status.Delete(ctx, contracts.StatusKey(id)))
				}
				if err != nil {
					failed <- fmt.Errorf("remove run %s: %w", id, err)
				}
			}
		})
	}
	for _, id := range runIDs {
		todo <- id
	}
	close(todo)
	all.Wait()
	close(failed)
	errs := []error{<-failed} // the first of many that are alike
	for _, p := range contracts.Priorities() {
		err := js.DeleteConsumer(ctx, contracts.StreamWork, contracts.WorkConsumer(key, p))
		if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			errs = append(errs, fmt.Errorf("remove the queue of %s: %w", key, jsutil.Translate(err)))
		}
	}
	if err := agents.Delete(ctx, key); err != nil {
		errs = append(errs, fmt.Errorf("remove agent %s: %w", key, jsutil.Translate(err)))
	}
	return errors.Join(errs...)
}
