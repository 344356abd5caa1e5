package statekeeper

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// clear takes away the oldest work message of a queue, if the queue's consumer counts it as done with: nobody is ever handed it,
// and its run, if that lives, is then found to have none. A purge by subject
// leaves such messages behind (nats-server 2.15.2, consumer.purge, which lets
// the ack floor pass what is in flight); one a sweep is enough.
func (s *sweeper) clear(ctx context.Context, q queue) error {
	name := contracts.WorkConsumer(q.agent, q.priority)
	cons, err := s.js.Consumer(ctx, contracts.StreamWork, name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return nil // no worker has ever asked for it
	}
	if err != nil {
		return fmt.Errorf("look at queue %s: %w", name, jsutil.Translate(err))
	}
	oldest, err := jsutil.GetFromLeader(ctx, s.js.Conn(), contracts.StreamWork,
		jsutil.GetRequest{Seq: 1, NextFor: contracts.WorkFilter(q.agent, q.priority)})
	if errors.Is(err, jsutil.ErrNotFound) || err == nil && oldest.Sequence > cons.CachedInfo().AckFloor.Stream || s.dry {
		return nil
	}
	if err == nil {
		s.logger.Warn("work message that its queue has lost sight of, taken away", "subject", oldest.Subject)
		err = jsutil.Delete(ctx, s.js.Conn(), contracts.StreamWork, oldest.Sequence)
	}
	if err != nil {
		return fmt.Errorf("clear queue %s: %w", name, err)
	}
	return nil
}
