package check

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"longhaul/test/torture/history"
)

// line is one line of a story.
type line struct {
	at   time.Time
	what string
}

// aside is how much around a run's life faults are told of.
const aside = 5 * time.Second

// told is the story of a run: commands, log, deliveries, executions, reads and
// faults, in the order of time.
func (s *stories) told(run string) string {
	r := s.runs[run]
	if r == nil {
		return ""
	}
	var lines []line
	for _, e := range r.entries {
		lines = append(lines, line{e.Time, tellEntry(e)})
	}
	for _, o := range r.submits { // by key alone they do not name the run
		if o.Entry.Run != run || o.answer.Run != run {
			lines = append(lines, line{o.Time, tellEntry(o.Entry)})
		}
		if !o.answer.Time.IsZero() && o.answer.Run != run {
			lines = append(lines, line{o.answer.Time, tellEntry(o.answer)})
		}
	}
	for _, e := range r.events {
		lines = append(lines, line{e.stored, tellEvent(e)})
		if e.Type == started {
			lines = append(lines, line{e.stored, tellDelivery(e.body.LeaseToken)})
		}
	}
	for _, err := range r.unread {
		lines = append(lines, line{what: err.Error()})
	}
	for _, m := range slices.Concat(r.work, r.schedule) {
		lines = append(lines, line{m.Time, fmt.Sprintf("left over   message %d on %s", m.Seq, m.Subject)})
	}
	if r.status != nil {
		lines = append(lines, line{r.status.Time, fmt.Sprintf("status      %s", r.status.Data)})
	}
	byTime := func(a, b line) int { return a.at.Compare(b.at) }
	slices.SortStableFunc(lines, byTime)
	if len(lines) > 0 {
		from, to := lines[0].at.Add(-aside), lines[len(lines)-1].at.Add(aside)
		for _, f := range s.faults {
			if f.during(from, to) && f.run == "" {
				lines = append(lines, line{f.begin, tellFault(f, "")})
				if f.end.After(f.begin) {
					lines = append(lines, line{f.end, tellFault(f, " is over")})
				}
			}
		}
	}
	slices.SortStableFunc(lines, byTime)
	var b strings.Builder
	fmt.Fprintf(&b, "the story of run %s\n", run)
	for _, l := range lines {
		fmt.Fprintf(&b, "  %s  %s\n", clock(l.at), l.what)
	}
	return b.String()
}

func (s *stories) tell(w io.Writer, run string) { fmt.Fprint(w, s.told(run)) }

// tellEntry shows an entry with what it has of details, as they were written.
func tellEntry(e history.Entry) string {
	var details []string
	for _, d := range []any{e.Submit, e.Read, e.Exec, e.Append, e.Fault} {
		if text, _ := json.Marshal(d); string(text) != "null" { // plain structs: they always encode
			details = append(details, string(text))
		}
	}
	for _, text := range []string{e.Key, e.Error, e.Text} {
		if text != "" {
			details = append(details, fmt.Sprintf("%q", text))
		}
	}
	return fmt.Sprintf("%-11s %s %s %s", e.Kind, e.Actor, e.Op, strings.Join(details, " "))
}

func tellEvent(e event) string {
	text := fmt.Sprintf("log         %d @%d %s, %s, epoch %d, attempt %d of %d", e.Seq, e.sequence, e.Type, e.Status, e.Epoch, e.Attempt, e.MaxAttempts)
	if e.WorkerID != "" {
		text += ", by " + e.WorkerID
	}
	if e.Checkpoint != nil {
		text += ", checkpoint " + e.Checkpoint.String()
	}
	if !e.NotBefore.IsZero() {
		text += ", not before " + clock(e.NotBefore)
	}
	if e.body.Follows != "" {
		text += ", behind run " + e.body.Follows
	}
	return fmt.Sprintf("%s %.160s", text, e.Payload)
}

// tellDelivery reads what a lease token says of the delivery.
func tellDelivery(token string) string {
	t := strings.Split(token, ".") // $JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.…
	if len(t) < 7 {
		return "delivery    by a token that tells nothing: " + token
	}
	t = t[len(t)-7:]
	return fmt.Sprintf("delivery    %s of work message %s, of %s", t[2], t[3], t[1])
}

func tellFault(f *fault, over string) string {
	return fmt.Sprintf("FAULT       %s of %s%s", f.Name, cmp.Or(f.Target, "?"), over)
}
