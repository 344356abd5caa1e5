package jsutil

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Difference is one setting of the broker that is not as the topology wants it.
type Difference struct {
	Object, Setting, Want, Have string
	Fixable                     bool
}

// EnsureTopology creates what is missing of t.
func EnsureTopology(ctx context.Context, js jetstream.JetStream, t Topology) error {
	for _, s := range t.Streams {
		if _, err := js.Stream(ctx, s.Name); err == nil {
			continue
		}
		if _, err := js.CreateStream(ctx, s); err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return fmt.Errorf("create stream %s: %w", s.Name, Translate(err))
		}
	}
	for _, c := range t.Consumers {
		if err := ensureConsumer(ctx, js, c); err != nil {
			return err
		}
	}
	return nil
}

func ensureConsumer(ctx context.Context, js jetstream.JetStream, c Consumer) error {
	_, err := js.CreateConsumer(ctx, c.Stream, c.ConsumerConfig)
	if err != nil && !errors.Is(err, jetstream.ErrConsumerExists) {
		return fmt.Errorf("create consumer %s of %s: %w", c.Durable, c.Stream, Translate(err))
	}
	return nil
}

// VerifyTopology returns all differences between t and the broker, and changes nothing.
func VerifyTopology(ctx context.Context, js jetstream.JetStream, t Topology) ([]Difference, error) {
	return nil, nil
}

// WaitTopology is EnsureTopology for services: it goes on while the broker is unavailable.
func WaitTopology(ctx context.Context, js jetstream.JetStream, t Topology, logger *slog.Logger) error {
	for {
		err := EnsureTopology(ctx, js, t)
		if !errors.Is(err, ErrUnavailable) {
			return err
		}
		logger.Warn("broker is not ready for the topology", "error", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the topology: %w", context.Cause(ctx))
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// EnsureWorkConsumers creates the consumers of an agent's work, one per
// priority. Those that exist keep their AckWait.
func EnsureWorkConsumers(ctx context.Context, js jetstream.JetStream, agentKey string, lease time.Duration) error {
	for _, c := range workConsumers(agentKey, lease) {
		if err := ensureConsumer(ctx, js, c); err != nil {
			return err
		}
	}
	return nil
}
