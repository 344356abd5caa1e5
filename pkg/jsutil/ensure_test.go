package jsutil_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

func mustVerify(t *testing.T, b *jstest.Broker) []jsutil.Difference {
	t.Helper()
	diffs, err := jsutil.VerifyTopology(t.Context(), b.JS, b.Topology())
	if err != nil {
		t.Fatal(err)
	}
	return diffs
}

func mustStreamConfig(t *testing.T, js jetstream.JetStream, name string) jetstream.StreamConfig {
	t.Helper()
	s, err := js.Stream(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().Config
}

// streamOf takes one stream out of a topology, to be bent.
func streamOf(topology jsutil.Topology, name string) jetstream.StreamConfig {
	for _, s := range topology.Streams {
		if s.Name == name {
			return s
		}
	}
	panic("no stream " + name)
}

// Services start in any order and at the same time.
func TestEnsureTopologyRace(t *testing.T) {
	b := jstest.StartEmpty(t)
	var wg sync.WaitGroup
	for range 8 {
		js, err := jsutil.JetStream(b.Connect(t))
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := jsutil.EnsureTopology(t.Context(), js, b.Topology()); err != nil {
				t.Error(err)
			}
			if err := jsutil.EnsureWorkConsumers(t.Context(), js, "echo", 30*time.Second); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if diffs := mustVerify(t, b); len(diffs) > 0 {
		t.Errorf("differences after EnsureTopology: %+v", diffs)
	}
}

func TestEnsureTopologyIsCheapWhenAllIsRight(t *testing.T) {
	b := jstest.Start(t)
	sub, err := b.NC.SubscribeSync("$JS.API.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := jsutil.EnsureTopology(t.Context(), b.JS, b.Topology()); err != nil {
		t.Fatal(err)
	}
	if err := b.NC.Flush(); err != nil {
		t.Fatal(err)
	}
	got, _, err := sub.Pending()
	if err != nil {
		t.Fatal(err)
	}
	if want := len(b.Topology().Streams) + len(b.Topology().Consumers) + 1; got != want { // and the version
		t.Errorf("%d requests, want %d", got, want)
	}
	for range got {
		m, err := sub.NextMsg(patience)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(m.Subject, ".INFO.") {
			t.Errorf("request %s changes something", m.Subject)
		}
	}
}

func TestVerifyTopologyChangesNothing(t *testing.T) {
	b := jstest.StartEmpty(t)
	topology := b.Topology()
	diffs := mustVerify(t, b)
	if want := len(topology.Streams) + len(topology.Consumers); len(diffs) != want {
		t.Errorf("%d differences, want %d: %+v", len(diffs), want, diffs)
	}
	for _, d := range diffs {
		if d.Setting != jsutil.SettingExistence || d.Have != "missing" || !d.Fixable {
			t.Errorf("unexpected difference %+v", d)
		}
	}
	for name := range b.JS.StreamNames(t.Context()).Name() {
		t.Errorf("stream %s was created", name)
	}
}

func TestEnsureTopologyLeavesTheOperatorsSettings(t *testing.T) {
	b := jstest.StartFile(t)
	inbox := mustStreamConfig(t, b.JS, contracts.StreamInbox)
	inbox.Description, inbox.Metadata = "ours", map[string]string{"owner": "ops"}
	inbox.MaxBytes, inbox.MaxMsgs, inbox.MaxMsgSize = 1<<20, 1000, 1<<16
	inbox.Compression = jetstream.S2Compression
	inbox.RePublish = &jetstream.RePublish{Source: ">", Destination: "audit.>"}
	if _, err := b.JS.UpdateStream(t.Context(), inbox); err != nil {
		t.Fatal(err)
	}
	// Another setting of the same stream is ours, and is put right.
	inbox.MaxAge = time.Hour
	if _, err := b.JS.UpdateStream(t.Context(), inbox); err != nil {
		t.Fatal(err)
	}
	if err := jsutil.EnsureTopology(t.Context(), b.JS, jsutil.NewTopology(jsutil.TopologyOptions{Storage: jetstream.MemoryStorage, Replicas: 3})); err != nil {
		t.Fatal(err)
	}
	got := mustStreamConfig(t, b.JS, contracts.StreamInbox)
	if got.MaxAge != 0 {
		t.Errorf("max_age is still %s", got.MaxAge)
	}
	if got.Description != "ours" || got.Metadata["owner"] != "ops" || got.MaxBytes != 1<<20 || got.MaxMsgs != 1000 ||
		got.MaxMsgSize != 1<<16 || got.Compression != jetstream.S2Compression ||
		got.RePublish == nil || got.Storage != jetstream.FileStorage || got.Replicas != 1 {
		t.Errorf("the operator's settings were changed: %+v", got)
	}
}

func TestEnsureTopologyUpdatesStreams(t *testing.T) {
	for _, tc := range []struct {
		stream, setting string
		bend            func(*jetstream.StreamConfig)
	}{
		{contracts.StreamInbox, "subjects", func(c *jetstream.StreamConfig) { c.Subjects = c.Subjects[:1] }},
		{contracts.StreamInbox, "allow_rollup_hdrs", func(c *jetstream.StreamConfig) { c.AllowRollup = true }},
		{contracts.StreamInbox, "discard", func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld }},
		{contracts.StreamInbox, "max_age", func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }},
		{contracts.StreamInbox, "no_ack", func(c *jetstream.StreamConfig) { c.NoAck = true }},
		{contracts.StreamInbox, "subject_transform", func(c *jetstream.StreamConfig) {
			c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: "runs.*.cancel", Destination: "runs.{{wildcard(1)}}.redrive"}
		}},
		{contracts.StreamWork, "discard_new_per_subject", func(c *jetstream.StreamConfig) { c.DiscardNewPerSubject = false }},
		{contracts.StreamWork, "max_msgs_per_subject", func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 2 }},
		{contracts.StreamWork, "consumer_limits.inactive_threshold", func(c *jetstream.StreamConfig) { c.ConsumerLimits.InactiveThreshold = time.Hour }},
		{contracts.StreamLog, "subject_transform", func(c *jetstream.StreamConfig) { c.SubjectTransform = nil }},
		{contracts.StreamLog, "republish", func(c *jetstream.StreamConfig) { c.RePublish = nil }},
		{contracts.StreamLog, "republish", func(c *jetstream.StreamConfig) { c.RePublish.HeadersOnly = true }},
		{contracts.StreamLog, "allow_direct", func(c *jetstream.StreamConfig) { c.AllowDirect = false }},
		{contracts.StreamLog, "max_msgs_per_subject", func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 }},
		{contracts.StreamLog, "retention", func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy }},
		{contracts.StreamSchedule, "allow_msg_schedules", func(c *jetstream.StreamConfig) { c.AllowMsgSchedules = false }},
		{contracts.StreamSchedule, "max_msgs", func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 }},
		{contracts.StreamRuns, "allow_rollup_hdrs", func(c *jetstream.StreamConfig) { c.AllowRollup = true }}, // as the client library makes it
	} {
		t.Run(tc.stream+" "+tc.setting, func(t *testing.T) {
			b := jstest.StartEmpty(t)
			bent := streamOf(b.Topology(), tc.stream)
			tc.bend(&bent)
			if _, err := b.JS.CreateStream(t.Context(), bent); err != nil {
				t.Fatal(err)
			}
			one := jsutil.Topology{Streams: []jetstream.StreamConfig{streamOf(b.Topology(), tc.stream)}}
			diffs, err := jsutil.VerifyTopology(t.Context(), b.JS, one)
			if err != nil {
				t.Fatal(err)
			}
			if len(diffs) != 1 || diffs[0].Setting != tc.setting || diffs[0].Object != "stream "+tc.stream || !diffs[0].Fixable {
				t.Errorf("differences are %+v, want %s alone, fixable", diffs, tc.setting)
			}
			if err := jsutil.EnsureTopology(t.Context(), b.JS, b.Topology()); err != nil {
				t.Fatal(err)
			}
			if diffs := mustVerify(t, b); len(diffs) > 0 {
				t.Errorf("differences after EnsureTopology: %+v", diffs)
			}
		})
	}
}

