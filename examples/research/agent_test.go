package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"longhaul/pkg/agent/agenttest"
	"longhaul/pkg/agent/agenttest/llm"
	"longhaul/pkg/agent/builtin/chat"
	"longhaul/pkg/contracts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// trial is a run of the agent without a broker, with the stand-in for a model.
func trial(t *testing.T) (tr *agenttest.Trial, model *llm.Server, reports string) {
	t.Helper()
	model, reports = llm.Start(t, "", func(r llm.Request) llm.Reply {
		answer := reply(r)
		answer.Pause = 0
		return answer
	}), t.TempDir()
	a, err := newResearch(chat.Config{Model: "stand-in", BaseURL: model.URL}, reports)
	if err != nil {
		t.Fatal(err)
	}
	return agenttest.New(a, agenttest.Params(input{Topic: "lighthouses"})), model, reports
}

// published returns what stands in the directory of the reports.
func published(t *testing.T, reports string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(reports, "*"))
	var texts []string
	for _, f := range files {
		var text []byte
		if text, err = os.ReadFile(f); err == nil {
			texts = append(texts, string(text))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

func TestPublishedIfConfirmed(t *testing.T) {
	tr, model, reports := trial(t)
	tr.Attempt(t.Context())
	if tr.WaitsFor() == "" || len(published(t, reports)) != 0 {
		t.Fatalf("it waits for %q: %+v", tr.WaitsFor(), tr.Outcome())
	}
	asked := len(model.Requests())
	if err := tr.Confirm("report_1_1", contracts.Confirmation{Confirmed: true}); err != nil {
		t.Fatal(err)
	}
	if said, err := agenttest.Output[string](tr.Run(t.Context())); err != nil || !strings.Contains(said, "published as") {
		t.Errorf("it says %q, %v", said, err)
	}
	if n := len(model.Requests()) - asked; n != 1 {
		t.Errorf("when it went on the model was asked %d times, want once", n)
	}
	reportsNow := published(t, reports)
	if len(reportsNow) != 1 || !strings.Contains(reportsNow[0], "# On lighthouses") || strings.Count(reportsNow[0], "?\n") != 3 || !strings.Contains(reportsNow[0], "Fresnel") {
		t.Errorf("published: %q", reportsNow)
	}
}

func TestNotPublishedIfRefused(t *testing.T) {
	tr, _, reports := trial(t)
	tr.Attempt(t.Context())
	if err := tr.Confirm("report_1_1", contracts.Confirmation{Reason: "too short"}); err != nil {
		t.Fatal(err)
	}
	if said, err := agenttest.Output[string](tr.Run(t.Context())); err != nil || said != "The report is refused: too short." {
		t.Errorf("it says %q, %v", said, err)
	}
	if texts := published(t, reports); len(texts) != 0 {
		t.Errorf("published: %q", texts)
	}
}

// A worker dies behind the n-th event, whichever that is: the run comes to the
// same end, and of what the model had answered only what was under way is asked again.
func TestCrashes(t *testing.T) {
	tr, model, _ := trial(t)
	tr.Attempt(t.Context())
	events, turns := len(tr.Events()), len(model.Requests())
	for at := 2; at < events; at++ {
		tr, model, _ := trial(t)
		n := 0
		tr.After = func(contracts.Event) agenttest.Act {
			if n++; n == at {
				return agenttest.Crash
			}
			return agenttest.GoOn
		}
		for range 2 {
			if tr.WaitsFor() == "" {
				tr.Attempt(t.Context())
			}
		}
		if err := tr.Confirm("report_1_1", contracts.Confirmation{Confirmed: true}); err != nil {
			t.Fatal(err)
		}
		if o := tr.Run(t.Context()); o.Status != contracts.StatusSucceeded {
			t.Errorf("crash behind event %d: %s, %+v", at, o.Status, o.Error)
		}
		if again := len(model.Requests()) - turns - 1; again > 3 {
			t.Errorf("crash behind event %d: the model was asked %d times more, want 3 at most: those side by side", at, again)
		}
	}
}
