package contracts

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// allTypes is every type the engine knows, and one of an agent's own.
var allTypes = []EventType{
	TypeScheduled, TypeQueued, TypeRejected, TypeStarted, TypeHeartbeat, TypeCheckpoint, TypeStepCompleted, TypeRetrying, TypeSleeping, TypeSignalled, TypeRequeued, TypeCancelRequested,
	TypeSucceeded, TypeFailed, TypeTimedOut, TypeCancelled, TypeDelta, TypeMessage, TypeToolCall, TypeToolResult, TypeToolConfirm, TypeError, "acme.own",
	"run.unheard_of", "state.unheard_of", "step.unheard_of",
}

// TestTransitionTable compares every status × every type with
// testdata/transitions.txt, which is read by people. A dot: it does not happen.
func TestTransitionTable(t *testing.T) {
	const path = "testdata/transitions.txt"
	statuses := append([]Status{StatusNone}, Statuses()...)
	var b strings.Builder
	row := func(cells ...string) {
		for i, c := range cells {
			cells[i] = fmt.Sprintf("%-*s", []int{22, 11}[min(i, 1)], c)
		}
		b.WriteString(strings.TrimRight(strings.Join(cells, ""), " ") + "\n")
	}
	header := []string{"", "(empty)"}
	for _, s := range Statuses() {
		header = append(header, string(s))
	}
	row(header...)
	for _, eventType := range allTypes {
		cells := []string{string(eventType)}
		for _, from := range statuses {
			to, ok := transition(from, eventType)
			if !ok {
				to = "."
			}
			cells = append(cells, string(to))
		}
		row(cells...)
	}
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the table is now\n%s\ngolden:\n%s", &b, want)
	}
}

// What holds of any sound table, however it changes.
func TestTransitionTableIsSound(t *testing.T) {
	reached := map[Status]bool{}
	for from, row := range transitions {
		if from != StatusNone && !slices.Contains(Statuses(), from) {
			t.Errorf("the table knows %q, Statuses does not", from)
		}
		for eventType, to := range row {
			reached[to] = true
			if eventType != typeAny && !slices.Contains(allTypes, eventType) {
				t.Errorf("%s is not among the types of this test", eventType)
			}
			if eventType.Terminal() != to.Terminal() {
				t.Errorf("%s leads to %s: only one of them is terminal", eventType, to)
			}
			if from.Terminal() && (eventType != TypeRequeued || !from.Redrivable() || to != StatusPending) {
				t.Errorf("%s follows %s in the same round", eventType, from)
			}
			if to.Held() && !from.Held() && eventType != TypeStarted {
				t.Errorf("%s makes %s of %s without a start", eventType, to, from)
			}
		}
		if from.Redrivable() && len(row) == 0 {
			t.Errorf("%s is called redrivable, but nothing follows it", from)
		}
		if !from.Terminal() && len(row) == 0 {
			t.Errorf("a run in %s can never end", from)
		}
	}
	for _, s := range Statuses() {
		if _, ok := transitions[s]; !ok || !reached[s] || !s.Valid() {
			t.Errorf("%s: in the table %t, reached %t, valid %t", s, ok, reached[s], s.Valid())
		}
	}
	if StatusNone.Valid() || Status("done").Valid() || StatusNone.Terminal() {
		t.Error("an empty or unknown status is taken for one")
	}
	for _, eventType := range allTypes {
		if !eventType.Valid() {
			t.Errorf("%s is not valid", eventType)
		}
	}
}
