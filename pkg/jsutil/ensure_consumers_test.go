package jsutil_test

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

func mustConsumerConfig(t *testing.T, js jetstream.JetStream, stream, name string) jetstream.ConsumerConfig {
	t.Helper()
	c, err := js.Consumer(t.Context(), stream, name)
	if err != nil {
		t.Fatal(err)
	}
	return c.CachedInfo().Config
}

// consumerOf takes one consumer out of a topology, to be bent.
func consumerOf(topology jsutil.Topology, name string) jsutil.Consumer {
	for _, c := range topology.Consumers {
		if c.Durable == name {
			return c
		}
	}
	panic("no consumer " + name)
}

func TestEnsureTopologyConsumers(t *testing.T) {
	for _, tc := range []struct {
		consumer, setting string
		fixable           bool
		bend              func(*jetstream.ConsumerConfig)
	}{
		{contracts.ConsumerSubmit, "max_ack_pending", true, func(c *jetstream.ConsumerConfig) { c.MaxAckPending = 1000 }},
		{contracts.ConsumerSubmit, "max_deliver", true, func(c *jetstream.ConsumerConfig) { c.MaxDeliver = 5 }},
		{contracts.ConsumerSubmit, "ack_wait", true, func(c *jetstream.ConsumerConfig) { c.AckWait = time.Second }},
		{contracts.ConsumerSubmit, "inactive_threshold", true, func(c *jetstream.ConsumerConfig) { c.InactiveThreshold = time.Hour }},
		{contracts.ConsumerSubmit, "headers_only", true, func(c *jetstream.ConsumerConfig) { c.HeadersOnly = true }},
		{contracts.ConsumerSubmit, "backoff", true, func(c *jetstream.ConsumerConfig) { c.BackOff = []time.Duration{2 * time.Second} }},
		{contracts.ConsumerSubmit, "filter_subject", false, func(c *jetstream.ConsumerConfig) { c.FilterSubject = contracts.SubjectAllCancel }},
		{contracts.ConsumerSchedule, "filter_subject", false, func(c *jetstream.ConsumerConfig) { c.FilterSubject = "" }},
		{contracts.ConsumerSubmit, "deliver_subject", false, func(c *jetstream.ConsumerConfig) { c.DeliverSubject, c.MaxWaiting = "somewhere", 0 }},
		{contracts.ConsumerSubmit, "max_waiting", false, func(c *jetstream.ConsumerConfig) { c.MaxWaiting = 512 }},
		{contracts.ConsumerProjector, "priority_timeout", true, func(c *jetstream.ConsumerConfig) { c.PinnedTTL = time.Minute }},
		{contracts.ConsumerProjector, "priority_groups", true, func(c *jetstream.ConsumerConfig) { c.PriorityGroups = []string{"other"} }},
		{contracts.ConsumerProjector, "ack_policy", false, func(c *jetstream.ConsumerConfig) { c.AckPolicy = jetstream.AckExplicitPolicy }},
		{contracts.ConsumerProjector, "deliver_policy", false, func(c *jetstream.ConsumerConfig) { c.DeliverPolicy = jetstream.DeliverNewPolicy }},
	} {
		t.Run(tc.consumer+" "+tc.setting, func(t *testing.T) {
			b := jstest.StartEmpty(t)
			topology := b.Topology()
			if err := jsutil.EnsureTopology(t.Context(), b.JS, jsutil.Topology{Streams: topology.Streams}); err != nil {
				t.Fatal(err)
			}
			c := consumerOf(topology, tc.consumer)
			tc.bend(&c.ConsumerConfig)
			create := func() error { _, err := b.JS.CreateConsumer(t.Context(), c.Stream, c.ConsumerConfig); return err }
			if c.DeliverSubject != "" {
				create = func() error {
					_, err := b.JS.CreatePushConsumer(t.Context(), c.Stream, c.ConsumerConfig)
					return err
				}
			}
			if err := create(); err != nil {
				t.Fatal(err)
			}
			var found bool
			for _, d := range mustVerify(t, b) {
				if d.Setting == jsutil.SettingExistence {
					continue
				}
				if found = true; d.Setting != tc.setting || d.Fixable != tc.fixable || d.Object != "consumer "+tc.consumer+" of "+c.Stream {
					t.Errorf("unexpected difference %+v", d)
				}
			}
			if !found {
				t.Errorf("the difference in %s was not seen", tc.setting)
			}
			err := jsutil.EnsureTopology(t.Context(), b.JS, topology)
			if !tc.fixable {
				if refused := (*jsutil.TopologyError)(nil); !errors.As(err, &refused) {
					t.Errorf("got %v, want a TopologyError", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diffs := mustVerify(t, b); len(diffs) > 0 {
				t.Errorf("differences after EnsureTopology: %+v", diffs)
			}
		})
	}
}

func TestEnsureWorkConsumers(t *testing.T) {
	b := jstest.StartEmpty(t)
	err := jsutil.EnsureWorkConsumers(t.Context(), b.JS, "echo", 30*time.Second)
	if !errors.Is(err, jsutil.ErrNoTopology) {
		t.Fatalf("without the stream: got %v, want ErrNoTopology", err)
	}
	if err := jsutil.EnsureTopology(t.Context(), b.JS, b.Topology()); err != nil {
		t.Fatal(err)
	}
	for _, lease := range []time.Duration{20 * time.Second, 40 * time.Second} { // the second worker keeps what the first has made
		if err := jsutil.EnsureWorkConsumers(t.Context(), b.JS, "echo", lease); err != nil {
			t.Fatal(err)
		}
	}
	if err := jsutil.EnsureWorkConsumers(t.Context(), b.JS, "other", 40*time.Second); err != nil {
		t.Fatal(err)
	}
	for _, p := range contracts.Priorities() {
		c := mustConsumerConfig(t, b.JS, contracts.StreamWork, contracts.WorkConsumer("echo", p))
		if c.AckWait != 20*time.Second || c.MaxAckPending != -1 || c.MaxDeliver != -1 || c.InactiveThreshold != 0 || c.MaxWaiting < 10_000 ||
			c.FilterSubject != contracts.WorkFilter("echo", p) || len(c.BackOff) > 0 {
			t.Errorf("consumer of priority %s is %+v", p, c)
		}
	}
	c := mustConsumerConfig(t, b.JS, contracts.StreamWork, contracts.WorkConsumer("echo", contracts.PriorityHigh))
	c.MaxAckPending = 7
	if _, err := b.JS.UpdateConsumer(t.Context(), contracts.StreamWork, c); err != nil {
		t.Fatal(err)
	}
	if err := jsutil.EnsureWorkConsumers(t.Context(), b.JS, "echo", 40*time.Second); err != nil {
		t.Fatal(err)
	}
	c = mustConsumerConfig(t, b.JS, contracts.StreamWork, contracts.WorkConsumer("echo", contracts.PriorityHigh))
	if c.MaxAckPending != -1 || c.AckWait != 20*time.Second {
		t.Errorf("after another EnsureWorkConsumers: max_ack_pending %d, ack_wait %s", c.MaxAckPending, c.AckWait)
	}
}
