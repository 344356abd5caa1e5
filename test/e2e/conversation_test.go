package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// talks answers with how many messages it was given; its worker dies in each run
// once, before it answers.
func talks(_ context.Context, run *agent.Run) (agent.Result, error) {
	dieOnce(run.Messages[len(run.Messages)-1].Text())
	answer := contracts.Text(contracts.RoleAssistant, fmt.Sprint(len(run.Messages)))
	return agent.Result{FinalMessages: append(run.Messages[:len(run.Messages):len(run.Messages)], answer)}, nil
}

// A conversation goes on over the deaths of dispatchers and workers: each run
// is in it once, in the order in which they were submitted one after the other,
// and in each attempt with the same history.
func TestConversationOverKill9(t *testing.T) {
	s := newStage(t)
	dispatcher := s.start(t, "dispatcher")
	s.start(t, "statekeeper")
	s.keepWorker(t, t.TempDir())
	s.waitForAgent(t, "talks")
	log := s.log(t)
	words := []string{"a", "b", "c", "d", "e"}
	var last string
	for i, word := range words {
		last = contracts.NewRunID()
		if _, stderr, code := s.cli(t, "", "submit", "talks", "--run-id", last, "--conversation", "c1", "-m", word, "--max-attempts", "9"); code != 0 {
			t.Fatal(stderr)
		}
		if i == 2 { // it may have this one in hand
			dispatcher.kill()
			dispatcher = s.start(t, "dispatcher")
			s.start(t, "dispatcher")
		}
		waitFor(t, "run "+last+" to be queued", func() bool {
			_, err := log.Last(t.Context(), last)
			return err == nil
		})
	}
	all := checkLog(t, log, last)
	var said contracts.Succeeded
	if err := json.Unmarshal(all[len(all)-1].Payload, &said); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range said.FinalMessages {
		got = append(got, m.Text())
	}
	if want := "a 1 b 3 c 5 d 7 e 9"; strings.Join(got, " ") != want {
		t.Errorf("the conversation is %q, want %q", strings.Join(got, " "), want)
	}
	if end := all[len(all)-1]; end.Epoch != 2 {
		t.Errorf("the last run ended in epoch %d", end.Epoch)
	}
}
