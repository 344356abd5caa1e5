package statekeeper

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// feed keeps the index in step with bucket runs. It has its own ephemeral
// consumer, so that every instance has an index. run is called by one
// goroutine; current may be called by others.
//
// The client library's ordered consumer does much the same, but comes back from
// an outage only after seconds (JETSTREAM.md) and does not see that a stream
// was made anew.
type feed struct {
	js     jetstream.JetStream
	logger *slog.Logger

	loaded atomic.Pointer[index] // nil while the first load goes on

	// The rest is run's own.
	index    *index    // the one being fed; loaded is another while it is built anew
	created  time.Time // of the stream that index was made from
	position uint64    // the last stream sequence that is in index
}

// feedIdle is when the broker forgets a consumer that nobody pulls from any more.
const feedIdle = 10 * time.Second

// current returns the index, nil while the first load goes on.
func (f *feed) current() *index { return f.loaded.Load() }

// run feeds the index until ctx ends or something fails. Called again it goes
// on where it was, or begins anew if the stream is another one; the old index
// serves until the new one is complete.
func (f *feed) run(ctx context.Context) error {
	stream, err := f.js.Stream(ctx, contracts.StreamRuns)
	if err != nil {
		return fmt.Errorf("look stream %s up: %w", contracts.StreamRuns, jsutil.Translate(err))
	}
	info := stream.CachedInfo()
	if f.index == nil || !f.created.Equal(info.Created) || info.State.LastSeq < f.position {
		f.index, f.created, f.position = newIndex(), info.Created, 0
	}
	cons, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		FilterSubject: allStatusSubjects(), DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: f.position + 1,
		AckPolicy: jetstream.AckNonePolicy, MemoryStorage: true, Replicas: 1, InactiveThreshold: feedIdle,
	})
	if err != nil {
		return fmt.Errorf("create the consumer of the index: %w", jsutil.Translate(err))
	}
	if cons.CachedInfo().NumPending == 0 {
		f.complete()
	}
	last := uint64(0)
	return consume(ctx, cons, func(_ context.Context, m jetstream.Msg) error {
		meta, err := m.Metadata()
		if err != nil {
			return fmt.Errorf("read a delivery for the index: %w", err)
		}
		if last++; meta.Sequence.Consumer != last {
			return fmt.Errorf("%w: a delivery for the index was lost", jsutil.ErrUnavailable)
		}
		f.take(m, meta.Sequence.Stream)
		f.position = meta.Sequence.Stream
		if meta.NumPending == 0 {
			f.complete()
		}
		return nil
	}, func(ctx context.Context) error {
		<-ctx.Done()
		return context.Cause(ctx)
	})
}

// take puts one record, or its end, into the index.
func (f *feed) take(m jetstream.Msg, revision uint64) {
	id, err := uuid.Parse(runIDOf(m.Subject()))
	if err != nil {
		f.logger.Warn("a status key names no run", "subject", m.Subject())
		return
	}
	var s contracts.StatusRecord
	if m.Headers().Get(kvOperation) == "" {
		if s, err = contracts.DecodeSummary(m.Data()); err != nil {
			f.logger.Warn("a status record cannot be decoded, its run is not listed", "run_id", id.String(), "error", err)
		}
	}
	f.index.set(id, s, revision)
}

// complete publishes the index once all that stood in the bucket is in it.
func (f *feed) complete() {
	if f.loaded.Swap(f.index) != f.index {
		f.logger.Info("index loaded", "runs", f.index.stats().Total)
	}
}
