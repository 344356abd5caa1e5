package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"longhaul/internal/backup"
	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// TestBackupUnderLoad saves everything while runs come and go, loses it all,
// and puts it back: every run that was acknowledged before the backup began
// ends, in exactly one terminal event, and resumes from a checkpoint that is there.
func TestBackupUnderLoad(t *testing.T) {
	s := newStage(t)
	services := func() (all []*process) {
		return []*process{
			s.start(t, "dispatcher"), s.start(t, "statekeeper"),
			s.start(t, "worker", "--agent", "echo", "--agent", "count", "--concurrency", "20", "--lease-ttl-seconds", "6"),
		}
	}
	running := services()
	s.waitForAgent(t, "count")
	s.waitForAgent(t, "echo")

	// A steady load, of which each run is acknowledged at a time that is known.
	type submitted struct {
		id string
		at time.Time
	}
	var mu sync.Mutex
	var acked []submitted
	stop := make(chan struct{})
	var load sync.WaitGroup
	js, err := jsutil.JetStream(s.connect(t, "operator"))
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		load.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				sub := contracts.Submission{RunID: contracts.NewRunID(), AgentKey: "echo"}
				switch n % 10 {
				case 0: // executed when the backup is made, with checkpoints
					sub.AgentKey, sub.Input.Params = "count", json.RawMessage(`{"n":40,"pause_ms":100}`)
				case 1: // waits for its time
					sub.NotBefore = time.Now().Add(15 * time.Second)
				}
				data, err := contracts.Encode(sub)
				if err == nil {
					_, err = js.Publish(t.Context(), contracts.SubjectSubmit, data)
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acked = append(acked, submitted{sub.RunID, time.Now()})
				mu.Unlock()
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(acked) }
	waitFor(t, "some load", func() bool { return count() > 400 })
	dir := filepath.Join(t.TempDir(), "backup")
	out, stderr, code := s.cli(t, "", "backup", dir)
	if code != 0 {
		t.Fatalf("backup: exit code %d\n%s%s", code, out, stderr)
	}
	after := count()
	waitFor(t, "load behind the backup", func() bool { return count() > after+50 })
	close(stop)
	load.Wait()
	for _, p := range running {
		p.kill()
	}
	if _, stderr, code := s.cli(t, "", "restore", dir); code == 0 || !strings.Contains(stderr, "nothing is overwritten") {
		t.Errorf("restore over what is there: exit code %d, %s", code, stderr)
	}
	if _, stderr, code := s.cli(t, "", "backup", dir); code == 0 || !strings.Contains(stderr, "not empty") {
		t.Errorf("backup over a backup: exit code %d, %s", code, stderr)
	}
	for _, name := range backup.Streams() {
		if err := js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	out, stderr, code = s.cli(t, "", "restore", dir)
	if code != 0 {
		t.Fatalf("restore: exit code %d\n%s%s", code, out, stderr)
	}
	m, err := backup.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	services()

	log := s.log(t)
	before := 0
	for _, sub := range acked {
		if !sub.at.Before(m.Begun) {
			continue
		}
		before++
		all := checkLog(t, log, sub.id)
		if last := all[len(all)-1]; last.Type != contracts.TypeSucceeded {
			t.Errorf("run %s ended as %s: %s", sub.id, last.Type, last.Payload)
		}
	}
	if before < 300 {
		t.Errorf("only %d runs were acknowledged before the backup", before)
	}
	t.Logf("%d runs acknowledged before the backup, %d after it began", before, len(acked)-before)
	waitFor(t, "the doctor to be content", func() bool {
		out, _, code = s.cli(t, "", "doctor", "--fix")
		return code == 0
	})
	checkStatuses(t, s, log)
}

// checkStatuses compares every status with its log.
func checkStatuses(t *testing.T, s *stage, log *runlog.Log) {
	t.Helper()
	out, stderr, code := s.cli(t, "", "list", "--all", "--json")
	if code != 0 {
		t.Fatal(stderr)
	}
	n := 0
	for line := range strings.Lines(out) {
		var r contracts.StatusRecord
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		last, err := log.Last(t.Context(), r.RunID)
		if err != nil || last.Status != r.Status {
			t.Errorf("run %s has the status %s, its log says %s, %v", r.RunID, r.Status, last.Status, err)
		}
		n++
	}
	if n == 0 {
		t.Error("no run has a status")
	}
}

// A backup that broke off is none.
func TestRestoreOfHalfABackup(t *testing.T) {
	s := newStage(t)
	s.start(t, "dispatcher")
	js, err := jsutil.JetStream(s.connect(t, "operator"))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the topology", func() bool {
		_, err := js.Stream(t.Context(), contracts.StreamAgents)
		return err == nil
	})
	dir := filepath.Join(t.TempDir(), "backup")
	if out, stderr, code := s.cli(t, "", "backup", dir); code != 0 {
		t.Fatalf("exit code %d\n%s%s", code, out, stderr)
	}
	if err := os.Remove(filepath.Join(dir, "longhaul.json")); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := s.cli(t, "", "restore", dir); code == 0 || !strings.Contains(stderr, "no complete backup") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}
