package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"longhaul/pkg/agent"
	"longhaul/pkg/contracts"
)

// mails makes two calls that ask first. Its worker dies before and after each
// of the first one's moments.
func mails(ctx context.Context, run *agent.Run) (agent.Result, error) {
	mail := agent.NewTool("mail", "Sends a mail.", func(_ context.Context, args struct {
		To string `json:"to"`
	}) (string, error) {
		ledger("to-" + args.To)
		return "sent to " + args.To, nil
	})
	mail.RequiresConfirmation = true
	tools, err := agent.NewTools(mail)
	if err != nil {
		return agent.Result{}, err
	}
	var said []string
	for _, to := range []string{"ann", "bob"} {
		dieOnce("before " + to)
		m, err := tools.Call(ctx, run, contracts.ToolCall{ID: "c-" + to, Type: "function",
			Function: contracts.ToolFunction{Name: "mail", Arguments: `{"to":"` + to + `"}`}})
		if err != nil {
			return agent.Result{}, err
		}
		dieOnce("after " + to)
		said = append(said, m.Text())
	}
	return agent.Result{FinalOutput: strings.Join(said, "; ")}, nil
}

// A person answers from the command line what a run asks: one call is
// confirmed and made once, the other is refused and not made. Workers die on the way.
func TestConfirm(t *testing.T) {
	s := newStage(t)
	s.start(t, "dispatcher")
	s.start(t, "statekeeper")
	dir := t.TempDir()
	s.keepWorker(t, dir)
	s.waitForAgent(t, "mails")
	log := s.log(t)
	id := contracts.NewRunID()
	if _, stderr, code := s.cli(t, "", "submit", "mails", "--run-id", id, "--max-attempts", "10"); code != 0 {
		t.Fatal(stderr)
	}
	waits := func(call string) {
		t.Helper()
		waitFor(t, "the run to ask about "+call, func() bool {
			e, err := log.Last(t.Context(), id)
			return err == nil && e.WaitsFor == "confirm:"+call
		})
	}
	says := func(want []string, args ...string) {
		t.Helper()
		out, stderr, code := s.cli(t, "", args...)
		for _, w := range want {
			if code != 0 || !strings.Contains(out, w) {
				t.Errorf("%v: exit code %d, without %q:\n%s%s", args, code, w, out, stderr)
			}
		}
	}
	waits("c-ann")
	says([]string{`your word on mail({"to":"ann"})`, "otherwise it is refused", "longhaul confirm " + id + " c-ann"}, "get", id)
	says([]string{"c-ann", `mail({"to":"ann"})`, "longhaul confirm " + id + " c-ann --refuse"}, "confirm", id)
	if _, stderr, code := s.cli(t, "", "confirm", id, "c-bob"); code != 8 || !strings.Contains(stderr, "does not ask about call") {
		t.Errorf("of a call that it does not ask about: exit code %d: %s", code, stderr)
	}
	says([]string{`mail({"to":"ann"}) is confirmed`}, "confirm", id, "c-ann")
	waits("c-bob")
	says([]string{"c-bob"}, "confirm", id)
	says([]string{`"call":{"id":"c-bob"`}, "confirm", id, "--json")
	says([]string{`mail({"to":"bob"}) is refused`}, "confirm", id, "c-bob", "--refuse", "--reason", "not him", "--by", "eve")

	all := checkLog(t, log, id)
	if end := all[len(all)-1]; end.Status != contracts.StatusSucceeded || !strings.Contains(string(end.Payload), "sent to ann; error: refused: not him") {
		t.Errorf("the run is %s: %s", end.Status, end.Payload)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "ledger")); err != nil || string(data) != "to-ann\n" {
		t.Errorf("done: %q, %v", data, err)
	}
	says([]string{"asks nothing"}, "confirm", id)
	says([]string{"tool.confirm", "longhaul confirm " + id + " c-ann until "}, "watch", id)
}
