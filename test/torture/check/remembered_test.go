package check

import (
	"slices"
	"testing"

	"longhaul/test/torture/history"
)

// A run takes two durable steps, its worker is killed in between, and what was
// completed is not taken again. A redrive from the start forgets.
func TestRemembered(t *testing.T) {
	taken := func(s *scene, name string, n int) {
		s.exec("r", history.KindStep, history.OpInfo, history.Exec{Step: n})
		s.in.History[len(s.in.History)-1].Text = history.Durable(name)
	}
	completed := func(s *scene, name string) {
		s.event("r", stepCompleted, map[string]any{"name": name, "result": 1}, by(s.cast("r").at.worker))
	}
	play := func(t *testing.T, after func(s *scene)) Report {
		s := newScene(t)
		s.submit("r")
		s.event("r", queued, nil)
		s.start("r", "w-1")
		taken(s, "a", 1)
		completed(s, "a")
		taken(s, "b", 2) // whose result is lost with the worker
		s.start("r", "w-2")
		taken(s, "b", 2)
		completed(s, "b")
		after(s)
		return Check(s.in)
	}
	for _, c := range []struct {
		name  string
		after func(s *scene)
		bad   bool
	}{
		{"each once", func(*scene) {}, false},
		{"forgotten", func(s *scene) {
			s.event("r", failed, nil, by("w-2"))
			s.event("r", requeued, map[string]any{"reason": reasonRedrive, "from_start": true})
			s.start("r", "w-3")
			taken(s, "a", 1)
			completed(s, "a")
		}, false},
		{"taken again", func(s *scene) {
			s.start("r", "w-3")
			taken(s, "a", 1)
		}, true},
		{"completed again", func(s *scene) { completed(s, "a") }, true},
		{"a redrive goes on where it was", func(s *scene) {
			s.event("r", failed, nil, by("w-2"))
			s.event("r", requeued, map[string]any{"reason": reasonRedrive})
			s.start("r", "w-3")
			taken(s, "b", 2)
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			report := play(t, c.after)
			if got := slices.Contains(report.Violated(), 7); got != c.bad {
				t.Errorf("violated: %t, %+v", got, report.Verdicts[7-1])
			}
		})
	}
}