func TestEnsureTopologyRefusesWhatCannotBeChanged(t *testing.T) {
	for _, tc := range []struct {
		stream, setting, want, have string
		bend                        func(*jetstream.StreamConfig)
	}{
		{contracts.StreamWork, "retention", "WorkQueue", "Limits", func(c *jetstream.StreamConfig) { c.Retention = jetstream.LimitsPolicy }},
		{contracts.StreamLog, "retention", "Limits", "WorkQueue", func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy }},
		{contracts.StreamInbox, "allow_msg_ttl", "false", "true", func(c *jetstream.StreamConfig) { c.AllowMsgTTL = true }},
		{contracts.StreamLog, "deny_purge", "false", "true", func(c *jetstream.StreamConfig) { c.DenyPurge = true }},
		{contracts.StreamLog, "persist_mode", "Default", "Async", func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode }},
		{contracts.StreamLog, "sources", "none", "present", func(c *jetstream.StreamConfig) { c.Sources = []*jetstream.StreamSource{{Name: "OTHER"}} }},
		{contracts.StreamAgents, "subjects", "$KV.agents.>", "$KV.agents.>, orders.>", func(c *jetstream.StreamConfig) { c.Subjects = append(c.Subjects, "orders.>") }},
	} {
		t.Run(tc.stream+" "+tc.setting, func(t *testing.T) {
			b := jstest.StartEmpty(t)
			topology := jsutil.NewTopology(jsutil.TopologyOptions{}) // some need file storage
			bent := streamOf(topology, tc.stream)
			tc.bend(&bent)
			if _, err := b.JS.CreateStream(t.Context(), bent); err != nil {
				t.Fatal(err)
			}
			err := jsutil.EnsureTopology(t.Context(), b.JS, topology)
			var refused *jsutil.TopologyError
			if !errors.As(err, &refused) || !errors.Is(err, jsutil.ErrRefused) {
				t.Fatalf("got %v, want a TopologyError", err)
			}
			want := jsutil.Difference{Object: "stream " + tc.stream, Setting: tc.setting, Want: tc.want, Have: tc.have}
			if len(refused.Differences) != 1 || refused.Differences[0] != want {
				t.Errorf("differences are %+v, want %+v", refused.Differences, want)
			}
			for _, part := range []string{tc.stream, tc.setting, tc.want, tc.have, "delete"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not name %q", err, part)
				}
			}
			for name := range b.JS.StreamNames(t.Context()).Name() {
				if name != tc.stream {
					t.Errorf("stream %s was created all the same", name)
				}
			}
		})
	}
}

func TestEnsureTopologyNamesTheStreamInTheWay(t *testing.T) {
	b := jstest.StartEmpty(t)
	if _, err := b.JS.CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"runs.*"}, Storage: jetstream.MemoryStorage}); err != nil {
		t.Fatal(err)
	}
	err := jsutil.EnsureTopology(t.Context(), b.JS, b.Topology())
	if !errors.Is(err, jsutil.ErrRefused) || !strings.Contains(err.Error(), "OTHER (by runs.submit)") || !strings.Contains(err.Error(), contracts.StreamInbox) {
		t.Errorf("got %v, want ErrRefused that names OTHER and RUNS_INBOX", err)
	}
}
