package check

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Invariant is a number of docs/ARCHITECTURE.md, or one of ours beyond them.
type Invariant int

// What is judged besides the invariants of the document.
const (
	statusIsFold Invariant = 18 + iota
	logIsRegister
	logKeepsTable
	invariants = iota + 18
)

// String is the invariant in words.
func (i Invariant) String() string {
	return [...]string{
		1:             "every acknowledged submit ends in exactly one terminal event per round",
		2:             "after a terminal event nothing follows in that round",
		3:             "same idempotency key or run id, same run",
		4:             "epochs rise by one, attempts never exceed their limit, crashes counted",
		5:             "nothing from an epoch below the head's is committed",
		6:             "seq is 1..n without a gap, readers see it in order",
		7:             "resume uses the newest committed checkpoint",
		8:             "a drain or a broker's restart charges no attempt",
		9:             "no attempt starts before its time",
		10:            "a live run has a work message, a schedule or a holder",
		11:            "an acknowledged cancel ends in a terminal event in bounded time",
		12:            "one bad run never blocks another",
		13:            "a reader misses nothing, or is told",
		14:            "nothing acknowledged is lost",
		15:            "executions are begun by the log, and end soon after they are fenced",
		16:            "runs of a conversation are executed one after the other, in one order",
		17:            "a run begins with what was said before it, in every attempt",
		statusIsFold:  "a status record is the fold of its log",
		logIsRegister: "a log's end is a register with compare-and-set, linearizable",
		logKeepsTable: "a log keeps to the table of statuses",
	}[i]
}

// State is how an invariant fared.
type State string

// The states.
const (
	Holds        State = "holds"
	Violated     State = "violated"
	NotExercised State = "not exercised"
)

// Violation is one breach.
type Violation struct {
	Run  string // "" if it is of no run in particular
	What string
}

// Verdict is about one invariant.
type Verdict struct {
	Invariant Invariant
	State     State
	// Exercised is how often it was put to the test: runs, pairs, commands, as the
	// invariant has it.
	Exercised  int
	Violations []Violation
}

// Report is the outcome of Check.
type Report struct {
	Verdicts []Verdict // by invariant
	// Runs and Events are how much was judged.
	Runs, Events int
	// Notes tell what is no violation and may help.
	Notes []string

	stories *stories
}

// OK reports whether nothing is violated.
func (r Report) OK() bool {
	return !slices.ContainsFunc(r.Verdicts, func(v Verdict) bool { return v.State == Violated })
}

// Violated lists the invariants that are.
func (r Report) Violated() []Invariant {
	var all []Invariant
	for _, v := range r.Verdicts {
		if v.State == Violated {
			all = append(all, v.Invariant)
		}
	}
	return all
}

// shown bounds what is printed of one invariant, and the stories of all.
const (
	shownViolations = 10
	shownStories    = 3
)

// Print writes the verdicts, what broke them, and the whole story of the first
// runs that did.
func (r Report) Print(w io.Writer) {
	fmt.Fprintf(w, "%d runs, %d events\n", r.Runs, r.Events)
	var runs []string
	for _, v := range r.Verdicts {
		fmt.Fprintf(w, "%3d  %-13s %7d  %s\n", int(v.Invariant), v.State, v.Exercised, v.Invariant)
		for n, x := range v.Violations {
			if x.Run != "" && !slices.Contains(runs, x.Run) {
				runs = append(runs, x.Run)
			}
			switch {
			case n == shownViolations:
				fmt.Fprintf(w, "       … and %d more\n", len(v.Violations)-n)
			case n < shownViolations:
				fmt.Fprintf(w, "       %s\n", strings.TrimSpace(x.Run+" "+x.What))
			}
		}
	}
	for _, s := range r.Notes {
		fmt.Fprintln(w, "    ", s)
	}
	for n, run := range runs {
		if n == shownStories {
			fmt.Fprintf(w, "\n… and %d more runs that broke a rule\n", len(runs)-n)
			break
		}
		fmt.Fprintln(w)
		r.stories.tell(w, run)
	}
	if len(runs) > 0 {
		fmt.Fprintf(w, "\nto run it again: %s\n", r.stories.config.Command)
	}
}

// jury collects what the checks find.
type jury struct{ verdicts []Verdict }

func newJury() *jury {
	j := &jury{}
	for i := range Invariant(invariants - 1) {
		j.verdicts = append(j.verdicts, Verdict{Invariant: i + 1})
	}
	return j
}

// exercised notes that an invariant was put to the test n times.
func (j *jury) exercised(i Invariant, n int) { j.verdicts[i-1].Exercised += n }

// breach notes a violation, which is a test too.
func (j *jury) breach(i Invariant, run, format string, args ...any) {
	v := &j.verdicts[i-1]
	v.Violations = append(v.Violations, Violation{run, fmt.Sprintf(format, args...)})
}

func (j *jury) done() []Verdict {
	for i := range j.verdicts {
		switch v := &j.verdicts[i]; {
		case len(v.Violations) > 0:
			v.State = Violated
		case v.Exercised > 0:
			v.State = Holds
		default:
			v.State = NotExercised
		}
	}
	return j.verdicts
}
