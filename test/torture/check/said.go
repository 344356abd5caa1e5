package check

import (
	"cmp"
	"encoding/json"
	"slices"
)

// defaultHistory is how many messages a run is given at most where nobody says
// otherwise (docs/protocol.md, Conversations).
const defaultHistory = 200

// checkHistory: invariant 17. The first run.started holds what the conversation
// was: the final_messages of the run that the run follows, if that succeeded
// with any, else what that began with, or, if it never began, what it would have
// begun with; cut to the newest messages, and then to what begins with one of
// neither the assistant nor a tool. How a run stood when the worker looked is
// asked as 16 asks it. It needs Config.HistoryLimit, if it is not the default.
func (s *stories) checkHistory(j *jury, c *talk, t *turn) {
	j.exercised(17, 1)
	got := plain(messages(t.started.body.History))
	if want := s.said(c, t, t.started, t.started, 0); len(want) > 0 && !slices.Contains(want, got) {
		j.breach(17, t.id, "%s begins with %s, and before it was said %s", t.started.name(), got, want[0])
	}
}

// said is what may have been said before a run, by whom it followed at the time
// of at, when a run begins by e: nothing if somebody had not ended or is not
// known, which 16 tells. Depth is how many never began in between: redrives may
// have them follow one another in a ring, and then nobody waits for them.
func (s *stories) said(c *talk, t *turn, at, e *event, depth int) (all []string) {
	join := t.joined(at)
	if join == nil || join.body.Follows == "" {
		return []string{plain(nil)}
	}
	before := c.runs[join.body.Follows]
	if before == nil {
		return nil
	}
	for _, x := range slices.Backward(s.stood(before, join, e)) {
		final := messages(x.body.FinalMessages)
		switch {
		case x.Type == succeeded && len(final) > 0:
			all = append(all, plain(s.newest(final)))
		case x.begun:
			all = append(all, plain(s.newest(messages(before.started.body.History))))
		case depth < len(c.runs):
			all = append(all, s.said(c, before, &x.event, e, depth+1)...)
		}
	}
	return all
}

// newest is the end of messages that a run is given. What the runs of the
// torture test say is far from half an event.
func (s *stories) newest(all []message) []message {
	all = all[max(0, len(all)-cmp.Or(s.config.HistoryLimit, defaultHistory)):]
	for len(all) > 0 && (all[0]["role"] == "assistant" || all[0]["role"] == "tool") {
		all = all[1:]
	}
	return all
}

// checkAttempts: of invariant 17 that every attempt begins with the same. Only
// the first start says with what, and each execution was given that. It needs
// executions' begins with Heard.
func (t *turn) checkAttempts(j *jury) {
	want := plain(messages(t.started.body.History))
	for _, e := range t.again {
		if len(e.body.History) > 0 {
			j.breach(17, t.id, "%s has a history once more: %s", e.name(), e.body.History)
		}
	}
	for _, x := range t.execs {
		if x.Exec.Heard == nil {
			continue
		}
		j.exercised(17, 1)
		if got := plain(messages(x.Exec.Heard)); got != want {
			j.breach(17, t.id, "the execution of epoch %d was given %s, and the run began with %s", x.Exec.Epoch, got, want)
		}
	}
}

// checkSilence: of invariant 17 that a run of no conversation begins with nothing.
func (t *turn) checkSilence(j *jury) {
	if t.started != nil && len(t.started.body.History) > 0 {
		j.breach(17, t.id, "%s has a history, and the run is of no conversation", t.started.name())
	}
}

// message is one in whatever form it has.
type message map[string]any

func messages(raw json.RawMessage) (all []message) {
	_ = json.Unmarshal(raw, &all) // absent, or else it compares as nothing
	return all
}

// plain is messages in a form that compares.
func plain(all []message) string {
	if len(all) == 0 {
		return "[]"
	}
	text, _ := json.Marshal(all) // what was decoded encodes
	return string(text)
}
