package window

import (
	"strings"
	"testing"

	"longhaul/pkg/contracts"
)

const run, other = "0198c0de-0000-7000-8000-000000000001", "0198c0de-0000-7000-8000-000000000002"

// What is passed on asks for the one run, whatever stands in the question.
func TestAllowed(t *testing.T) {
	mine, others := contracts.EventsSubject(run), contracts.EventsSubject(other)
	for _, tc := range []struct {
		kind, run, body string
		asks            string // "": refused
	}{
		{KindLog, run, `{"seq":7,"next_by_subj":"` + mine + `","batch":256,"max_bytes":1048576}`, `{"seq":7,"next_by_subj":"` + mine + `","batch":256,"max_bytes":1048576}`},
		{KindLog, run, `{"last_by_subj":"` + mine + `"}`, `{"last_by_subj":"` + mine + `"}`},
		{KindLeader, run, `{"seq":7,"next_by_subj":"` + mine + `"}`, `{"seq":7,"next_by_subj":"` + mine + `"}`},
		{KindRun, run, `{"run_id":"` + run + `"}`, `{"run_id":"` + run + `"}`},

		{KindLog, run, `{"seq":7}`, ""}, // of any run
		{KindLog, run, `{"start_time":"2026-11-22T10:00:00Z"}`, ""},
		{KindLog, run, `{}`, ""},
		{KindLog, run, ``, ""},
		{KindLog, run, `{"seq":1,"next_by_subj":"` + others + `"}`, ""},
		{KindLog, run, `{"seq":1,"next_by_subj":"runs.*.events"}`, ""},
		{KindLog, run, `{"seq":1,"next_by_subj":">"}`, ""},
		{KindLog, run, `{"last_by_subj":"` + others + `","next_by_subj":"` + mine + `"}`, ""},
		{KindLog, run, `{"next_by_subj":"` + mine + `","multi_last":["` + others + `"]}`, ""},
		{KindLog, run, `{"next_by_subj":"` + mine + `","batch":257}`, ""},
		{KindLog, run, `{"next_by_subj":"` + mine + `","max_bytes":1048577}`, ""},
		{KindLog, run, `{"next_by_subj":"` + mine + `","batch":-1}`, ""},
		{KindLeader, run, `{"seq":7}`, ""},
		{KindRun, run, `{"run_id":"` + other + `"}`, ""},
		{KindRun, run, `{}`, ""},
		{KindLog, "*", `{"next_by_subj":"runs.*.events"}`, ""},
		{KindRun, "x", `{"run_id":"x"}`, ""},

		// What we did not look at is not passed on: a second key, another spelling.
		{KindLog, run, `{"next_by_subj":"` + others + `","next_by_subj":"` + mine + `"}`, `{"next_by_subj":"` + mine + `"}`},
		{KindLog, run, `{"next_by_subj":"` + mine + `","no_hdr":true,"up_to_seq":9}`, `{"next_by_subj":"` + mine + `"}`},
	} {
		to, question, err := allowed(tc.kind, tc.run, []byte(tc.body))
		if (err == nil) != (tc.asks != "") || string(question) != tc.asks {
			t.Errorf("%s %s: %s asks %s, %v; want %q", tc.kind, tc.run, tc.body, question, err, tc.asks)
		}
		if err == nil && strings.Contains(to, other) {
			t.Errorf("%s is asked on %s", tc.body, to)
		}
	}
}
