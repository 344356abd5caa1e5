package statekeeper

import "time"

// answer is what came of one ping.
type answer int

const (
	alive  answer = iota // the worker answered, whatever it said
	absent               // nobody listens on its subject: its connection is gone
	mute                 // its connection stands, and it does not answer
	unsure               // our own connection failed: nothing is known
)

const (
	// muteFactor is how many times the grace a mute worker gets: it may be
	// stopped for a moment, in the swap or under a debugger.
	muteFactor = 3
	// youth is the age of our connection below which others may not be back yet
	// (DESIGN "Ask before taking over").
	youth = 10 * time.Second
)

// suspicion is what the pings of one worker add up to. It reads no clock.
type suspicion struct {
	grace time.Duration

	silent time.Time // since when there was no answer of any kind; zero: it answers
	gone   time.Time // since when it was absent each time; zero: it was not
}

// observe takes what came of a ping sent at the time now, on a connection that
// stands since connected, and reports whether the worker is to be taken for dead.
func (s *suspicion) observe(a answer, now, connected time.Time) bool {
	if a == alive || a == unsure {
		s.silent, s.gone = time.Time{}, time.Time{}
		return false
	}
	if s.silent.IsZero() || s.silent.Before(connected) { // a reconnect clears suspicions
		s.silent, s.gone = now, time.Time{}
	}
	switch {
	case a == mute:
		s.gone = time.Time{}
	case s.gone.IsZero():
		s.gone = now
	}
	due := s.due(now, connected)
	return !due.IsZero() && !now.Before(due)
}

// due is when the worker is to be taken for dead if it goes on as it does; zero
// if nothing is held against it.
func (s *suspicion) due(now, connected time.Time) time.Time {
	gone, silent := s.end(s.gone, now, connected, s.grace), s.end(s.silent, now, connected, muteFactor*s.grace)
	if gone.IsZero() || !silent.IsZero() && silent.Before(gone) {
		return silent
	}
	return gone
}

// end is when what began at since will have gone on for d. On a young
// connection the first grace does not count.
func (s *suspicion) end(since, now, connected time.Time, d time.Duration) time.Time {
	if since.IsZero() {
		return since
	}
	if begin := connected.Add(s.grace); now.Sub(connected) < youth && since.Before(begin) {
		since = begin
	}
	return since.Add(d)
}
