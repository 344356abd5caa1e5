package contracts

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// runSubjects are the builders that name one run, all of which
// RunIDOfSubject must read back.
var runSubjects = map[string]func(string) string{
	"runs.%.events":           EventsSubject,
	"runs.%.log":              LogSubject,
	"runs.%.cancel":           CancelSubject,
	"runs.%.redrive":          RedriveSubject,
	"runs.%.signal":           SignalSubject,
	"runs.schedule.at.%":      ScheduleAtSubject,
	"runs.schedule.due.%":     ScheduleDueSubject,
	"runs.work.echo-1.high.%": func(id string) string { return WorkSubject("echo-1", PriorityHigh, id) },
}

func TestRunSubjects(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var u uuid.UUID
		copy(u[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		for form, build := range runSubjects {
			subject := build(u.String())
			if want := strings.Replace(form, "%", u.String(), 1); subject != want {
				t.Fatalf("got %s, want %s", subject, want)
			}
			if id, err := RunIDOfSubject(subject); err != nil || id != u.String() {
				t.Fatalf("%s: got %s, %v", subject, id, err)
			}
		}
		epoch, n := rapid.Uint64().Draw(t, "epoch"), rapid.Uint64().Draw(t, "n")
		if id, e, m, err := ParseCheckpointKey(CheckpointKey(u.String(), epoch, n)); err != nil || id != u.String() || e != epoch || m != n {
			t.Fatalf("checkpoint key: got %s, %d, %d, %v", id, e, m, err)
		}
	})
}

