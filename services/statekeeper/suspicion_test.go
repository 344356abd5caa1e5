package statekeeper

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// seen is one ping, as a dumb model keeps it.
type seen struct {
	answer    answer
	at        time.Time
	connected time.Time
}

// since is when the unbroken row of suitable answers began that the last one
// ends, on one connection; zero if the last one does not suit.
func since(all []seen, ok func(answer) bool) (begin time.Time) {
	for i := len(all) - 1; i >= 0 && ok(all[i].answer) && all[i].connected.Equal(all[len(all)-1].connected); i-- {
		begin = all[i].at
	}
	return begin
}

// TestSuspicionAgainstAModel compares what pings add up to with a model that keeps them all,
// and holds it to what is promised whatever comes: nobody is taken for dead who
// answered within the grace, or within the first grace of a connection; and
// whoever is silent for good is, in time.
func TestSuspicionAgainstAModel(t *testing.T) {
	const grace = time.Second
	rapid.Check(t, func(t *rapid.T) {
		now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
		connected := now.Add(-time.Duration(rapid.IntRange(0, 20).Draw(t, "age")) * time.Second)
		s := suspicion{grace: grace}
		var all []seen
		ping := func(a answer) bool {
			dead := s.observe(a, now, connected)
			all = append(all, seen{a, now, connected})
			young := now.Sub(connected) < 10*time.Second
			late := func(begin time.Time, patience time.Duration) bool {
				if first := connected.Add(grace); young && begin.Before(first) && !begin.IsZero() {
					begin = first
				}
				return !begin.IsZero() && now.Sub(begin) >= patience
			}
			want := late(since(all, func(a answer) bool { return a == absent }), grace) ||
				late(since(all, func(a answer) bool { return a == absent || a == mute }), 3*grace)
			if dead != want {
				t.Fatalf("dead: %v, the model says %v; pings %+v", dead, want, all)
			}
			for _, p := range all {
				if dead && (p.answer == alive || p.answer == unsure) && now.Sub(p.at) < grace {
					t.Fatalf("dead, and answered %s ago", now.Sub(p.at))
				}
			}
			if dead && now.Sub(connected) < grace {
				t.Fatalf("dead, by a connection of %s", now.Sub(connected))
			}
			return dead
		}
		for range rapid.IntRange(0, 60).Draw(t, "pings") {
			now = now.Add(time.Duration(rapid.IntRange(1, 2500).Draw(t, "pause")) * time.Millisecond)
			if rapid.IntRange(0, 15).Draw(t, "reconnect") == 15 {
				connected = now
			}
			ping(rapid.SampledFrom([]answer{absent, mute, alive, unsure}).Draw(t, "answer"))
		}
		silence := now
		for dead := false; !dead; {
			if now = now.Add(300 * time.Millisecond); now.Sub(silence) > 4*grace+600*time.Millisecond {
				t.Fatalf("silent for %s and not dead; pings %+v", now.Sub(silence), all)
			}
			dead = ping(rapid.SampledFrom([]answer{absent, mute}).Draw(t, "silent"))
		}
	})
}
