package jsutil_test

import (
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

const stampKey = "longhaul.topology"

// before is the topology as it was before runs could be sent signals, and
// before there were stamps.
func before(b *jstest.Broker) jsutil.Topology {
	top := b.Topology()
	for i, s := range top.Streams {
		s.Metadata = nil
		if s.Name == contracts.StreamInbox {
			s.Subjects = []string{contracts.SubjectSubmit, contracts.SubjectAllCancel, contracts.SubjectAllRedrive}
			s.Duplicates = 0 // the broker's default, two minutes
		}
		top.Streams[i] = s
	}
	top.Consumers = slices.DeleteFunc(top.Consumers, func(c jsutil.Consumer) bool { return c.Durable == contracts.ConsumerSignals })
	for i := range top.Consumers {
		top.Consumers[i].AckWait = 5 * time.Second
		if top.Consumers[i].PinnedTTL > 0 {
			top.Consumers[i].PinnedTTL = 5 * time.Second
		}
	}
	return top
}

// mustMake makes a topology as it is, with nothing of EnsureTopology's.
func mustMake(t *testing.T, b *jstest.Broker, top jsutil.Topology) {
	t.Helper()
	for _, s := range top.Streams {
		if _, err := b.JS.CreateStream(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range top.Consumers {
		if _, err := b.JS.CreateConsumer(t.Context(), c.Stream, c.ConsumerConfig); err != nil {
			t.Fatal(err)
		}
	}
}

func mustVersion(t *testing.T, b *jstest.Broker, want int) {
	t.Helper()
	if got, err := jsutil.StandingVersion(t.Context(), b.JS); err != nil || got != want {
		t.Errorf("topology of version %d, %v; want %d", got, err, want)
	}
}

// mustStamp gives RUNS_LOG a version.
func mustStamp(t *testing.T, b *jstest.Broker, version string) {
	t.Helper()
	cfg := mustStreamConfig(t, b.JS, contracts.StreamLog)
	cfg.Metadata[stampKey] = version
	if _, err := b.JS.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

func TestNewTopologyIsStamped(t *testing.T) {
	b := jstest.StartEmpty(t)
	mustVersion(t, b, 0)
	if err := jsutil.EnsureTopology(t.Context(), b.JS, b.Topology()); err != nil {
		t.Fatal(err)
	}
	mustVersion(t, b, jsutil.TopologyVersion)
}

// What an older version left is brought up to date in place, with what its
// streams hold and what the operator wrote beside the stamp, by any number of
// services at once, and once is enough.
func TestOlderTopologyIsMigrated(t *testing.T) {
	b := jstest.StartEmpty(t)
	mustMake(t, b, before(b))
	cfg := mustStreamConfig(t, b.JS, contracts.StreamLog)
	cfg.Metadata["owner"] = "ann"
	if _, err := b.JS.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := b.JS.Publish(t.Context(), contracts.SubjectSubmit, []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, d := range mustVerify(t, b) {
		if !d.Fixable {
			t.Errorf("not to be changed: %+v", d)
		}
		found = append(found, d.Setting)
	}
	for _, setting := range []string{"metadata", "subjects", "duplicate_window", "ack_wait", "priority_timeout", jsutil.SettingExistence} {
		if !slices.Contains(found, setting) {
			t.Errorf("%s is not found to differ: %v", setting, found)
		}
	}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if err := jsutil.EnsureTopology(t.Context(), b.JS, b.Topology()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if diffs := mustVerify(t, b); len(diffs) > 0 {
		t.Errorf("still different: %+v", diffs)
	}
	mustVersion(t, b, jsutil.TopologyVersion)
	if owner := mustStreamConfig(t, b.JS, contracts.StreamLog).Metadata["owner"]; owner != "ann" {
		t.Errorf("the operator's metadata is %q", owner)
	}
	s, err := b.JS.Stream(t.Context(), contracts.StreamInbox)
	if err != nil || s.CachedInfo().State.Msgs != 1 {
		t.Errorf("the inbox holds %+v, %v", s.CachedInfo().State, err)
	}
}

// What a newer version made is left alone by an older one that starts beside
// it, or after a rollback.
func TestNewerTopologyIsLeftAlone(t *testing.T) {
	b := jstest.Start(t)
	ctx := t.Context()
	if err := jsutil.EnsureWorkConsumers(ctx, b.JS, "echo", 30*time.Second); err != nil {
		t.Fatal(err)
	}
	bend := func(stream, consumer string, change func(*jetstream.ConsumerConfig)) {
		t.Helper()
		c, err := b.JS.Consumer(ctx, stream, consumer)
		if err != nil {
			t.Fatal(err)
		}
		cfg := c.CachedInfo().Config
		change(&cfg)
		if _, err := b.JS.UpdateConsumer(ctx, stream, cfg); err != nil {
			t.Fatal(err)
		}
	}
	work := contracts.WorkConsumer("echo", contracts.PriorityHigh)
	bend(contracts.StreamInbox, contracts.ConsumerSubmit, func(c *jetstream.ConsumerConfig) { c.AckWait = 7 * time.Second })
	bend(contracts.StreamWork, work, func(c *jetstream.ConsumerConfig) { c.MaxAckPending = 7 })
	mustStamp(t, b, strconv.Itoa(jsutil.TopologyVersion+1))
	states := func() (all []jetstream.ConsumerConfig) {
		for stream, consumer := range map[string]string{contracts.StreamInbox: contracts.ConsumerSubmit, contracts.StreamWork: work} {
			c, err := b.JS.Consumer(ctx, stream, consumer)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, c.CachedInfo().Config)
		}
		slices.SortFunc(all, func(a, b jetstream.ConsumerConfig) int { return strings.Compare(a.Durable, b.Durable) })
		return all
	}
	was := states()
	if diffs := mustVerify(t, b); len(diffs) > 0 {
		t.Errorf("found wrong: %+v", diffs)
	}
	if err := errors.Join(jsutil.EnsureTopology(ctx, b.JS, b.Topology()), jsutil.EnsureWorkConsumers(ctx, b.JS, "echo", 30*time.Second)); err != nil {
		t.Error(err)
	}
	if is := states(); !reflect.DeepEqual(is, was) {
		t.Errorf("changed from %+v to %+v", was, is)
	}
	mustVersion(t, b, jsutil.TopologyVersion+1)

	var newer *jsutil.TopologyError
	if err := jsutil.EnsureWorkConsumers(ctx, b.JS, "count", 30*time.Second); !errors.As(err, &newer) || newer.Newer != jsutil.TopologyVersion+1 ||
		!strings.Contains(err.Error(), "newer") || !errors.Is(err, jsutil.ErrRefused) {
		t.Errorf("what is missing there: %v", err)
	}
	if diffs, err := jsutil.VerifyWorkConsumers(ctx, b.JS, "count"); err != nil || len(diffs) != 3 || diffs[0].Fixable {
		t.Errorf("what is missing there: %+v, %v", diffs, err)
	}
}
