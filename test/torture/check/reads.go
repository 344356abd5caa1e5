package check

import (
	"slices"

	"longhaul/test/torture/history"
)

// checkSequence: invariant 6, the log's part: seq is 1, 2, 3 … in the order of
// the stream.
func checkSequence(j *jury, r *story) {
	if len(r.events) > 0 {
		j.exercised(6, 1)
	}
	for n, e := range r.events {
		if want := uint64(n + 1); e.Seq != want {
			j.breach(6, r.id, "%s at %d of the stream is event %d of the log", e.name(), e.sequence, want)
			return // all behind it is off by as much
		}
	}
}

// checkReaders: the readers' part of 6, and 13. A reader sees From, From+1 …,
// each once and in order, and nothing that the log does not have; where it
// skips, it was told so, and rightly: what was skipped is not in the log. One
// that did not see an end was up with the log but for Bounds.Reader when it
// was stopped, unless a fault was in its way. It needs a reader's begin with
// From, infos with Seqs, and its end; one without an end was killed.
func (s *stories) checkReaders(j *jury, r *story) {
	for _, read := range r.reads {
		if read.Read == nil {
			continue
		}
		j.exercised(6, 1)
		j.exercised(13, 1)
		at := max(read.Read.From, 1) // the next seq that is to come
		n := uint64(len(r.events))
		for _, part := range read.parts {
			if part.Read == nil {
				continue
			}
			for _, seq := range part.Read.Seqs {
				switch {
				case seq > n:
					j.breach(14, r.id, "%s saw event %d, and the log ends with %d", read.Actor, seq, n)
				case seq < at:
					j.breach(6, r.id, "%s saw event %d after %d", read.Actor, seq, at-1)
				case seq > at:
					j.breach(13, r.id, "%s saw event %d after %d and was not told of a gap", read.Actor, seq, at-1)
				}
				at = seq + 1
			}
			if part.Read.Gap {
				missing := slices.ContainsFunc(r.events, func(e event) bool { return e.Seq >= at && e.Seq < part.Read.Next })
				if missing || part.Read.Next <= at {
					j.breach(13, r.id, "%s was told of a gap from %d to %d, and the log has it all", read.Actor, at, part.Read.Next)
				}
				at = max(at, part.Read.Next)
			}
		}
		s.checkReadersEnd(j, r, read, at)
	}
}

// checkReadersEnd judges where a reader that was not killed came to its end.
func (s *stories) checkReadersEnd(j *jury, r *story, read *reading, at uint64) {
	switch {
	case read.end == nil || read.end.Read == nil:
	case read.end.Read.Terminal:
		// It ends behind a terminal event that was the log's last one then.
		if n := uint64(len(r.events)); at < 2 || at-2 < n && !terminal(r.events[at-2].Type) {
			j.breach(13, r.id, "%s ended as behind a terminal event, after event %d", read.Actor, at-1)
		}
	case read.end.Op == history.OpEnd && at <= uint64(len(r.events)):
		// What it had not seen must be new, or have come in a fault's wake.
		missed := r.events[at-1]
		if late := read.end.Time.Sub(s.quiet(later(missed.stored, read.Time))); late > s.bounds.Reader {
			j.breach(13, r.id, "%s had not seen %s when it was stopped, %s after it came", read.Actor, missed.name(), late)
		}
	}
}
