package backup_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"longhaul/internal/backup"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/jsutil/jstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustPublish(t *testing.T, b *jstest.Broker, subject, body string) {
	t.Helper()
	if _, err := b.JS.Publish(t.Context(), subject, []byte(body)); err != nil {
		t.Fatal(err)
	}
}

// last reports whether a stream holds a message on a subject.
func last(t *testing.T, b *jstest.Broker, stream, subject string) bool {
	t.Helper()
	_, err := jsutil.GetFromLeader(t.Context(), b.NC, stream, jsutil.GetRequest{LastFor: subject})
	if err != nil && !errors.Is(err, jsutil.ErrNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// The system goes on between one stream and the next. A submission leaves the
// inbox when its log is there, and a checkpoint is there when a log names it:
// so it has to be in what is restored, whenever that happens.
func TestOrder(t *testing.T) {
	b := jstest.Start(t)
	ctx := t.Context()
	inbox, err := b.JS.Consumer(ctx, contracts.StreamInbox, contracts.ConsumerSubmit)
	if err != nil {
		t.Fatal(err)
	}
	var submitted, checkpoints []string
	for range len(backup.Streams()) + 1 {
		id := contracts.NewRunID()
		submitted = append(submitted, id)
		mustPublish(t, b, contracts.SubjectSubmit, id)
	}
	goOn := func() {
		m, err := inbox.Next()
		if err != nil {
			t.Fatal(err)
		}
		mustPublish(t, b, contracts.LogSubject(string(m.Data())), "queued")
		if err := m.DoubleAck(ctx); err != nil {
			t.Fatal(err)
		}
		id := contracts.NewRunID()
		mustPublish(t, b, contracts.KVSubject(contracts.BucketRuns, contracts.CheckpointKey(id, 1, 1)), "state")
		mustPublish(t, b, contracts.LogSubject(id), "names it")
		checkpoints = append(checkpoints, id)
	}
	goOn()
	mustPublish(t, b, contracts.KVSubject(contracts.BucketRuns, contracts.StatusKey(submitted[0])), "newer than the log")
	if _, err := b.JS.PauseConsumer(ctx, contracts.StreamInbox, contracts.ConsumerCommands, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "backup")
	m, err := backup.Save(ctx, b.JS, dir, "v1.2.3", func(backup.Saved) { goOn() })
	if err != nil || len(m.Streams) != 6 || m.Longhaul != "v1.2.3" || m.Topology != jsutil.TopologyVersion {
		t.Fatalf("manifest %+v, %v", m, err)
	}
	for _, name := range backup.Streams() {
		if err := b.JS.DeleteStream(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := backup.Restore(ctx, b.JS, dir, backup.Options{}, func(backup.Saved) {}); err != nil {
		t.Fatal(err)
	}
	if diffs, err := jsutil.VerifyTopology(ctx, b.JS, b.Topology()); err != nil || len(diffs) > 0 {
		t.Errorf("the topology differs: %+v, %v", diffs, err)
	}
	waiting := map[string]bool{}
	stream, err := b.JS.Stream(ctx, contracts.StreamInbox)
	if err != nil {
		t.Fatal(err)
	}
	state := stream.CachedInfo().State
	for seq := state.FirstSeq; seq <= state.LastSeq && state.Msgs > 0; seq++ {
		if m, err := stream.GetMsg(ctx, seq); err == nil {
			waiting[string(m.Data)] = true
		}
	}
	for i, id := range submitted {
		if !waiting[id] && !last(t, b, contracts.StreamLog, contracts.EventsSubject(id)) {
			t.Errorf("submission %d is neither in the inbox nor in the log", i)
		}
	}
	for i, id := range checkpoints {
		if last(t, b, contracts.StreamLog, contracts.EventsSubject(id)) &&
			!last(t, b, contracts.StreamRuns, contracts.KVSubject(contracts.BucketRuns, contracts.CheckpointKey(id, 1, 1))) {
			t.Errorf("the log names checkpoint %d, and it is not there", i)
		}
	}
	if last(t, b, contracts.StreamRuns, contracts.KVSubject(contracts.BucketRuns, contracts.StatusKey(submitted[0]))) {
		t.Error("a status was taken over")
	}
	projector, err := b.JS.Consumer(ctx, contracts.StreamLog, contracts.ConsumerProjector)
	if err != nil || projector.CachedInfo().NumPending == 0 {
		t.Errorf("the projector does not begin anew: %+v, %v", projector, err)
	}
	paused, err := b.JS.Consumer(ctx, contracts.StreamInbox, contracts.ConsumerCommands)
	if err != nil || !paused.CachedInfo().Paused {
		t.Errorf("consumers do not come back as they were: %+v, %v", paused, err)
	}
}

// Nothing is overwritten, and half a backup is none.
func TestRefusals(t *testing.T) {
	b := jstest.Start(t)
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "backup")
	none := func(backup.Saved) {}
	if _, err := backup.Save(ctx, b.JS, dir, "", none); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Save(ctx, b.JS, dir, "", none); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("saved over a backup: %v", err)
	}
	if _, err := backup.Restore(ctx, b.JS, dir, backup.Options{}, none); err == nil || !strings.Contains(err.Error(), "nothing is overwritten") {
		t.Errorf("restored over what is there: %v", err)
	}
	for _, name := range backup.Streams() {
		if err := b.JS.DeleteStream(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	manifest := filepath.Join(dir, "longhaul.json")
	data, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(data), `"topology": 1`, `"topology": 99`, 1)
	if err := os.WriteFile(manifest, []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Restore(ctx, b.JS, dir, backup.Options{}, none); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("a newer one is restored: %v", err)
	}
	if err := os.WriteFile(manifest, data, 0o600); err != nil {
		t.Fatal(err)
	}
	// A part that was changed is found by the broker.
	part := filepath.Join(dir, contracts.StreamLog, "stream.arc.s2")
	if err := os.WriteFile(part, []byte("not what was saved"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Restore(ctx, b.JS, dir, backup.Options{}, none); err == nil || !strings.Contains(err.Error(), contracts.StreamLog) {
		t.Errorf("a spoilt archive is restored: %v", err)
	}
	if _, err := b.JS.Stream(ctx, contracts.StreamLog); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("a stream was made of it: %v", err)
	}
	if err := os.Remove(manifest); err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Restore(ctx, b.JS, dir, backup.Options{}, none); !errors.Is(err, backup.ErrNoBackup) {
		t.Errorf("half a backup: %v", err)
	}
}
