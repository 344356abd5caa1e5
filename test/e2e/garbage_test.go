package e2e

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"longhaul/pkg/contracts"
	"longhaul/pkg/jsutil"
	"longhaul/pkg/runlog"
)

// TestGarbage sends what no client should send. Each message ends as a rejected
// run with its faults, or is refused by the broker; nothing is blocked by it.
func TestGarbage(t *testing.T) {
	s := newStage(t)
	dispatcher := s.start(t, "dispatcher")
	s.start(t, "statekeeper")
	s.start(t, "worker", "--agent", "echo")
	s.waitForAgent(t, "echo")
	nc := s.connect(t, "operator")
	js, err := jsutil.JetStream(nc)
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 1<<20-100) // as much as the broker takes
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	accepted := []string{
		"", "\x00\xff\xfe", "null", "[]", `"echo"`, "{", `{"agent_key": 5}`, `{"agent_key": "nobody"}`, `{"agent_key": "echo", "agent_key": "echo"}`,
		`{"agent_key": "echo", "run_id": "not-a-uuid"}`, `{"agent_key": "echo", "run_id": "../../etc"}`, `{"agent_key": "e.>"}`,
		`{"agent_key": "echo", "max_attempts": 1e99}`, `{"agent_key": "echo", "metadata": {"a": 1}}`,
		`{"agent_key": "echo"} {"agent_key": "echo"}`, strings.Repeat("[", 100_000), string(noise),
		`{"agent_key": "echo", "input": {"params": {"x": "` + strings.Repeat("y", 900_000) + `"}}}`,
	}
	log := runlog.New(js)
	for i, body := range accepted {
		ack, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: contracts.SubjectSubmit, Data: []byte(body)})
		if err != nil {
			t.Fatalf("garbage %d: %v", i, err)
		}
		// Its run id follows from where it was stored.
		stream, err := js.Stream(t.Context(), contracts.StreamInbox)
		if err != nil {
			t.Fatal(err)
		}
		stored := ack.Sequence
		waitFor(t, fmt.Sprintf("garbage %d to be taken from the inbox", i), func() bool {
			_, err := stream.GetMsg(t.Context(), stored)
			return err != nil
		})
	}
	rejected := 0
	waitFor(t, "every piece of garbage to be listed as rejected", func() bool {
		out, _, code := s.cli(t, "", "list", "--status", "rejected", "--limit", "100", "--json")
		rejected = strings.Count(out, `"rejected"`)
		return code == 0 && rejected >= len(accepted)
	})
	if rejected != len(accepted) {
		t.Errorf("%d rejected runs of %d pieces of garbage", rejected, len(accepted))
	}

	for name, header := range map[string]nats.Header{
		"rollup":   {"Nats-Rollup": {"all"}},
		"ttl":      {"Nats-TTL": {"1s"}},
		"schedule": {"Nats-Schedule": {"@every 1s"}, "Nats-Schedule-Target": {"runs.submit"}},
	} {
		if _, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: contracts.SubjectSubmit, Header: header, Data: []byte(`{"agent_key": "echo"}`)}); err == nil {
			t.Errorf("the broker took a message with header %s", name)
		}
	}
	// An id that two clients share by chance or by malice swallows nothing.
	for i := range 2 {
		id := contracts.NewRunID()
		waitFor(t, "the broker to forget the message id", func() bool {
			ack, err := js.PublishMsg(t.Context(), &nats.Msg{Subject: contracts.SubjectSubmit, Header: nats.Header{"Nats-Msg-Id": {"1"}},
				Data: []byte(`{"agent_key": "echo", "run_id": "` + id + `"}`)})
			return err == nil && !ack.Duplicate
		})
		if all := checkLog(t, log, id); all[len(all)-1].Status != contracts.StatusSucceeded {
			t.Errorf("run %d of one message id ended %s", i, all[len(all)-1].Status)
		}
	}
	for _, subject := range []string{"runs.nonsense.cancel", "runs.*.cancel", "runs." + contracts.NewRunID() + ".redrive"} {
		_ = nc.Publish(subject, []byte("{{{")) // whether it is stored is the broker's business
	}
	begun := time.Now()
	id := contracts.NewRunID()
	if out, stderr, code := s.cli(t, "", "submit", "echo", "--run-id", id, "--message", "still there?", "--wait"); code != 0 {
		t.Errorf("exit code %d\n%s%s", code, out, stderr)
	}
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("a good run took %v after the garbage", took)
	}
	checkLog(t, log, id)
	if dispatcher.cmd.ProcessState != nil {
		t.Error("the dispatcher has ended")
	}
}
