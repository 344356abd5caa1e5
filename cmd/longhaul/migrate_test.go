package main

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
)

// older makes the topology as a longhaul without signals and stamps left it:
// with a run that waits, and with what bend does to its consumers.
func older(t *testing.T, url string, bend func(*jetstream.ConsumerConfig)) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	top := jsutil.NewTopology(jsutil.TopologyOptions{Storage: jetstream.MemoryStorage})
	for _, s := range top.Streams {
		s.Metadata = nil
		if s.Name == contracts.StreamInbox {
			s.Subjects = []string{contracts.SubjectSubmit, contracts.SubjectAllCancel, contracts.SubjectAllRedrive}
		}
		if _, err := js.CreateStream(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range top.Consumers {
		if c.Durable == contracts.ConsumerSignals {
			continue
		}
		if c.AckWait = 5 * time.Second; c.Durable == contracts.ConsumerSubmit {
			bend(&c.ConsumerConfig)
		}
		if _, err := js.CreateConsumer(t.Context(), c.Stream, c.ConsumerConfig); err != nil {
			t.Fatal(err)
		}
	}
	if err := registerAgent(t, js, "echo"); err != nil {
		t.Fatal(err)
	}
	for _, p := range contracts.Priorities() {
		if _, err := js.CreateConsumer(t.Context(), contracts.StreamWork, jetstream.ConsumerConfig{
			Durable: contracts.WorkConsumer("echo", p), FilterSubject: contracts.WorkFilter("echo", p), AckPolicy: jetstream.AckExplicitPolicy, AckWait: 20 * time.Second,
			MaxAckPending: 1000,
		}); err != nil {
			t.Fatal(err)
		}
	}
	return js
}

func registerAgent(t *testing.T, js jetstream.JetStream, key string) error {
	t.Helper()
	record, err := contracts.Encode(contracts.AgentRecord{AgentKey: key})
	if err == nil {
		_, err = js.Publish(t.Context(), contracts.KVSubject(contracts.BucketAgents, key), record)
	}
	return err
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	js := older(t, url, func(*jetstream.ConsumerConfig) {})
	if _, err := js.Publish(t.Context(), contracts.SubjectSubmit, []byte(`{"agent_key":"echo","input":{"messages":[{"role":"user","content":"hi"}]},"idempotency_key":"old"}`)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the dry run changes nothing
		r := longhaul(t, url, "", "topology", "migrate", "--storage", "memory", "--dry-run")
		for _, words := range []string{
			"of no version", "create consumer " + contracts.ConsumerSignals, "change stream RUNS_INBOX: subjects", "ack_wait from 5s to 2s",
			"change consumer work-echo-high of RUNS_WORK: max_ack_pending from 1000 to unlimited", "longhaul topology migrate",
		} {
			if !strings.Contains(r.stdout, words) {
				t.Errorf("the plan does not say %q: %+v", words, r)
			}
		}
		if r.code != exitOK {
			t.Errorf("exit code %d", r.code)
		}
	}
	if r := longhaul(t, url, "", "topology", "migrate", "--storage", "memory"); r.code != exitOK || !strings.Contains(r.stdout, "created consumer "+contracts.ConsumerSignals) || !strings.Contains(r.stdout, "It is of version 1 now") {
		t.Errorf("%+v", r)
	}
	if r := longhaul(t, url, "", "topology", "migrate", "--storage", "memory"); r.code != exitOK || !strings.Contains(r.stdout, "nothing to do") {
		t.Errorf("the second time: %+v", r)
	}
	var m migration
	mustDecode(t, longhaul(t, url, "", "topology", "migrate", "--storage", "memory", "--json").stdout, &m)
	if m.From != jsutil.TopologyVersion || m.To != jsutil.TopologyVersion || len(m.Changes)+len(m.Blocked) > 0 {
		t.Errorf("%+v", m)
	}
	c, err := js.Consumer(t.Context(), contracts.StreamWork, contracts.WorkConsumer("echo", contracts.PriorityHigh))
	if err != nil || c.CachedInfo().Config.AckWait != 20*time.Second {
		t.Errorf("the lease of a queue has changed: %+v, %v", c.CachedInfo().Config, err)
	}
	// What was submitted before is executed after; beside running services it is migrated once more.
	start(t, url, "dispatcher", "--storage", "memory")
	start(t, url, "worker", "--storage", "memory", "--agent", "echo").says("worker takes work")
	if r := longhaul(t, url, "", "topology", "migrate", "--storage", "memory"); r.code != exitOK {
		t.Errorf("beside services: %+v", r)
	}
	if r := longhaul(t, url, "", "watch", contracts.RunIDFromKey("old")); r.code != exitOK {
		t.Errorf("the run of before: %+v", r)
	}
}

// What can't be changed in place stops all of it, and what to do is said.
func TestMigrateIsBlocked(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	js := older(t, url, func(c *jetstream.ConsumerConfig) { c.MaxWaiting = 512 })
	for _, args := range [][]string{{"--dry-run"}, {}} {
		r := longhaul(t, url, "", append([]string{"topology", "migrate", "--storage", "memory"}, args...)...)
		if r.code != exitError || !strings.Contains(r.stdout, "max_waiting must be 16384, is 512") ||
			!strings.Contains(r.stdout, "nats consumer rm RUNS_INBOX "+contracts.ConsumerSubmit) {
			t.Errorf("%v: %+v", args, r)
		}
		if _, err := js.Consumer(t.Context(), contracts.StreamInbox, contracts.ConsumerSignals); err == nil {
			t.Errorf("%v: something was changed all the same", args)
		}
	}
	if err := js.DeleteConsumer(t.Context(), contracts.StreamInbox, contracts.ConsumerSubmit); err != nil {
		t.Fatal(err)
	}
	if r := longhaul(t, url, "", "topology", "migrate", "--storage", "memory"); r.code != exitOK || !strings.Contains(r.stdout, "created consumer "+contracts.ConsumerSubmit) {
		t.Errorf("after what was said is done: %+v", r)
	}
}

func TestMigrateRefusesToGoBack(t *testing.T) {
	t.Parallel()
	url := startBroker(t)
	js := older(t, url, func(*jetstream.ConsumerConfig) {})
	if r := longhaul(t, url, "", "topology", "migrate", "--storage", "memory"); r.code != exitOK {
		t.Fatalf("%+v", r)
	}
	s, err := js.Stream(t.Context(), contracts.StreamLog)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.Metadata["longhaul.topology"] = strconv.Itoa(jsutil.TopologyVersion + 1)
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if r := longhaul(t, url, "", "topology", "migrate", "--storage", "memory"); r.code != exitError || !strings.Contains(r.stdout, "A newer longhaul made it") {
		t.Errorf("%+v", r)
	}
	// Services of this version run beside it.
	start(t, url, "dispatcher", "--storage", "memory")
	start(t, url, "worker", "--storage", "memory", "--agent", "echo").says("worker takes work")
	if r := longhaul(t, url, "", "submit", "echo", "-m", "hi", "--wait"); r.code != exitOK {
		t.Errorf("beside a newer topology: %+v", r)
	}
}
