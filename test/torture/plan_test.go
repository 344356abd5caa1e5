package main

import (
	"cmp"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"longhaul/pkg/contracts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustParse(t *testing.T, args ...string) options {
	t.Helper()
	o, err := parseOptions(args)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestChooseFaults(t *testing.T) {
	for _, c := range []struct {
		list      string
		brokers   int
		with, not string
	}{
		{"all", 1, "kill-worker disk-full clock-skew", "partition two-down"},
		{"all", 3, "kill-worker partition two-down", ""},
		{"all,-kill-worker", 1, "kill-reader", "kill-worker"},
		{"none", 1, "", "kill-worker"},
		{"kill-worker, cut", 1, "kill-worker cut", "drop"},
	} {
		got, err := chooseFaults(c.list, c.brokers)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range strings.Fields(c.with) {
			if !slices.Contains(got, name) {
				t.Errorf("%s on %d: %s is missing", c.list, c.brokers, name)
			}
		}
		for _, name := range strings.Fields(c.not) {
			if slices.Contains(got, name) {
				t.Errorf("%s on %d: %s is there", c.list, c.brokers, name)
			}
		}
	}
	for _, list := range []string{"earthquake", "kill-worker,earthquake", "partition"} {
		if got, err := chooseFaults(list, 1); err == nil {
			t.Errorf("%s: %v", list, got)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	_, err := parseOptions([]string{"-cluster", "2", "-duration", "1ms", "-faults", "x", "-profile", "y", "-sabotage", "z", "-settle", "-1s", "rest"})
	if err == nil {
		t.Fatal("taken")
	}
	for _, flag := range []string{"-cluster", "-duration", "-faults", "-profile", "-sabotage", "-settle", "rest"} {
		if !strings.Contains(err.Error(), flag) {
			t.Errorf("%s is not named: %v", flag, err)
		}
	}
}

// What a report prints runs the same once more.
func TestCommandRunsItAgain(t *testing.T) {
	o := mustParse(t, "-seed", "7", "-duration", "90s", "-settle", "20s", "-cluster", "3", "-faults", "all,-cut", "-sabotage", "fencing")
	again := mustParse(t, strings.Fields(strings.TrimPrefix(o.command(), "go run ./test/torture "))...)
	if !reflect.DeepEqual(o, again) {
		t.Errorf("%+v\n%+v", o, again)
	}
}

// A seed is a plan: the same one twice, and another for another seed. It lasts
// for the whole time, and has a fault of each kind in the long run.
func TestPlan(t *testing.T) {
	o := mustParse(t, "-seed", "3", "-duration", "1h", "-cluster", "3")
	other := mustParse(t, "-seed", "4", "-duration", "1h", "-cluster", "3")
	seen := map[string]bool{}
	shape := func(all []planned) (s []any) {
		for _, p := range all {
			s = append(s, p.name, p.after, p.seed)
		}
		return s
	}
	for _, l := range []lane{laneProcesses, laneBrokers, laneLinks, laneData} {
		plan := o.plan(l)
		if !reflect.DeepEqual(shape(plan), shape(o.plan(l))) {
			t.Errorf("%s: the same seed makes two plans", l)
		}
		if reflect.DeepEqual(shape(plan), shape(other.plan(l))) {
			t.Errorf("%s: two seeds make the same plan", l)
		}
		var all time.Duration
		for _, p := range plan {
			all += p.after
			seen[p.name] = true
		}
		if all < o.duration {
			t.Errorf("%s: the plan is over after %s", l, all)
		}
	}
	for _, name := range o.faults {
		if !seen[name] {
			t.Errorf("%s is never done", name)
		}
	}
}

// Each kind of load comes, and each submission is one that the client takes.
func TestSubmissionsAreValid(t *testing.T) {
	c := &submitter{s: &system{}, name: "client-1", rng: rand.New(rand.NewPCG(1, 1))}
	agents := map[string]bool{}
	for range 2000 {
		sub := c.submission()
		if faults := sub.Check(); len(faults) > 0 {
			t.Fatalf("%+v: %v", sub, faults)
		}
		agents[sub.AgentKey] = true
	}
	if len(agents) != len(agentKeys()) {
		t.Errorf("runs for %v", agents)
	}
}

// So is each that becomes a run of a conversation: of all ways to behave there,
// in conversations that go on beside each other and come to an end.
func TestConversationsAreValid(t *testing.T) {
	chance := func() *rand.Rand { return rand.New(rand.NewPCG(1, 1)) }
	c := &submitter{s: &system{book: newBook()}, name: "client-1", rng: chance(), talk: chance()}
	seen, runs := map[string]int{}, map[string]int{}
	for range 4000 {
		sub := c.submission()
		more := c.converse(&sub)
		for _, sub := range append(more, sub) {
			if sub.ConversationID == "" {
				continue
			}
			if faults := sub.Check(); len(faults) > 0 {
				t.Fatalf("%+v: %v", sub, faults)
			}
			var a act
			if err := json.Unmarshal(sub.Input.Params, &a); err != nil || a.Asks != len(sub.Input.Messages) {
				t.Fatalf("%+v, %v", a, err)
			}
			runs[sub.ConversationID]++
			for _, what := range []string{string(sub.OnConflict), "says " + a.Says, "wrong " + a.Wrong, sub.AgentKey} {
				seen[what]++
			}
			if !sub.NotBefore.IsZero() {
				seen["delayed"]++
			}
			if sub.IdempotencyKey != "" {
				seen["keyed"]++
			}
			if c.talk.IntN(4) > 0 { // of the rest nobody hears again
				c.s.book.add(contracts.Event{RunID: cmp.Or(sub.RunID, contracts.RunIDFromKey(sub.IdempotencyKey)), Seq: 1, Position: contracts.Position{Status: contracts.StatusFailed}})
			}
		}
	}
	for _, what := range append(agentKeys(), "", "reject", "interrupt", "says ", "says all", "says tools", "says own",
		"wrong ", "wrong fail", "wrong permanent", "wrong panic", "delayed", "keyed") {
		if seen[what] == 0 {
			t.Errorf("%q never comes", what)
		}
	}
	longest := 0
	for id, n := range runs {
		if longest = max(longest, n); n > talkLength+3 {
			t.Errorf("%s has %d runs", id, n)
		}
	}
	if len(runs) < 20 || longest < talkLength/2 {
		t.Errorf("%d conversations, the longest of %d runs", len(runs), longest)
	}
}

func TestWorkerFlags(t *testing.T) {
	f := workerFlags{id: "w-1", nats: "nats://a,nats://b", history: "h", replicas: 3, slots: 4, lease: time.Second, drain: 2, retryMax: 3, skew: -time.Second}
	got, err := parseWorker(f.args()[1:])
	if err != nil || got != f {
		t.Errorf("%+v, %v, expected %+v", got, err, f)
	}
}

func TestBookCounts(t *testing.T) {
	b := newBook()
	say := func(run string, seq uint64, status contracts.Status) {
		b.add(contracts.Event{RunID: run, Seq: seq, Type: contracts.TypeMessage, Position: contracts.Position{Status: status}})
	}
	say("a", 1, contracts.StatusPending)
	say("b", 1, contracts.StatusRejected)
	say("c", 1, contracts.StatusRunning)
	say("a", 2, contracts.StatusCancelled)
	say("a", 3, contracts.StatusPending) // redriven
	say("c", 2, contracts.StatusSucceeded)
	if all, live := b.counts(); all != 3 || live != 1 {
		t.Errorf("%d runs, %d live", all, live)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	if h, _, ok := b.any(rng, alive); !ok || h.RunID != "a" {
		t.Errorf("%+v, %t", h, ok)
	}
	if _, _, ok := b.any(rng, heldRun); ok {
		t.Error("nobody holds any")
	}
}