func TestOtherSubjects(t *testing.T) {
	for got, want := range map[string]string{
		WorkFilter("echo", PriorityLow):                       "runs.work.echo.low.*",
		WorkConsumer("a-high", PriorityLow):                   "work-a-high-low",
		WorkerSubject("w-1"):                                  "runs.worker.w-1",
		APISubject(EndpointList):                              "runs.api.list",
		KVSubject(BucketRuns, StatusKey(testRun)):             "$KV.runs.status." + testRun,
		CheckpointKey(testRun, 2, 3):                          "checkpoint." + testRun + ".2.3",
		RoundKey(testRun, 7):                                  "round." + testRun + ".7",
		IdempotencyKey("a.b *>\n"):                            "key." + RunIDFromKey("a.b *>\n"),
		strings.Join([]string{StreamRuns, StreamAgents}, " "): "KV_runs KV_agents",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestSubjectsOfNoRun(t *testing.T) {
	for _, s := range []string{"", "runs", "runs.submit", "runs.worker.w1", "runs.worker." + testRun, "runs.api." + testRun, "runs.api.get", "runs.x.events",
		"runs.*.events", "runs.>", "runs." + testRun, "runs." + strings.ToUpper(testRun) + ".events", "other." + testRun + ".events",
		"runs." + testRun + ".a.b.c", "runs.work.echo.high", "runs.work.echo.high.*", "runs.other.at." + testRun, "." + testRun + ".events"} {
		if id, err := RunIDOfSubject(s); err == nil || id != "" {
			t.Errorf("%s: got %q, %v", s, id, err)
		}
	}
	for _, k := range []string{"", "checkpoint", "checkpoint." + testRun, "checkpoint." + testRun + ".1", "checkpoint." + testRun + ".1.x", "checkpoint." + testRun + ".-1.1",
		"checkpoint.x.1.1", "status." + testRun + ".1.1", "checkpoint." + testRun + ".1.1.1"} {
		if id, _, _, err := ParseCheckpointKey(k); err == nil || id != "" {
			t.Errorf("%s: got %q, %v", k, id, err)
		}
	}
}

// hostile are ids that would make another subject of the one that is built, or none.
var hostile = []string{"", "*", ">", "a.b", "a b", "a\n", "a\x00", "\tA", "é", "..", "-a", "_a", "$JS", strings.Repeat("a", 64),
	testRun + ".", testRun + ".>", "*." + testRun, strings.ToUpper(testRun), "{" + testRun + "}", "urn:uuid:" + testRun, testRun[:35], testRun + "0"}

func TestBuildersPanicOnInjection(t *testing.T) {
	for _, id := range hostile {
		builders := map[string]func(){
			"checkpoint key":    func() { CheckpointKey(id, 1, 1) },
			"status key":        func() { StatusKey(id) },
			"priority":          func() { WorkSubject("echo", Priority(id), testRun) },
			"priority filter":   func() { WorkFilter("echo", Priority(id)) },
			"priority consumer": func() { WorkConsumer("echo", Priority(id)) },
		}
		for form, build := range runSubjects {
			builders[form] = func() { build(id) }
		}
		if CheckAgentKey(id) != nil { // a run id and a little more may well name an agent
			builders["work"] = func() { WorkSubject(id, PriorityHigh, testRun) }
			builders["work filter"] = func() { WorkFilter(id, PriorityHigh) }
			builders["work consumer"] = func() { WorkConsumer(id, PriorityHigh) }
		}
		if CheckWorkerID(id) != nil {
			builders["worker"] = func() { WorkerSubject(id) }
		}
		for name, build := range builders {
			if !panics(build) {
				t.Errorf("%s takes %q", name, id)
			}
		}
	}
	for _, id := range hostile[:14] {
		if CheckAgentKey(id) == nil || CheckWorkerID(id) == nil || CheckRunID(id) == nil {
			t.Errorf("%q is taken for an id", id)
		}
	}
	for _, id := range []string{"events", "log", "cancel", "redrive"} {
		if !panics(func() { WorkerSubject(id) }) {
			t.Errorf("runs.worker.%s looks like a run's own subject", id)
		}
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

func TestFreshIDs(t *testing.T) {
	var ids []string
	for range 100 {
		ids = append(ids, NewRunID())
		if err := CheckRunID(ids[len(ids)-1]); err != nil {
			t.Error(err)
		}
		if err := CheckWorkerID(NewWorkerID()); err != nil {
			t.Error(err)
		}
	}
	if !slices.IsSorted(ids) || len(slices.Compact(ids)) != 100 {
		t.Errorf("ids do not rise: %v", ids)
	}
	if a, b := NewWorkerID(), NewWorkerID(); a == b {
		t.Error("two workers of one name")
	}
}

// These values are wire contract: clients in other languages, and a
// redelivered submission after an update, derive the same ids.
func TestDerivedIDsArePinned(t *testing.T) {
	stored := time.Date(2026, 11, 22, 10, 0, 0, 123456789, time.UTC)
	for got, want := range map[string]string{
		RunIDFromKey("order-77"): "ffbf231c-57d1-570e-a2ed-944cf8dbe539",
		RunIDFromKey("Größe"):    "b80963ba-e705-5658-9921-58090693d08f",
		RunIDAfter("ffbf231c-57d1-570e-a2ed-944cf8dbe539", "order-77"): "c5bdaeb0-1fec-5d04-b59d-d8e182b370b8",
		RunIDFromInbox(1, stored):                                      "01a202b2-c57b-7420-a72f-0b28960c733d",
		RunIDFromInbox(2, stored):                                      "01a202b2-c57b-7d77-b11d-f700761a9ad6",
		RunIDFromInbox(1, stored.Add(1)):                               "01a202b2-c57b-7392-a476-dc86ad7f748e",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if err := CheckRunID(got); err != nil {
			t.Error(err)
		}
	}
}

func TestRunIDFromInbox(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sequence := rapid.Uint64().Draw(t, "sequence")
		stored := time.Unix(0, rapid.Int64Range(0, 4e18).Draw(t, "stored"))
		later := stored.Add(time.Duration(rapid.Int64Range(1e6, 1e18).Draw(t, "later")))
		id := RunIDFromInbox(sequence, stored)
		u, err := uuid.Parse(id)
		if err != nil || u.Version() != 7 || u.Variant() != uuid.RFC4122 || CheckRunID(id) != nil {
			t.Fatalf("%s is no UUIDv7", id)
		}
		if again := RunIDFromInbox(sequence, stored.UTC()); again != id {
			t.Fatalf("%s, then %s", id, again)
		}
		if RunIDFromInbox(sequence+1, stored) == id || RunIDFromInbox(sequence, stored.Add(1)) == id {
			t.Fatal("another place in the inbox has the same id")
		}
		if RunIDFromInbox(sequence, later) <= id {
			t.Fatalf("an id of %v sorts before one of %v", later, stored)
		}
	})
}

func TestMessageText(t *testing.T) {
	for content, want := range map[string]string{
		`"a <b>"`: "a <b>", `null`: "", ``: "", `5`: "",
		`[{"type":"text","text":"a"},{"type":"image_url","text":"no"},{"type":"text","text":"b"}]`: "ab",
	} {
		if got := (Message{Content: []byte(content)}).Text(); got != want {
			t.Errorf("%s: got %q, want %q", content, got, want)
		}
	}
	if m := Text(RoleUser, "<&>"); m.Text() != "<&>" || string(m.Content) != `"<&>"` || m.Role != "user" {
		t.Errorf("got %+v", m)
	}
}
