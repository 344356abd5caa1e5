package statekeeper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/jsutil"
)

// errReconnected ends a child's turn after a reconnect: what it knew of the
// broker may be void, and starting afresh is how it finds out.
var errReconnected = errors.New("connection was renewed")

// untilRenewed is child, begun when the connection stands and with a context
// that ends, of errReconnected, when it is renewed.
func untilRenewed(nc *nats.Conn, child func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := jsutil.WaitConnected(ctx, nc); err != nil {
			return err
		}
		ctx, cancel := context.WithCancelCause(ctx)
		renewed := nc.StatusChanged(nats.CONNECTED)
		defer nc.RemoveStatusListener(renewed)
		var watch sync.WaitGroup
		defer watch.Wait()
		defer cancel(nil)
		watch.Go(func() {
			select {
			case <-renewed:
				cancel(errReconnected)
			case <-ctx.Done():
			}
		})
		if err := child(ctx); err != nil {
			return err
		}
		return context.Cause(ctx)
	}
}

// consume hands what cons delivers to handle, one message after the other,
// while work goes on with the context that it is given: that ends, with the
// cause, when ctx does, when handle returns an error, or when the client cannot
// go on by itself. It returns after work with its error, when handle is no
// longer called.
func consume(ctx context.Context, cons jetstream.Consumer, handle func(context.Context, jetstream.Msg) error,
	work func(context.Context) error, opts ...jetstream.PullConsumeOpt) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	opts = append(opts, jetstream.PullExpiry(pullExpiry), jetstream.PullHeartbeat(pullExpiry/2),
		jetstream.PullMaxMessagesWithBytesLimit(pullMessages, pullBytes),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			switch {
			case errors.Is(err, jetstream.ErrConsumerDeleted), errors.Is(err, jetstream.ErrConsumerNotFound):
				cancel(fmt.Errorf("consume: %w: %w", jsutil.ErrNoTopology, err))
			case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoHeartbeat),
				errors.Is(err, jetstream.ErrBadRequest), errors.Is(err, jetstream.ErrConnectionClosed):
				cancel(fmt.Errorf("consume: %w", jsutil.Translate(err)))
			}
		}))
	consuming, err := cons.Consume(func(m jetstream.Msg) {
		if err := handle(ctx, m); err != nil {
			cancel(err)
		}
	}, opts...)
	if err != nil {
		return fmt.Errorf("consume: %w", jsutil.Translate(err))
	}
	err = work(ctx)
	cancel(nil)
	consuming.Stop()
	<-consuming.Closed()
	return err
}

const (
	// pullExpiry must stay well below the projector's PinnedTTL: it is the pull
	// requests that keep the pin.
	pullExpiry = time.Second
	// pullMessages and pullBytes bound what is delivered and not yet looked at.
	pullMessages = 1000
	pullBytes    = 32 << 20
)
